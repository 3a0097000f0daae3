"""Warmup recordings under way: who asked, and which worker records. Pure but for `check_place`; the pool carries the
messages.
"""

import errno
import os
import stat
from dataclasses import dataclass, field

from .io_status import describe, local_code
from .wire.ids import Incarnation
from .wire.status import Code, InvalidArgument, Status, StatusError
from .wire.worker_messages import WarmupRecorded


@dataclass(slots=True)
class Recordings:
    """Open recordings by token; a worker runs at most one, and refuses others itself."""

    _open: dict[int, tuple[Incarnation, Incarnation]] = field(default_factory=dict)

    def begin(self, token: int, client: Incarnation, worker: Incarnation) -> None:
        self._open[token] = (client, worker)

    def is_open(self, token: int) -> bool:
        return token in self._open

    def ended(self, token: int) -> Incarnation | None:
        """The client to tell that a recording has ended; None when nobody asked for it."""
        known = self._open.pop(token, None)
        return known[0] if known is not None else None

    def died(self, worker: Incarnation) -> list[tuple[Incarnation, WarmupRecorded]]:
        """What to tell whom when a worker is gone in the middle of its recording."""
        lost = [(token, client) for token, (client, recorder) in self._open.items() if recorder == worker]
        for token, _ in lost:
            del self._open[token]
        text = "The worker died while it recorded"
        return [(client, WarmupRecorded(token, Code.UNAVAILABLE, text, 0)) for token, client in lost]


def check_place(path: str) -> None:
    """Raises a PoolError where no worker could write the file `path` at the end. Blocks on the disk; any thread.

    As the worker does it: the file's own folder is made where only that is missing, as `assets.extra` may be.
    """
    try:
        _check_place(path)
    except OSError as error:
        raise StatusError(Status(local_code(error), f"cannot write {path}: {describe(error)}")) from error
    except ValueError as error:
        raise InvalidArgument(f"path: no file can have the name {path!r}") from error


def _check_place(path: str) -> None:
    """Raises OSError, and ValueError for what can be no name."""
    folder = os.path.dirname(path)
    try:
        mode = os.stat(folder).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(folder)
        mode = os.stat(folder).st_mode
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if os.path.isdir(path):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
