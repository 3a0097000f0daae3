"""Has threads that take calls wait for those that wake them, where that pays. Linux; event loop only.

Envoy's thread wakes one of pyvoy's with each request, and that one the core's. Where both have the same CPU the kernel
has the one that wakes up run at once: two changes of threads for each request, and many small bursts for the core. By
the policy SCHED_BATCH the one that wakes up waits until the other has nothing more to do, and finds all of it. It waits
for whoever else has the CPU as well, and a request that comes alone gains nothing: so this is done only while CPUs are
idle and several calls come at a time. Who runs at idle priority (`supervisor.cpu_watch`) goes behind either way.
"""

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from modelpool.supervisor.wire import cpu_count
from modelpool.supervisor.wire.cpu_idle import IdleCpus
from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.25
# Calls each time that the thread gets a CPU: from so many on it gathers, until there are fewer than that.
SEVERAL, FEW = 1.0, 0.5
# The part of the CPUs that is idle, likewise.
SPARE, SHORT = 0.05, 0.02
# Turns on a CPU in a period: a thread that had fewer has nothing to save.
RARELY = round(100 * PERIOD_S)
_TASKS = Path("/proc/self/task")


class Gathering:
    """Whether one thread gathers. Pure."""

    def __init__(self) -> None:
        self.on = False

    def look(self, calls: int, turns: int, idle: float) -> bool:
        """From now on, given the calls since the last look, the turns on a CPU in which they were taken, and `idle`,
        the part of the CPUs that nobody used.
        """
        each, spare = (FEW, SHORT) if self.on else (SEVERAL, SPARE)
        self.on = turns >= RARELY and calls >= each * turns and idle >= spare
        return self.on


class Taker(Protocol):
    """A thread of this process, by the kernel's number (0: not yet), and how many calls it took so far."""

    @property
    def thread(self) -> int: ...

    @property
    def calls(self) -> int: ...


class _Thread:
    """One that is looked at, with its folder in /proc. Raises OSError, ValueError or IndexError where that is none."""

    def __init__(self, taker: Taker, folder: Path) -> None:
        self._taker = taker
        self._schedstat = folder / "schedstat"
        self._gathering = Gathering()
        self._calls, self._turns = taker.calls, self._turns_so_far()
        self._is_usual = os.sched_getscheduler(taker.thread) == os.SCHED_OTHER
        """One to whom somebody has given another policy keeps it."""

    def look(self, idle: Callable[[], float]) -> None:
        """As above; OSError also where the kernel refuses the policy."""
        calls, turns = self._taker.calls, self._turns_so_far()
        was_on, had = self._gathering.on, turns - self._turns
        on = self._gathering.look(calls - self._calls, had, idle() if had >= RARELY else 0.0)
        self._calls, self._turns = calls, turns
        if on is not was_on:
            self._set(os.SCHED_BATCH if on else os.SCHED_OTHER)

    def end(self) -> None:
        """It is not looked at any more."""
        if self._gathering.on:
            with contextlib.suppress(OSError):  # it has ended
                self._set(os.SCHED_OTHER)

    def _set(self, policy: int) -> None:
        if self._is_usual:
            os.sched_setscheduler(self._taker.thread, policy, os.sched_param(0))

    def _turns_so_far(self) -> int:
        """How often it got a CPU."""
        return int(self._schedstat.read_text("ascii").split()[2])


class Gatherers:
    """The takers of one process. A list that grows: each is looked at from its first call on."""

    def __init__(self, takers: Sequence[Taker], idle: Callable[[], float] | None = None, tasks: Path = _TASKS) -> None:
        self._takers = takers
        self._idle = idle or IdleCpus(os.sched_getaffinity(0)).look
        self._tasks = tasks
        self._threads: dict[int, _Thread | None] = {}
        """None: it has ended, or the kernel does not count what it does."""

    async def run(self) -> None:
        """Returns only within a quota of the container, which idle CPUs of the host hide."""
        while cpu_count.binding_quota() is None:
            self.look()
            await asyncio.sleep(PERIOD_S)
        for known in self._threads.values():
            if known:
                known.end()

    def look(self) -> None:
        """Have each thread do from now on what suits what it did since the last look."""
        idle = functools.cache(self._idle)  # the same for all of them; it is not asked for nothing
        for taker in self._takers:
            thread = taker.thread
            try:
                if thread and thread not in self._threads:
                    self._threads[thread] = _Thread(taker, self._tasks / str(thread))
                elif known := self._threads.get(thread):
                    known.look(idle)
            except (OSError, ValueError, IndexError) as error:
                if known := self._threads.get(thread):
                    known.end()
                self._threads[thread] = None
                log.info("a thread keeps its policy %s", fields(thread=thread, error=error))
