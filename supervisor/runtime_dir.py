"""The pool's runtime directory: sockets and a lock, private to the user. Created at the start, removed at the end.

The lock is the kernel's (flock(2)): it goes with the process that holds it, so that what a killed supervisor left
behind is told apart from a pool that lives.
"""

import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .wire import sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.status import AlreadyExists, FailedPrecondition, NotFound

log = logging.getLogger(__name__)

_LOCK = "lock"
# The longest socket name below the directory; checked at the start instead of at the thousandth restart.
_LONGEST = Incarnation(10**9)


class RuntimeDir:
    """A directory of mode 0700 that this process alone owns until `remove`."""

    def __init__(self, path: Path) -> None:
        """Take the directory, clearing what a dead pool left.

        Raises AlreadyExists when a live pool has it, FailedPrecondition when it cannot be had or is not private.
        """
        sockets.data_endpoint(path, _LONGEST)
        self.path = path
        try:
            self._made, self._lock = _take(path)
        except OSError as error:
            raise FailedPrecondition(f"runtime_dir: cannot use {path}: {error}") from error
        self._remove_files()

    def remove(self) -> None:
        """Remove what this pool made: its sockets and lock, and the directory unless it was there before."""
        self._remove_files()
        (self.path / _LOCK).unlink(missing_ok=True)
        if self._made:
            try:
                self.path.rmdir()
            except OSError as error:
                log.info("runtime directory kept %s", fields(path=self.path, error=error))
        os.close(self._lock)

    def _remove_files(self) -> None:
        for entry in self.path.iterdir():
            is_socket = entry.is_socket() and sockets.is_socket_name(entry.name)
            is_arena = entry.is_symlink() and sockets.is_arena(entry.name)
            if is_arena or is_socket or (entry.is_file() and sockets.is_envoy_file(entry.name)):
                entry.unlink(missing_ok=True)


def _take(path: Path) -> tuple[bool, int]:
    """Make the directory and lock it: whether it was made, and the lock. Raises OSError, AlreadyExists and as below."""
    while True:
        made = _make_private(path)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return made, lock
        except BlockingIOError:
            os.close(lock)
            raise AlreadyExists(
                f"runtime_dir: {path} belongs to a running pool; choose another --runtime_dir"
            ) from None
        os.close(lock)  # of a pool that has just ended, and taken it away: nobody else would see it


def _make_private(path: Path) -> bool:
    """Make the directory, and its parent, of mode 0700; False when it was there. Raises OSError, FailedPrecondition.

    Whoever can write there can pose as a worker. What was there before is never changed, only refused.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.name == _base_name():
        _require_private(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _require_private(path)
        return (path / _LOCK).exists()
    return True


def _require_private(path: Path) -> None:
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise FailedPrecondition(
            f"runtime_dir: expected {path} to be a directory of mode 0700 of user {os.geteuid()}, got mode "
            f"{stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}"
        )


def _base_name() -> str:
    return f"modelpool-{os.geteuid()}"


def base_dir(environment_runtime_dir: str | None) -> Path:
    """Where pools of this user put their directories: below XDG_RUNTIME_DIR when there is one."""
    root = Path(environment_runtime_dir or tempfile.gettempdir())
    return root / _base_name()


def default_cache_dir(environment_cache_home: str | None, home: str) -> Path:
    """Where copies of remote versions are kept, across restarts (XDG Base Directory Specification)."""
    return (Path(environment_cache_home) if environment_cache_home else Path(home) / ".cache") / "modelpool"


def default_crash_dir(cache_dir: Path) -> Path:
    """Where crash reports are kept, of all pools of a user."""
    return cache_dir / "crashes"


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
