"""How a child of the supervisor makes sure that it does not outlive it. Any process but the supervisor itself.

Two ways, because either can fail: the kernel's death signal reaches even a stopped process; the lifeline, a pipe whose
write end only the supervisor holds, tells of a supervisor that was dead before the signal was asked for.
"""

import ctypes
import os
import select
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(lifeline_fd: int) -> None:
    """SIGKILL for this process when its parent dies (prctl(2)); exits at once when the parent is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poll = select.poll()
    poll.register(lifeline_fd, 0)
    if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
        os._exit(1)


def ignore_terminal_signals() -> None:
    """Ctrl-C and a stop of the whole group reach every process; the supervisor drains, the others wait for it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
