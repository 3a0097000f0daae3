"""The rests of a load between its pieces, while it competes for the CPUs. Linux; in each thread that reads.

A thread at idle priority gives way at once to whoever wakes up on its CPU. But a CPU that has one to run is never out
of work, and only when it is does the kernel fetch at once what waits at another (fair.c: sched_balance_newidle): so
others wait for each other there. A load that had to wait for a CPU, and so competes, therefore leaves it alone for as
long again.

Such rests end where nobody else wants the CPUs. Loads beside each other wait for each other, too; but as a rest is no
longer than the waits, it takes their place, and leaves next to no CPU without work.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_SCHEDSTAT = "/proc/thread-self/schedstat"
_SCHEDSTAT_BYTES = 128  # three numbers: ran and waited, in ns, and how often

# A rest is as long as the waits of the last pieces, so many or so (a moving mean),
LATELY = 8
# and no longer than so many times what the piece itself took of a CPU: one that is starved loses little more by it.
PER_RUN = 3.0
# A shorter sleep is not worth its own cost.
LEAST_S = 0.0001


@dataclass(frozen=True, slots=True)
class Use:
    """What a thread has had of the CPUs since its start: for how long it ran, and for how long it waited to run."""

    ran_s: float
    waited_s: float


class Rests:
    """How long one thread rests, by what it has used. Pure. Never longer in all than it waited."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._before: Use | None = None

    def due_s(self, use: Use | None) -> float:
        """The rest after a piece, 0 for none. None: this thread does not give way, and its waits are forgotten."""
        before, self._before = self._before, use
        if before is None or use is None:
            self._wait_s = 0.0
            return 0.0
        self._wait_s += (use.waited_s - before.waited_s - self._wait_s) / LATELY
        rest_s = min(self._wait_s, PER_RUN * (use.ran_s - before.ran_s))
        return rest_s if rest_s >= LEAST_S else 0.0


class Pace(threading.local):
    """Of threads that do something in pieces, each for itself."""

    def __init__(
        self, look: Callable[[], Use | None] | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._look = look or ThisThread().look
        self._sleep = sleep
        self._rests = Rests()

    def keep(self) -> None:
        """Rest, if need be. To be called before the first piece and after each."""
        rest_s = self._rests.due_s(self._look())
        if rest_s:
            self._sleep(rest_s)


class ThisThread:
    """The use of the thread that asks, always the same one."""

    def __init__(self) -> None:
        self._off_s = -math.inf
        self._waited_s = 0.0

    def look(self) -> Use | None:
        """None unless it is at idle priority, and where the kernel does not tell of waits."""
        if os.sched_getscheduler(0) != os.SCHED_IDLE:
            return None
        ran_s = time.thread_time()
        off_s = time.monotonic() - ran_s
        if off_s - self._off_s >= LEAST_S:  # a file of /proc is dear, and one that ran all the time has not waited
            self._off_s = off_s
            waited_s = _waited_s()
            if waited_s is None:
                return None
            self._waited_s = waited_s
        return Use(ran_s, self._waited_s)


def _waited_s() -> float | None:
    try:
        fd = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.read(fd, _SCHEDSTAT_BYTES).split()[1]) / 1e9
    finally:
        os.close(fd)
