"""How many CPUs this process has in effect. Linux."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = _CGROUP) -> int:
    """By its affinity, and by a quota of its container; at least 1."""
    return min(len(os.sched_getaffinity(0)), quota(cgroup) or 1 << 20)


def quota(cgroup: Path = _CGROUP) -> int | None:
    """So many CPUs, rounded up, is what all processes of the container may use together; None for no limit."""
    try:
        text, _, period = (cgroup / "cpu.max").read_text().partition(" ")
        return max(1, math.ceil(int(text) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def binding_quota(cgroup: Path = _CGROUP) -> int | None:
    """The quota, where it is less than the CPUs of this process's affinity: what is idle of those says nothing then."""
    found = quota(cgroup)
    return found if found is not None and found < len(os.sched_getaffinity(0)) else None
