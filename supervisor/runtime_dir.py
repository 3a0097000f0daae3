"""The pool's runtime directory: sockets and a lock, private to the user. Created at the start, removed at the end.

The lock is the kernel's (flock(2)): it goes with the process that holds it, so that what a killed supervisor left
behind is told apart from a pool that lives.
"""

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .wire import sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.status import AlreadyExists, NotFound

log = logging.getLogger(__name__)

_LOCK = "lock"
# The longest socket name below the directory; checked at the start instead of at the thousandth restart.
_LONGEST = Incarnation(10**9)


class RuntimeDir:
    """A directory of mode 0700 that this process alone owns until `remove`."""

    def __init__(self, path: Path) -> None:
        """Take the directory, clearing what a dead pool left. Raises AlreadyExists when a live pool has it."""
        sockets.data_endpoint(path, _LONGEST)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(path, 0o700)
        self.path = path
        self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyExists(
                f"runtime_dir: {path} belongs to a running pool; choose another --runtime_dir"
            ) from None
        self._remove_sockets()

    def remove(self) -> None:
        """Remove what this pool made: its sockets and lock, and the directory unless somebody else uses it too."""
        self._remove_sockets()
        (self.path / _LOCK).unlink(missing_ok=True)
        try:
            self.path.rmdir()
        except OSError as error:
            log.info("runtime directory kept %s", fields(path=self.path, error=error))
        os.close(self._lock)

    def _remove_sockets(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_socket() and sockets.is_socket_name(entry.name):
                entry.unlink(missing_ok=True)


def base_dir(environment_runtime_dir: str | None) -> Path:
    """Where pools of this user put their directories: below XDG_RUNTIME_DIR when there is one."""
    root = Path(environment_runtime_dir or tempfile.gettempdir())
    return root / f"modelpool-{os.getuid()}"


def default_path(base: Path, port: int, rest_port: int) -> Path:
    """A pool is named by its port; one without any TCP port by its process."""
    number = port or rest_port
    return base / (str(number) if number else f"pid-{os.getpid()}")


def live_pools(base: Path) -> Iterator[Path]:
    """Runtime directories below `base` whose pool lives."""
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        if is_live(path):
            yield path


def is_live(path: Path) -> bool:
    """Whether a running pool holds the lock of this directory."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def find_pool(base: Path, runtime_dir: str, port: int | None) -> Path:
    """The pool that the command line means. Raises NotFound, or AlreadyExists when it could be several."""
    if runtime_dir or port is not None:
        path = Path(runtime_dir) if runtime_dir else base / str(port)
        if not is_live(path):
            raise NotFound(f"no pool runs with the runtime directory {path}")
        return path
    pools = list(live_pools(base))
    if not pools:
        raise NotFound(f"no pool runs below {base}; name one with --runtime_dir or --port")
    if len(pools) > 1:
        names = ", ".join(path.name for path in pools)
        raise AlreadyExists(f"several pools run ({names}); name one with --port or --runtime_dir")
    return pools[0]
