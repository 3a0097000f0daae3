"""The CPU priority of this process while it loads, and when it goes: below everybody else's, for the neighbours.

SCHED_IDLE (sched(7)) gives way to any normal thread at once. It holds for threads, and those that TensorFlow starts
while it loads inherit it, so all of them are set back. On a host that is always busy it can mean never: a load that
takes long is raised, step by step. Main thread of the worker, and one beside it.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

_NO_PRIORITY = os.sched_param(0)
_MOST_NICE = 19


@dataclass(frozen=True, slots=True)
class Step:
    """So long after its begin a load runs at normal priority, so much nicer than the process is by itself."""

    after_s: float
    nice: int


# What SCHED_IDLE gets of a CPU that is always busy is some 0.3 %; at 10 steps of niceness it is a tenth.
STEPS = (Step(10.0, 10), Step(60.0, 0))


@contextmanager
def idle(wanted: bool, steps: Sequence[Step] = STEPS) -> Iterator[None]:
    """Run the block at idle priority, where the way back is open: without privileges it may not be."""
    if not wanted or not _can_come_back():
        yield
        return
    own_nice = os.getpriority(os.PRIO_PROCESS, 0)
    done = threading.Event()
    raiser = threading.Thread(target=_raise, args=(steps, own_nice, done), name="priority", daemon=True)
    raiser.start()
    _set_all(os.SCHED_IDLE, own_nice, but=raiser.native_id)
    try:
        yield
    finally:
        done.set()
        raiser.join()
        _set_all(os.SCHED_OTHER, own_nice)


def give_way() -> None:
    """Idle priority for the rest of this process's life: giving back hundreds of megabytes takes the kernel a while."""
    _set_all(os.SCHED_IDLE, os.getpriority(os.PRIO_PROCESS, 0))


def _raise(steps: Sequence[Step], own_nice: int, done: threading.Event) -> None:
    waited_s = 0.0
    for step in steps:
        if done.wait(step.after_s - waited_s):
            return
        waited_s = step.after_s
        _set_all(os.SCHED_OTHER, min(_MOST_NICE, own_nice + step.nice))
        log.info("load at a higher priority %s", fields(after_s=step.after_s, nice=step.nice))


def _can_come_back() -> bool:
    """Try it out on a thread of its own: RLIMIT_NICE and capabilities decide, and the kernel knows them best."""
    allowed: list[bool] = []

    def try_out() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, _NO_PRIORITY)
            os.sched_setscheduler(0, os.SCHED_OTHER, _NO_PRIORITY)
        except OSError as error:
            log.info("load at normal priority %s", fields(why=error))
            return
        allowed.append(True)

    probe = threading.Thread(target=try_out, name="priority probe")
    probe.start()
    probe.join()
    return bool(allowed)


def _set_all(policy: int, nice: int, but: int | None = None) -> None:
    """Set every thread but one, and look again until none was missed: one may start another meanwhile."""
    done = set() if but is None else {but}
    while missing := {int(name) for name in os.listdir("/proc/self/task")} - done:
        for thread in missing:
            try:
                os.sched_setscheduler(thread, policy, _NO_PRIORITY)
                os.setpriority(os.PRIO_PROCESS, thread, nice)
            except ProcessLookupError:
                log.debug("thread gone %s", fields(thread=thread))
        done |= missing
