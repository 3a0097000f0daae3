"""Which control groups this process is in: its own and those above it, as far up as the mount shows them. Any thread.

Knows the two versions of control groups, and how /proc/self/cgroup names a group; what is in a group's files is the
business of whoever reads them. In a container the name may be the host's, where what it names is mounted as the top:
so there may be no such folder, and whoever reads a file goes on to the next one above.
"""

import re
from enum import Enum
from pathlib import Path

PROC = Path("/proc")
MOUNT = Path("/sys/fs/cgroup")


class Version(Enum):
    """Of control groups: the line of ours in /proc/self/cgroup (cgroups(7)), and where below the mount groups lie.

    Of v1, the hierarchy of the memory controller.
    """

    V1 = (re.compile(r"\d+:(?:[\w,]*,)?memory(?:,[\w,]*)?:(.*)"), "memory")
    V2 = (re.compile(r"0::(.*)"), "")

    def __init__(self, line: re.Pattern[str], below: str) -> None:
        self.line = line
        self.below = below


def upwards(version: Version, proc: Path = PROC, mount: Path = MOUNT) -> list[Path]:
    """Our own group's folder, then those above it, to the top. Empty where the kernel names none. Raises OSError."""
    top = mount / version.below
    for found in filter(None, map(version.line.fullmatch, _names(proc / "self/cgroup"))):
        below = Path(found[1].lstrip("/"))
        return [top / below, *(top / above for above in below.parents)]
    return []


def _names(file: Path) -> list[str]:
    """None where the kernel has no control groups, or does not say which are ours. Raises OSError."""
    try:
        return file.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return []
