"""Shared memory for large payloads: an arena of each frontend (its requests) and worker (its answers). Any process.

The supervisor makes an arena before the process that writes it, and keeps it until that process is dead: a file of
memory of a fixed size that is sparse, so that it takes what is in use. The private runtime directory has a link to it,
by which the writer and its readers open it (`sockets.arena`). Instead of a payload there travels, in a third frame
behind an empty one, a reference to a block: where it lies, how long it is, and its serial number.

- One process writes, and it alone knows what is free (`Space`): there is no lock, nothing that a peer could block.
  Readers open it for reading only.
- A block belongs to its reader from the moment its reference is sent until the reader gives it back by a message
  (`data.Method.RETURN`, or a `returned` frame to a frontend), or is dead, which the supervisor tells.
- No room, or no arena: the payload travels in its frame, as small ones do. Nobody waits.
- Every reference is checked against the bounds and against the head of the block, which carries its serial: what a peer
  that went mad refers to is an error. A frontend copies an answer out before it looks at it, and checks afterwards.
- Memory goes back when a block is free, but for the first KEEP_BYTES, which are cheaper to use again; those go when
  nothing was written for a while (`trim`).
"""

import bisect
import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .status import InvalidArgument

REQUEST_BYTES = 128 * 1024
ANSWER_BYTES = 256 * 1024
"""From here on requests and answers are shared; below, frames take less CPU (`scripts/bench --what=tensors`)."""
KEEP_BYTES = 64 << 20
NAME_PREFIX = "modelpool-arena-"
"""By which the kernel tells an arena among the mappings of a process."""
HEAD_BYTES = 64
"""In front of each payload, so that what lies at a multiple of it in the payload is aligned for any instruction."""

_PAGE_BYTES = mmap.PAGESIZE
_REFERENCE = struct.Struct("<QQQ")
_HEAD = struct.Struct("<QQ")
_MAX_PIECES = 512
_PUNCH_HOLE_KEEP_SIZE = 3
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

Buffer = Any  # bytes or a memoryview of bytes


