"""How much memory there is for the pool, and is left: of the host's, or of what its control groups leave to it.

Reads the kernel's files and knows no process. Any thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import own_group
from .own_group import MOUNT, PROC, Version

# What a call of the largest message takes of a frontend, there and back: three times 2 GiB.
_LARGEST_CALL_BYTES = 7 << 30


@dataclass(frozen=True, slots=True)
class _Files:
    """What a group's files are called. `cache`: what of `memory.stat` the kernel takes back first, the groups below
    included.
    """

    limit: str
    usage: str
    cache: str


_FILES = {
    Version.V1: _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    Version.V2: _Files("memory.max", "memory.current", "inactive_file"),
}


def total_bytes(proc: Path = PROC, mount: Path = MOUNT) -> int:
    """The host's memory, or the least limit of our own group and those above it. Raises OSError, ValueError."""
    return min([_of_host(proc, "MemTotal:"), *(limit for limit, _ in _limits(proc, mount))])


def of_a_frontend(there_is_bytes: int, frontends: int = 1) -> int:
    """What each of so many may have of it: its part of half, or what the largest call takes, where that is more, but
    never more than four fifths.
    """
    return max(there_is_bytes // 2 // frontends, min(there_is_bytes // 5 * 4, _LARGEST_CALL_BYTES))


def available_bytes(proc: Path = PROC, mount: Path = MOUNT) -> int:
    """What can still be taken of it without anybody having to give any up. Raises OSError, ValueError."""
    return min([_of_host(proc, "MemAvailable:"), *(max(0, limit - used) for limit, used in _limits(proc, mount))])


def _of_host(proc: Path, name: str) -> int:
    return _field(proc / "meminfo", name) * 1024


def _limits(proc: Path, mount: Path) -> Iterator[tuple[int, int]]:
    """The limit of each group that has one, and what is used of it."""
    for version, files in _FILES.items():
        for group in own_group.upwards(version, proc, mount):
            limit = _number(group / files.limit)
            if limit is not None:
                used = _number(group / files.usage) or 0
                yield limit, max(0, used - _cache(group / "memory.stat", files.cache))


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
