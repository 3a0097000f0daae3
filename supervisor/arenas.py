"""The shared memory of frontends and workers, which outlives them: made before a process, gone with it. Event loop.

A link in the private runtime directory leads to the descriptor that is held here, through /proc; who has opened it
keeps the memory for as long as it wants. What the memory holds is the writers' and readers' business (`wire.arena`).
"""

import logging
import os
from pathlib import Path

from .wire import arena, sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.sockets import Peer

log = logging.getLogger(__name__)


class Arenas:
    """`size_bytes`: of each; 0: there are none, and payloads of any size travel in frames."""

    def __init__(self, runtime_dir: Path, size_bytes: int) -> None:
        self._runtime_dir = runtime_dir
        self._size_bytes = size_bytes
        self._held: dict[Path, int] = {}

    def make(self, writer: Peer, incarnation: Incarnation) -> None:
        """For a process that is about to start. One that cannot be had is done without."""
        if not self._size_bytes:
            return
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        try:
            fd = arena.create(path.name, self._size_bytes)
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
        self._held[path] = fd

    def remove(self, writer: Peer, incarnation: Incarnation) -> None:
        """The process is dead. Without effect where there is none."""
        path = sockets.arena(self._runtime_dir, writer, incarnation)
        fd = self._held.pop(path, None)
        if fd is not None:
            path.unlink(missing_ok=True)  # before the number of the descriptor may mean something else
            os.close(fd)

    def close(self) -> None:
        """Those of all that are left."""
        for path, fd in self._held.items():
            path.unlink(missing_ok=True)
            os.close(fd)
        self._held.clear()
