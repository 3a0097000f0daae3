"""Has the threads that take requests from Envoy's let that one go on, where it pays. Linux; event loop only.

Envoy's thread wakes pyvoy's with each request. Where both have the same CPU the kernel has the one that wakes up run at
once: two changes of threads for each request, of which the core's thread then gets as many small bursts. By the policy
SCHED_BATCH the one that wakes up waits until Envoy's thread has nothing more to read, and finds all of it. It waits for
whoever else has the CPU as well, and a request that comes alone gains nothing: so this is done only while CPUs are idle
and several calls come at a time. Idle priority (`supervisor.cpu_watch`) always goes behind, also behind this.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from modelpool.supervisor.wire.cpu_idle import IdleCpus
from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.25
# Calls each time that the thread gets a CPU: from so many on it gathers, until there are fewer than that.
SEVERAL, FEW = 1.0, 0.5
# The part of the CPUs that is idle, likewise.
SPARE, SHORT = 0.05, 0.02
# A thread that ran so rarely in a period has nothing to save.
RARELY = 50
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


class Guest(Protocol):
    """A thread of this process, by the kernel's number (0: not yet), and how many calls it took so far."""

    @property
    def thread(self) -> int: ...

    @property
    def calls(self) -> int: ...


class _Thread:
    """One that is looked at, with its folder in /proc."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self._guest = guest
        self._schedstat = folder / "schedstat"
        self._gathering = Gathering()
        self._calls, self._turns = guest.calls, self._turns_so_far()

    def look(self, idle: float) -> None:
        """Raises OSError where the kernel does not count or refuses."""
        calls, turns = self._guest.calls, self._turns_so_far()
        was_on = self._gathering.on
        on = self._gathering.look(calls - self._calls, turns - self._turns, idle)
        self._calls, self._turns = calls, turns
        if on is not was_on:
            policy = os.SCHED_BATCH if on else os.SCHED_OTHER
            os.sched_setscheduler(self._guest.thread, policy, os.sched_param(0))

    def _turns_so_far(self) -> int:
        """How often it got a CPU."""
        return int(self._schedstat.read_text("ascii").split()[2])


class Gatherers:
    """The guests of one process. A list that grows: each is looked at from its first call on."""

    def __init__(self, guests: Sequence[Guest], idle: Callable[[], float] | None = None, tasks: Path = _TASKS) -> None:
        self._guests = guests
        self._idle = idle or IdleCpus(os.sched_getaffinity(0)).look
        self._tasks = tasks
        self._threads: dict[int, _Thread] = {}

    async def run(self) -> None:
        """Returns only where it cannot be done."""
        while True:
            try:
                self.look()
            except (OSError, ValueError, IndexError) as error:
                log.info("Envoy's thread is not let go on %s", fields(error=error))
                return
            await asyncio.sleep(PERIOD_S)

    def look(self) -> None:
        """Raises OSError, ValueError or IndexError where the kernel does not tell what a thread did, or refuses."""
        idle = self._idle()
        for guest in self._guests:
            if guest.thread and guest.thread not in self._threads:
                self._threads[guest.thread] = _Thread(guest, self._tasks / str(guest.thread))
        for thread in self._threads.values():
            thread.look(idle)
