"""Whether the kernel's log can tell of our processes' deaths on this machine."""

import os
from pathlib import Path

# The first pid namespace, whose pids the log has (linux/proc_ns.h: PROC_PID_INIT_INO).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


def names_our_pids() -> bool:
    """It may be read, and our pids are those that it has.

    Only opening it says whether it may be read: the mode of the file is not all that the kernel asks for.
    """
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
