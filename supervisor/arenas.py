"""The shared memory of frontends and workers, which outlives them: made before a process, gone with it. Event loop.

A link in the private runtime directory leads to the descriptor that is held here, through /proc; who has opened it
keeps the memory for as long as it wants. What the memory holds is the writers' and readers' business (`wire.arena`).

All of them together are bounded as well: an arena has its size when it is made and can never have more, so it is made
of what the others leave. Each takes an eighth of that at the most, so that there is something left for whoever comes.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from .wire import arena, sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.sockets import Peer

log = logging.getLogger(__name__)

_PART_OF_REST = 8
# Less is not worth its descriptors.
_LEAST_BYTES = 1 << 20
_BLOCK_BYTES = 512  # of `st_blocks` (stat(2))


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """`used_bytes` are in use at present; those that are there can take `reserved_bytes`, any at all `limit_bytes`."""

    used_bytes: int
    reserved_bytes: int
    limit_bytes: int


class Arenas:
    """`size_bytes`: of each; 0: there are none, and payloads of any size travel in frames. `limit_bytes`: of all."""

    def __init__(self, runtime_dir: Path, size_bytes: int, limit_bytes: int) -> None:
        self._runtime_dir = runtime_dir
        self._size_bytes = size_bytes
        self._limit_bytes = limit_bytes
        self._held: dict[Path, tuple[int, int]] = {}

    def make(self, writer: Peer, incarnation: Incarnation) -> None:
        """For a process that is about to start. One that cannot be had is done without."""
        if not self._size_bytes:
            return
        size_bytes = share_bytes(self._size_bytes, self._limit_bytes - self._reserved_bytes)
        names = fields(writer=writer, incarnation=incarnation, bytes=size_bytes)
        if size_bytes < self._size_bytes:
            log.log(logging.INFO if size_bytes else logging.WARNING, "less shared memory than others have %s", names)
        if not size_bytes:
            return
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        try:
            fd = arena.create(path.name, size_bytes)
        except OSError as error:
            log.warning("no shared memory %s", fields(writer=writer, incarnation=incarnation, error=error))
            return
        try:
            path.unlink(missing_ok=True)
            path.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        except OSError as error:
            os.close(fd)
            log.warning("no link to shared memory %s", fields(path=path, error=error))
            return
        self._held[path] = fd, size_bytes

    def remove(self, writer: Peer, incarnation: Incarnation) -> None:
        """The process is dead. Without effect where there is none."""
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        if path in self._held:
            fd, _ = self._held.pop(path)
            path.unlink(missing_ok=True)  # before the number of the descriptor may mean something else
            os.close(fd)

    def close(self) -> None:
        """Those of all that are left."""
        for path, (fd, _) in self._held.items():
            path.unlink(missing_ok=True)
            os.close(fd)
        self._held.clear()

    @property
    def taken(self) -> SharedMemory:
        """As it is now."""
        used_bytes = sum(os.fstat(fd).st_blocks * _BLOCK_BYTES for fd, _ in self._held.values())
        return SharedMemory(used_bytes, self._reserved_bytes, self._limit_bytes if self._size_bytes else 0)

    @property
    def _reserved_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self._held.values())


def share_bytes(wanted_bytes: int, left_bytes: int) -> int:
    """The size of the next arena, where so much is left for it and all that come later; 0: there is none."""
    share = min(wanted_bytes, left_bytes // _PART_OF_REST)
    return share if share >= min(_LEAST_BYTES, wanted_bytes) else 0
