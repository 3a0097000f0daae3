"""Memory limits by the kernel: a control group (cgroup v2) for each worker whose model has one. Event loop only.

Only where our own group is ours to divide, with the memory controller: a service of systemd with Delegate=yes, or a
container whose group is writable. There the supervisor moves itself into a leaf (a group that has children must have no
processes of its own) and makes the others beside it. Elsewhere there is None, and the supervisor's watch must do.
"""

import contextlib
import logging
import os
from pathlib import Path

from . import own_group
from .own_group import MOUNT, PROC, Version
from .wire.log import fields

log = logging.getLogger(__name__)

_LEAF = "modelpool-supervisor"
_PREFIX = "modelpool-worker-"


class MemoryGroup:
    """Of one worker. `killed` is asked when its process is gone, before `remove`."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Raises OSError."""
        self._path = path
        path.mkdir()
        try:
            (path / "memory.max").write_text(str(limit_bytes))
            (path / "memory.oom.group").write_text("1")
        except OSError:
            self.remove()
            raise
        with contextlib.suppress(OSError):  # a kernel that does not account swap has no such file
            (path / "memory.swap.max").write_text("0")

    def add(self, pid: int) -> None:
        """Raises OSError."""
        (self._path / "cgroup.procs").write_text(str(pid))

    @property
    def killed(self) -> bool:
        """Whether the kernel killed it for going over the limit: it keeps count, so this is certain.

        `oom_kill` counts every process of the group that was killed for want of memory, whoever's; `oom` counts only
        where the group's own limit was met (Documentation/admin-guide/cgroup-v2.rst).
        """
        return self._count("oom_kill") > 0 and self._count("oom") > 0

    @property
    def killed_for_others(self) -> bool:
        """Whether the kernel killed it when a group above, or the host, had no memory left."""
        return self._count("oom_kill") > 0 and self._count("oom") == 0

    def _count(self, name: str) -> int:
        return _count(self._path / "memory.events", name)

    def remove(self) -> None:
        """What its process left behind goes, too."""
        _remove(self._path)


class MemoryGroups:
    """The groups of one pool, below our own; `name` tells them from another pool's."""

    def __init__(self, base: Path, name: str) -> None:
        self._base = base
        self._prefix = f"{_PREFIX}{name}-"
        self.sweep()

    @classmethod
    def find(cls, name: str, mount: Path = MOUNT, proc: Path = PROC) -> "MemoryGroups | None":
        """The groups of this process, None where it may not make any."""
        try:
            base = _own_group(mount, proc)
            if base is None or "memory" not in (base / "cgroup.controllers").read_text().split():
                return None
            if "memory" not in (base / "cgroup.subtree_control").read_text().split():
                _divide(base)
            groups = cls(base, name)
            groups.make("0", 1 << 30).remove()  # whether it can be done is seen by doing it
        except OSError as error:
            log.info("memory limits by the supervisor's watch: no cgroup to divide %s", fields(why=error))
            return None
        log.info("memory limits by cgroup %s", fields(path=base))
        return groups

    def make(self, name: str, limit_bytes: int) -> MemoryGroup:
        """Raises OSError."""
        return MemoryGroup(self._base / f"{self._prefix}{name}", limit_bytes)

    def sweep(self) -> None:
        """Remove what a supervisor that died left, and what could not be removed at once."""
        for path in self._base.glob(f"{self._prefix}*"):
            _remove(path)


def _own_group(mount: Path, proc: Path) -> Path | None:
    for base in own_group.upwards(Version.V2, proc, mount):
        # One that was divided before: we were started within its leaf.
        return base.parent if base.name == _LEAF else base
    return None


def _divide(base: Path) -> None:
    """Move ourselves into a leaf, so that others can be made beside it. Raises OSError."""
    others = set((base / "cgroup.procs").read_text().split()) - {str(os.getpid())}
    if others:
        raise OSError(f"{base} has other processes: {len(others)}")
    leaf = base / _LEAF
    leaf.mkdir(exist_ok=True)
    (leaf / "cgroup.procs").write_text(str(os.getpid()))
    try:
        (base / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        with contextlib.suppress(OSError):
            (base / "cgroup.procs").write_text(str(os.getpid()))
            leaf.rmdir()
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        (path / "cgroup.kill").write_text("1")
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.debug("cgroup not removed yet %s", fields(path=path, error=error))


def _count(path: Path, name: str) -> int:
    try:
        pairs = dict(line.split() for line in path.read_text().splitlines())
        return int(pairs.get(name, 0))
    except (OSError, ValueError):
        return 0
