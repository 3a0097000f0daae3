"""The data files of a checkpoint, read in small pieces.

After each the kernel may run somebody more urgent, and a thread at idle priority that competes for the CPUs rests.
"""

import mmap
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import google_crc32c
import numpy as np

from .checkpoint_index import Entry, Index
from .pace import Pace

# The checksum of a piece finds it in the cache, and a CPU copies one in a small part of a millisecond.
PIECE_BYTES = 512 << 10
# Checksums by its own Python code, where it has no compiled one for this machine, would take minutes.
FAST = google_crc32c.implementation == "c"


class DamagedError(ValueError):
    """The bytes are not those that the index tells of."""


class DataFiles:
    """Opens those that hold these tensors, and closes them as a context manager. Reads go on in several threads."""

    def __init__(self, index: Index, entries: Iterable[Entry]) -> None:
        self._index = index
        self._pace = Pace()
        self._fds: dict[int, int] = {}
        for shard in sorted({entry.shard for entry in entries}):
            try:
                self._fds[shard] = os.open(index.data_file(shard), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, entry: Entry) -> np.ndarray:
        """The bytes of a tensor, on a page boundary, with the right checksum. Raises DamagedError and OSError."""
        fd = self._fds[entry.shard]
        data = _room_for(entry.size)
        checksum = done = 0
        self._pace.keep()
        while done < entry.size:
            piece = data[done : done + PIECE_BYTES]
            count = os.preadv(fd, [piece.data], entry.offset + done)
            if count == 0:
                raise DamagedError("a data file is cut short")
            checksum = google_crc32c.extend(checksum, piece[:count])
            done += count
            self._pace.keep()
        if checksum != entry.crc32c:
            raise DamagedError("the checksum of a tensor is wrong")
        return data

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


def _room_for(size: int) -> np.ndarray:
    """So many bytes on pages of their own. Not huge ones, unless the system gives them to all.

    numpy asks for those, and a virtual machine may have to get them from its host. A load of 500 MB took 0.16 s of CPU
    where it had not to, and 0.9 s where it had; without them it is 0.37 s.
    """
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
