"""The shared memory of frontends and workers, which outlives them: made before a process, gone with it. Event loop.

A link in the private runtime directory leads to the descriptor that is held here, through /proc; who has opened it
keeps the memory for as long as it wants. What the memory holds is the writers' and readers' business (`wire.arena`).

All of them together are bounded as well: an arena has its size when it is made and can never have more, so it is made
of what the others leave. Each takes an eighth of that at the most, so that there is something left for whoever comes.
The frontends, by which every large request goes, have theirs kept for them: one that comes back has what it had.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from . import host_memory
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


@dataclass(frozen=True, slots=True)
class _Part:
    """What one arena is made of; 0: it is none. `kept`: for a frontend, whether there is one or not."""

    size_bytes: int
    kept: bool


class Arenas:
    """Made with nothing in them, by the process that holds them until `close`."""

    def __init__(self, runtime_dir: Path, size_bytes: int, limit_bytes: int, frontends: int = 0) -> None:
        """`size_bytes`: of each; 0: there are none, and payloads of any size travel in frames. `limit_bytes`: of all;
        0: half of the memory there is, and where nobody says how much that is, there are none. `frontends`: for so
        many there is a part kept.
        """
        if size_bytes and not limit_bytes:
            try:
                limit_bytes = host_memory.total_bytes() // 2
            except (OSError, ValueError) as error:
                log.warning("no shared memory: --shared_memory_total_mb is not given %s", fields(error=error))
                size_bytes = 0
        self._runtime_dir = runtime_dir
        self._size_bytes = size_bytes
        self._limit_bytes = limit_bytes
        self._held: dict[Path, tuple[int, _Part]] = {}
        self._kept: list[_Part] = []
        """For frontends to come."""
        for _ in range(frontends):
            self._kept.append(_Part(share_bytes(self._size_bytes, self._left_bytes), kept=True))

    def make(self, writer: Peer, incarnation: Incarnation) -> None:
        """For a process that is about to start. One that cannot be had is done without."""
        if not self._size_bytes:
            return
        part = self._take(writer)
        names = fields(writer=writer, incarnation=incarnation, bytes=part.size_bytes)
        if part.size_bytes < self._size_bytes:
            level = logging.INFO if part.size_bytes else logging.WARNING
            log.log(level, "less shared memory than others have %s", names)
        fd = self._open(writer, incarnation, part.size_bytes) if part.size_bytes else None
        if fd is None:
            self._give(part)
        else:
            self._held[sockets.arena(self._runtime_dir, writer, incarnation)] = fd, part

    def remove(self, writer: Peer, incarnation: Incarnation) -> None:
        """The process is dead. Without effect where there is none."""
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        if path in self._held:
            fd, part = self._held.pop(path)
            path.unlink(missing_ok=True)  # before the number of the descriptor may mean something else
            os.close(fd)
            self._give(part)

    def close(self) -> None:
        """Those of all that are left."""
        for path, (fd, _) in self._held.items():
            path.unlink(missing_ok=True)
            os.close(fd)
        self._held.clear()

    def _take(self, writer: Peer) -> _Part:
        """What the next arena of such a writer is made of."""
        if writer is Peer.FRONTEND and self._kept:
            return self._kept.pop(0)
        return _Part(share_bytes(self._size_bytes, self._left_bytes), kept=False)

    def _give(self, part: _Part) -> None:
        """It is not taken any more."""
        if part.kept:
            self._kept.append(part)

    def _open(self, writer: Peer, incarnation: Incarnation, size_bytes: int) -> int | None:
        """The descriptor of a new arena that others find; None, and it is said why, where it cannot be had."""
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        try:
            fd = arena.create(path.name, size_bytes)
        except OSError as error:
            log.warning("no shared memory %s", fields(writer=writer, incarnation=incarnation, error=error))
            return None
        try:
            path.unlink(missing_ok=True)
            path.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        except OSError as error:
            os.close(fd)
            log.warning("no link to shared memory %s", fields(path=path, error=error))
            return None
        return fd

    @property
    def taken(self) -> SharedMemory:
        """As it is now."""
        used_bytes = sum(os.fstat(fd).st_blocks * _BLOCK_BYTES for fd, _ in self._held.values())
        return SharedMemory(used_bytes, self._reserved_bytes, self._limit_bytes if self._size_bytes else 0)

    @property
    def _reserved_bytes(self) -> int:
        return sum(part.size_bytes for _, part in self._held.values())

    @property
    def _left_bytes(self) -> int:
        return self._limit_bytes - self._reserved_bytes - sum(part.size_bytes for part in self._kept)


def share_bytes(wanted_bytes: int, left_bytes: int) -> int:
    """The size of the next arena, where so much is left for it and all that come later; 0: there is none."""
    share = min(wanted_bytes, left_bytes // _PART_OF_REST)
    return share if share >= min(_LEAST_BYTES, wanted_bytes) else 0
