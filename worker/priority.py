"""The CPU priority of this process while it loads, and when it goes: below everybody else's, for the neighbours.

Priorities hold for threads, and those that TensorFlow starts while it loads inherit them, so all of them are set. What
SCHED_IDLE (sched(7)) gets of a CPU that is always busy is some 0.3 %, next to never: a load that takes long is raised,
step by step. Main thread of the worker, and one beside it.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from modelpool.supervisor.wire import thread_priority
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.states import LoadPriority

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """From so long after its begin on a load runs by this policy, so much nicer than the process is by itself."""

    after_s: float
    policy: int
    nice: int


# By niceness 5 a load has a quarter of a CPU that another thread wants, by 10 a tenth.
STEPS: Mapping[LoadPriority, Sequence[Step]] = {
    LoadPriority.NORMAL: (),
    LoadPriority.BEHIND: (Step(0.0, os.SCHED_OTHER, 5), Step(10.0, os.SCHED_OTHER, 0)),
    LoadPriority.IDLE: (
        Step(0.0, os.SCHED_IDLE, 0),
        Step(10.0, os.SCHED_OTHER, 10),
        Step(60.0, os.SCHED_OTHER, 0),
    ),
}


@contextmanager
def lowered(wanted: LoadPriority, steps: Mapping[LoadPriority, Sequence[Step]] = STEPS) -> Iterator[None]:
    """Run the block at this priority, where the way back is open: without privileges it may not be."""
    if not steps[wanted] or not _may_come_back():
        yield
        return
    first, *later = steps[wanted]
    own_nice = os.getpriority(os.PRIO_PROCESS, 0)
    done = threading.Event()
    raiser = threading.Thread(target=_raise, args=(later, own_nice, done), name="priority", daemon=True)
    raiser.start()
    _set_all(first.policy, own_nice + first.nice, but=raiser.native_id)
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
        _set_all(step.policy, own_nice + step.nice)
        log.info("load at a higher priority %s", fields(after_s=step.after_s, nice=step.nice))


def _may_come_back() -> bool:
    why = thread_priority.why_no_way_back()
    if why:
        log.info("load at normal priority %s", fields(why=why))
    return not why


def _set_all(policy: int, nice: int, but: int | None = None) -> None:
    """Set every thread but one, for good: until none was missed."""
    spared = () if but is None else (but,)
    while not thread_priority.set_all(os.getpid(), policy, nice, spared):
        pass
