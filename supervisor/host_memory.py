"""How much memory there is for the pool, and is left: of the host's, or of what its control groups leave to it.

Reads the kernel's files and knows no process. Any thread.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """One version of control groups: how /proc/self/cgroup names ours, and what a group's files are called.

    `below` the mount. `cache`: what of `memory.stat` the kernel takes back first, the groups below included.
    """

    line: re.Pattern[str]
    below: str
    limit: str
    usage: str
    cache: str


_HIERARCHIES = (
    _Hierarchy(
        re.compile(r"\d+:(?:[\w,]*,)?memory(?:,[\w,]*)?:(.*)"),
        *("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
    _Hierarchy(re.compile(r"0::(.*)"), "", "memory.max", "memory.current", "inactive_file"),
)


def total_bytes(proc: Path = _PROC, mount: Path = _MOUNT) -> int:
    """The host's memory, or the least limit of our own group and those above it. Raises OSError, ValueError."""
    return min([_of_host(proc, "MemTotal:"), *(limit for limit, _ in _limits(proc, mount))])


def available_bytes(proc: Path = _PROC, mount: Path = _MOUNT) -> int:
    """What can still be taken of it without anybody having to give any up. Raises OSError, ValueError."""
    return min([_of_host(proc, "MemAvailable:"), *(max(0, limit - used) for limit, used in _limits(proc, mount))])


def _of_host(proc: Path, name: str) -> int:
    return _field(proc / "meminfo", name) * 1024


def _limits(proc: Path, mount: Path) -> Iterator[tuple[int, int]]:
    """The limit of each group that has one, and what is used of it."""
    lines = _own_groups(proc / "self/cgroup")
    for hierarchy in _HIERARCHIES:
        top = mount / hierarchy.below
        for found in filter(None, map(hierarchy.line.fullmatch, lines)):
            # Up to the top: in a container the path may be the host's, where what it names is mounted as the top.
            below = Path(found[1].lstrip("/"))
            for group in (top / below, *(top / above for above in below.parents)):
                limit = _number(group / hierarchy.limit)
                if limit is not None:
                    used = _number(group / hierarchy.usage) or 0
                    yield limit, max(0, used - _cache(group / "memory.stat", hierarchy.cache))


def _own_groups(file: Path) -> list[str]:
    """None where the kernel has no control groups, or does not say which are ours. Raises OSError."""
    try:
        return file.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return []


def _cache(file: Path, name: str) -> int:
    """0 where the kernel does not say."""
    try:
        return _field(file, name)
    except (OSError, ValueError):
        return 0


def _number(file: Path) -> int | None:
    """None where there is no such file, or no limit in it."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _field(file: Path, name: str) -> int:
    """The number behind this name. Raises OSError, ValueError."""
    for line in file.read_text().splitlines():
        found, _, rest = line.partition(" ")
        if found == name:
            return int(rest.split()[0])
    raise ValueError(f"{file} has no {name}")