def create(name: str, size_bytes: int) -> int:
    """A file descriptor of a new, empty arena; nobody can change its size. Raises OSError."""
    fd = os.memfd_create(f"{NAME_PREFIX}{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Space:
    """What is free of so many bytes. Pure. Always the first place that fits, so that what is used stays together."""

    def __init__(self, size_bytes: int) -> None:
        size_bytes -= size_bytes % _PAGE_BYTES
        self._free: list[tuple[int, int]] = [(0, size_bytes)] if size_bytes else []
        self._taken: dict[int, int] = {}

    @property
    def free(self) -> Sequence[tuple[int, int]]:
        """Begin and end of each stretch that is free, in order; two never touch."""
        return self._free

    def take(self, size_bytes: int) -> int | None:
        """Where so many bytes are, in whole pages; None when there is no room."""
        wanted = -(-max(size_bytes, 1) // _PAGE_BYTES) * _PAGE_BYTES
        for place, (begin, end) in enumerate(self._free):
            if end - begin >= wanted:
                if end - begin == wanted:
                    del self._free[place]
                else:
                    self._free[place] = (begin + wanted, end)
                self._taken[begin] = begin + wanted
                return begin
        return None

    def give(self, begin: int) -> int:
        """Take back what `take` gave; where it ended. Raises KeyError for what is not taken."""
        end = given_end = self._taken.pop(begin)
        place = bisect.bisect(self._free, (begin, end))
        if place < len(self._free) and self._free[place][0] == end:
            end = self._free.pop(place)[1]
        if place and self._free[place - 1][1] == begin:
            place -= 1
            begin = self._free.pop(place)[0]
        self._free.insert(place, (begin, end))
        return given_end


@dataclass(frozen=True, slots=True)
class Block:
    """A payload in the writer's arena. `reference`: the frame by which a reader finds it."""

    begin: int
    reference: bytes


class Arena:
    """The writer's side. One thread."""

    def __init__(self, fd: int) -> None:
        """Takes over the descriptor."""
        self._fd = fd
        self._space = Space(os.fstat(fd).st_size)
        self._serial = 0
        self._free_end = 0
        self._written = False

    @classmethod
    def open(cls, path: Path) -> "Arena | None":
        """None when there is none, or it cannot be had: then payloads travel in frames."""
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            return None

    def put(self, pieces: Sequence[Buffer], aligned_at: int = 0) -> Block | None:
        """The pieces, joined, in a block of their own; what is at `aligned_at` of them is at a multiple of HEAD_BYTES.

        None when there is no room or no memory.
        """
        size_bytes = sum(map(len, pieces))
        gap = -aligned_at % HEAD_BYTES
        begin = self._space.take(HEAD_BYTES + gap + size_bytes)
        if begin is None:
            return None
        self._serial += 1
        self._written = True
        start = begin + HEAD_BYTES + gap
        try:
            os.pwrite(self._fd, _HEAD.pack(self._serial, size_bytes), start - HEAD_BYTES)
            self._write(pieces, start)
        except OSError:
            self._give(begin)
            return None
        return Block(begin, _REFERENCE.pack(start, size_bytes, self._serial))

    def _write(self, pieces: Sequence[Buffer], at: int) -> None:
        for first in range(0, len(pieces), _MAX_PIECES):
            some = pieces[first : first + _MAX_PIECES]
            size_bytes = sum(map(len, some))
            done = os.pwritev(self._fd, some, at)
            if done < size_bytes:  # by a signal, or over 2 GiB
                rest = memoryview(b"".join(some))
                while done < size_bytes:
                    done += os.pwrite(self._fd, rest[done:], at + done)
            at += size_bytes

    def free(self, block: Block) -> None:
        """Nobody reads it any more."""
        self._give(block.begin)

    def _give(self, begin: int) -> None:
        end = self._space.give(begin)
        self._free_end = max(self._free_end, end)
        if end > KEEP_BYTES:
            self._punch(max(begin, KEEP_BYTES), end)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to `trim`."""
        return self._free_end == 0

    def trim(self) -> bool:
        """Called now and then: give back all that is free, unless something was written since the last time.

        Whether there was something to give back.
        """
        if self._written or self.idle:
            self._written = False
            return False
        used_end, self._free_end = min(self._free_end, KEEP_BYTES), 0
        for begin, end in self._space.free:
            if begin < used_end:
                self._punch(begin, min(end, used_end))
        return True

    def _punch(self, begin: int, end: int) -> None:
        end = -(-end // _PAGE_BYTES) * _PAGE_BYTES
        # Where it fails the pages stay, to be used again.
        _fallocate(self._fd, _PUNCH_HOLE_KEEP_SIZE, begin, end - begin)

    def close(self) -> None:
        os.close(self._fd)


class Reader:
    """A reader's side. Any thread, but for `close`."""

    def __init__(self, fd: int) -> None:
        """Takes over the descriptor."""
        self._fd = fd
        self._size_bytes = os.fstat(fd).st_size
        self._map: mmap.mmap | None = None

    @classmethod
    def open(cls, path: Path) -> "Reader | None":
        """None when there is none, or it cannot be had."""
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def read(self, reference: bytes) -> bytes:
        """A copy of what is referred to. Raises InvalidArgument when it is not there."""
        start, size_bytes, serial = self._place(reference)
        payload = os.pread(self._fd, size_bytes, start)
        if len(payload) < size_bytes:  # over 2 GiB at once
            payload = self._read_on(payload, start, size_bytes)
        self._check(start, size_bytes, serial)
        return payload

    def _read_on(self, payload: bytes, start: int, size_bytes: int) -> bytes:
        parts = [payload]
        done = len(payload)
        while done < size_bytes:
            parts.append(os.pread(self._fd, size_bytes - done, start + done))
            done += len(parts[-1])
        return b"".join(parts)

    def view(self, reference: bytes) -> tuple[mmap.mmap, int, int]:
        """The mapping of the arena, begin and size in it of what is referred to. Raises InvalidArgument, OSError."""
        start, size_bytes, serial = self._place(reference)
        self._check(start, size_bytes, serial)
        if self._map is None:
            self._map = mmap.mmap(self._fd, self._size_bytes, prot=mmap.PROT_READ)
        return self._map, start, size_bytes

    def _place(self, reference: bytes) -> tuple[int, int, int]:
        if len(reference) != _REFERENCE.size:
            raise InvalidArgument(f"reference: expected {_REFERENCE.size} bytes, got {len(reference)}")
        start, size_bytes, serial = _REFERENCE.unpack(reference)
        if start < HEAD_BYTES or start + size_bytes > self._size_bytes:
            raise InvalidArgument(
                f"reference: expected a place in {self._size_bytes} bytes of shared memory, got {size_bytes} bytes at "
                f"{start}"
            )
        return start, size_bytes, serial

    def _check(self, start: int, size_bytes: int, serial: int) -> None:
        found = _HEAD.unpack(os.pread(self._fd, _HEAD.size, start - HEAD_BYTES))
        if not serial or found != (serial, size_bytes):
            raise InvalidArgument(
                f"reference: expected block {serial} of {size_bytes} bytes at {start}, found block {found[0]} of "
                f"{found[1]} bytes"
            )

    def close(self) -> None:
        """What was viewed stays until it is let go."""
        os.close(self._fd)
        self._map = None
