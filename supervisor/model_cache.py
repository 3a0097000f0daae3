"""The local copies of one remote model's versions: filled under a temporary name, then renamed, locked while in use.

An entry is a directory `<version>-<fingerprint>`; a name that begins with a dot is unfinished or being removed and
never counts. Whoever uses an entry holds a shared `flock` on its directory, and only who gets the exclusive one may
remove it: so pools that share a cache, and crashed ones, do not hurt each other. The kernel drops the locks of a
process that dies. Knows nothing of what lies in an entry. Called in the source's thread.
"""

import fcntl
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable

from .wire.status import Unavailable


class ModelCache:
    """One model's entries below `folder`. What it has handed out stays locked until `prune` or its own end."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._held: dict[str, int] = {}
        weakref.finalize(self, _close_all, self._held)

    def hold(self, entry: str) -> str | None:
        """The path of a finished entry, which nobody removes from now on; None if there is none. Raises OSError."""
        path = os.path.join(self.folder, entry)
        if entry in self._held:
            if os.path.isdir(path):
                return path
            os.close(self._held.pop(entry))
        lock = _lock(path, fcntl.LOCK_SH)
        if lock is None:
            return None
        self._held[entry] = lock
        return path

    def add(self, entry: str, fill: Callable[[str], bool]) -> str | None:
        """Fill an entry and hold it; None if `fill` says that what it wrote is not to be used.

        `fill` gets an empty directory. Whatever it raises leaves nothing behind. Raises OSError for the cache itself,
        Unavailable if another process is removing just this entry.
        """
        os.makedirs(self.folder, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{entry}.", suffix=".tmp", dir=self.folder)
        lock = _lock(temporary, fcntl.LOCK_SH)
        if lock is None:
            raise Unavailable(f"Another process is removing {temporary}")
        try:
            if not fill(temporary):
                return None
            _write_through(temporary)
            if (path := self._publish(temporary, entry)) is not None:
                self._held[entry], lock = lock, -1
                return path
        finally:
            if lock >= 0:
                shutil.rmtree(temporary, ignore_errors=True)
                os.close(lock)
        if (path := self.hold(entry)) is None:  # another pool was faster, and is removing it again
            raise Unavailable(f"Another process is removing {entry} in {self.folder}")
        return path

    def prune(self, keeps: Callable[[str], bool]) -> None:
        """Remove all entries but those that `keeps` names, and what crashes left; nothing that others use."""
        try:
            entries = os.listdir(self.folder)
        except FileNotFoundError:
            return
        for entry in sorted(entry for entry in entries if not keeps(entry)):
            if (held := self._held.pop(entry, None)) is not None:
                os.close(held)
            path = os.path.join(self.folder, entry)
            lock = _lock(path, fcntl.LOCK_EX)
            if lock is None:
                continue
            try:
                doomed = os.path.join(self.folder, f".removed.{uuid.uuid4().hex}.tmp")
                os.rename(path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
            except FileNotFoundError:
                continue  # somebody who locks nothing was faster
            finally:
                os.close(lock)

    def _publish(self, temporary: str, entry: str) -> str | None:
        """Give a finished directory its name; None if another pool has done so meanwhile."""
        path = os.path.join(self.folder, entry)
        try:
            os.rename(temporary, path)
        except OSError:
            if os.path.isdir(path):
                return None
            raise
        _sync(self.folder)
        return path


def _lock(path: str, how: int) -> int | None:
    """A descriptor that locks the directory at `path`; None if there is none, or another process is in the way."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _write_through(folder: str) -> None:
    """Everything below `folder` to the disk: a rename must not outlive a power cut that its files do not."""
    for path, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(path, name))
        _sync(path)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close_all(held: dict[str, int]) -> None:
    while held:
        os.close(held.popitem()[1])
