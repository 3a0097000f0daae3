"""The CPU priority of this process while it loads, and when it goes: below everybody else's, for the neighbours.

SCHED_IDLE (sched(7)) gives way to any normal thread at once. It holds for threads, and those that TensorFlow starts
while it loads inherit it, so all of them are set back. Main thread of the worker.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

_NO_PRIORITY = os.sched_param(0)


@contextmanager
def idle(wanted: bool) -> Iterator[None]:
    """Run the block at idle priority, where the way back is open: without privileges it may not be."""
    if not wanted or not _can_come_back():
        yield
        return
    _set_all(os.SCHED_IDLE)
    try:
        yield
    finally:
        _set_all(os.SCHED_OTHER)


def give_way() -> None:
    """Idle priority for the rest of this process's life: giving back hundreds of megabytes takes the kernel a while."""
    _set_all(os.SCHED_IDLE)


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


def _set_all(policy: int) -> None:
    """Set every thread, and look again until none was missed: one may start another meanwhile."""
    done: set[int] = set()
    while missing := {int(name) for name in os.listdir("/proc/self/task")} - done:
        for thread in missing:
            try:
                os.sched_setscheduler(thread, policy, _NO_PRIORITY)
            except ProcessLookupError:
                log.debug("thread gone %s", fields(thread=thread))
        done |= missing
