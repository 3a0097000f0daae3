"""How much memory there is for the pool: the host's, or what the control groups that it runs in leave of it.

Reads the kernel's files and knows no process.
"""

import re
from collections.abc import Iterator
from pathlib import Path

# The hierarchy's place below the mount of cgroup v1, and the file of a group's limit; then the same of v2.
_VERSIONS = (
    (r"\d+:(?:[\w,]*,)?memory(?:,[\w,]*)?:(.*)", "memory", "memory.limit_in_bytes"),
    (r"0::(.*)", "", "memory.max"),
)


def total_bytes(proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """The host's memory, or the least limit of our own group and those above it. Raises OSError, ValueError."""
    return min([_of_host(proc / "meminfo"), *_limits(proc / "self/cgroup", mount)])


def _of_host(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    raise ValueError(f"{meminfo} has no MemTotal")


def _limits(own: Path, mount: Path) -> Iterator[int]:
    for pattern, hierarchy, file in _VERSIONS:
        top = mount / hierarchy
        for line in own.read_text().splitlines():
            match = re.fullmatch(pattern, line)
            if match is None:
                continue
            # Up to the top: in a container the path may be the host's, where what it names is mounted as the top.
            below = Path(match[1].lstrip("/"))
            for group in (top / below, *(top / above for above in below.parents)):
                limit = _limit(group / file)
                if limit is not None:
                    yield limit


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
