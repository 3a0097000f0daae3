"""The CPU priority of a process's threads, and whether there is a way back to a higher one. Linux.

Priorities hold for threads, and a new thread has that of the one that starts it.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from .log import fields

log = logging.getLogger(__name__)

# One who is not set yet may start another meanwhile: these come to an end, for each pass leaves fewer to start any.
_PASSES = 3
_MOST_NICE = 19
_NO_PRIORITY = os.sched_param(0)
_PROC = Path("/proc")


def for_all(pid: int, do: Callable[[int], None], but: Collection[int] = ()) -> bool:
    """Do it to each thread of a process but some. False when it went on starting others: call again. Raises OSError."""
    done = set(but)
    for _ in range(_PASSES):
        missing = {int(name) for name in os.listdir(_PROC / f"{pid}/task")} - done
        if not missing:
            return True
        for thread in missing:
            try:
                do(thread)
            except ProcessLookupError:
                log.debug("thread gone %s", fields(pid=pid, thread=thread))
        done |= missing
    return False


def set_all(pid: int, policy: int, nice: int, but: Collection[int] = ()) -> bool:
    """Set every thread of a process but some. False when it went on starting others: call again. Raises OSError."""

    def set_one(thread: int) -> None:
        os.sched_setscheduler(thread, policy, _NO_PRIORITY)
        os.setpriority(os.PRIO_PROCESS, thread, min(_MOST_NICE, nice))

    return for_all(pid, set_one, but)


def why_no_way_back() -> str:
    """Empty where a priority that was lowered can be had back, else why not.

    Tried out on a thread of its own: RLIMIT_NICE and capabilities decide, and the kernel knows them best. It asks the
    same of one that leaves SCHED_IDLE and of one that becomes less nice.
    """
    refused: list[str] = []

    def try_out() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice + 1)
            os.sched_setscheduler(0, os.SCHED_IDLE, _NO_PRIORITY)
            os.sched_setscheduler(0, os.SCHED_OTHER, _NO_PRIORITY)
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as error:
            refused.append(str(error))

    probe = threading.Thread(target=try_out, name="priority probe")
    probe.start()
    probe.join()
    return "".join(refused)


def name_this_thread(name: str) -> None:
    """For the kernel, where others look for it; Python itself tells it of a name from 3.14 on."""
    with contextlib.suppress(OSError):
        (_PROC / "thread-self/comm").write_text(name)


def named(pid: int, *beginnings: str) -> set[int]:
    """The threads of a process whose names begin like this. Raises OSError when it is gone."""
    found: set[int] = set()
    for thread in os.listdir(_PROC / f"{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (_PROC / f"{pid}/task/{thread}/comm").read_text(errors="replace").startswith(beginnings):
                found.add(int(thread))
    return found
