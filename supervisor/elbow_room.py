"""Has those that give way leave one CPU after another for a moment. Linux.

The kernel spreads threads when a CPU goes idle, which one that is full of a flood at idle priority never does; what it
does every few milliseconds besides moves one thread at a time. So the threads on another model's way, which wake each
other, gather on one CPU and wait for each other there, while the flood has another one for itself. A CPU that the flood
has left goes idle, and takes over what waits elsewhere.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator

from .wire import thread_priority
from .wire.log import fields

log = logging.getLogger(__name__)

# Rare enough that the CPUs do not count as idle because of it.
EVERY_S, LASTS_S = 0.02, 0.004


@contextlib.contextmanager
def made(pids: Callable[[], Collection[int]], turn: int) -> Iterator[None]:
    """For the block, keep all threads of these processes off one of their CPUs, another one each turn.

    `pids`: those of them that are not reaped yet; it is asked again at the end. One that has a single CPU stays there.
    """
    own = {pid: cpus for pid in pids() if len(cpus := _affinity(pid)) > 1}
    try:
        for pid, cpus in own.items():
            _bind(pid, cpus - {sorted(cpus)[turn % len(cpus)]})
        yield
    finally:
        for pid in own.keys() & set(pids()):
            while not _bind(pid, own[pid]):  # a new thread has the CPUs of the one that started it
                pass


def _affinity(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except ProcessLookupError:
        return set()


def _bind(pid: int, cpus: Collection[int]) -> bool:
    """False when threads that are new may be left."""
    try:
        return thread_priority.for_all(pid, lambda thread: os.sched_setaffinity(thread, cpus))
    except OSError as error:  # the machine has taken a CPU away, and the kernel has seen to who was on it
        log.debug("CPUs not set %s", fields(pid=pid, error=error))
        return True
