"""Has the threads of a process that wake each other wait for each other, where that pays. Linux.

A request wakes one thread after another. Where the next one gets the CPU of the one that wakes it, the kernel stops
that one halfway: two changes of threads for each step, and all of them have many small bursts to do. By the policy
SCHED_BATCH (sched(7)) one that is woken waits until the other has nothing more to do, and finds all of it. It waits for
whoever else has the CPU as well, but not for those at idle priority: beside busy threads of other programs that may be
for milliseconds. Before it is done nothing tells, so it is tried, left off where the threads wait for much longer than
they run, and tried again later.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import cpu_count
from .log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.25
# Fewer turns on a CPU than these in a period say nothing of waits. So nobody gathers then: beside threads that compute,
# a request that comes now and then would wait at each step, and nobody would see it.
RARELY = round(100 * PERIOD_S)
# Of waits that are so short on average nobody suffers, however little there is to do in a turn.
LONG_NS = 150_000
# So long it is left off where the threads had to wait for others, twice as long after each further time, at most so
# long. Once it went well for as long as it would have to be left off, that is forgotten.
AGAIN_S, AGAIN_LIMIT_S = 1.0, 60.0
# And so many times sooner where the threads have so many times as many turns a second as when it was left off, or as
# few: what was found held for another load. Not at once, for a load that comes and goes is another all the time.
SOONER, ANOTHER = 4.0, 2.0
# A process that used less than so many CPUs is at rest: to look at its threads would be most of what it did.
ACTIVE_CPUS = 0.02
_TASKS = Path("/proc/self/task")
_NO_PRIORITY = os.sched_param(0)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class Turns(NamedTuple):
    """What a thread had of the CPUs, or several together: how often, for how long, and how long they waited for it."""

    times: int
    ran_ns: int
    waited_ns: int


@dataclass(frozen=True, slots=True)
class Rules:
    """When the threads of a process gather.

    `patience`: not where they wait for so many times as long as they run. `several`: calls a turn from which on they
    do, `few`: from which on they go on with it.
    """

    patience: float
    several: float = 0.0
    few: float = 0.0


# Measured on two CPUs. The threads of a frontend waited for at most 1.6 times as long as they ran where gathering
# brought more requests/s, 3.1 times beside the computing of `conv`, where it hardly mattered, and 3.8 to 5.7 times
# beside two busy loops where it did harm. A worker's waited 0.5 to 1.1 times as long, and beside the loops 1.8 to 2.5
# times; with one request in flight it does better to wake up at once.
FRONTEND = Rules(3.0)
WORKER = Rules(1.5, several=1.25, few=1.1)


class Gathering:
    """Whether threads gather. Pure."""

    def __init__(self, rules: Rules) -> None:
        self.on = False
        self._rules = rules
        self._again_s = self._well_s = 0.0
        """For how long it is left off, and has gone well since."""
        self._looked_s = self._left_s = float("-inf")
        """When it was looked at, and left off because of waits."""
        self._turns_per_s: float | None = None
        """Once it was left off; not before, for those who gather have other numbers of them."""

    def look(self, now_s: float, turns: Turns, calls: int) -> bool:
        """From now on, given what the threads did since the last look, and how many calls they took meanwhile."""
        took_s, self._looked_s = now_s - self._looked_s, now_s
        rules = self._rules
        if turns.times < RARELY:
            self.on = False
        elif not self.on:
            rested = now_s - self._left_s >= self._off_s(turns.times / took_s)
            self.on = rested and calls >= rules.several * turns.times
        else:
            self.on = calls >= rules.few * turns.times
            if turns.waited_ns > max(LONG_NS * turns.times, rules.patience * turns.ran_ns):
                self._leave_off(now_s)
            else:
                self._went_well(took_s)
        return self.on

    def rest(self) -> None:
        """The threads do next to nothing."""
        self.on = False

    def _went_well(self, took_s: float) -> None:
        self._well_s += took_s
        if self._well_s >= self._again_s:
            self._again_s = 0.0

    def _leave_off(self, now_s: float) -> None:
        self.on = False
        self._again_s = min(AGAIN_LIMIT_S, max(AGAIN_S, 2 * self._again_s))
        self._left_s, self._well_s, self._turns_per_s = now_s, 0.0, None

    def _off_s(self, turns_per_s: float) -> float:
        """For how long it is left off, where threads have so many turns now that it is."""
        if self._turns_per_s is None:
            self._turns_per_s = turns_per_s
        if self._turns_per_s / ANOTHER <= turns_per_s <= self._turns_per_s * ANOTHER:
            return self._again_s
        return min(self._again_s, max(AGAIN_S, self._again_s / SOONER))


class Gatherer:
    """Looks at threads of this process each `PERIOD_S`, and has them gather or not. One thread's at a time.

    `threads` gives those that belong together, by the kernel's numbers. One to which somebody else has given another
    policy keeps it. Nothing is done within a quota of the container: what is waited for its next period looks the same.
    """

    def __init__(self, rules: Rules, threads: Callable[[], Collection[int]], tasks: Path = _TASKS) -> None:
        self._gathering = Gathering(rules)
        self._threads = threads
        self._tasks = tasks
        self._so_far: dict[int, Turns] = {}
        self._ours: set[int] = set()
        """Threads that have the policy by our doing."""
        self._others: set[int] = set()
        """And those that had it before."""
        self._used_s, self._looked_s, self._calls = time.process_time(), time.monotonic(), 0
        self._refused = False

    def look(self, calls: int = 0) -> None:
        """`calls`: how many were taken so far."""
        if self._refused:
            return
        now_s, used_s = time.monotonic(), time.process_time()
        is_active = used_s - self._used_s >= ACTIVE_CPUS * (now_s - self._looked_s)
        self._used_s, self._looked_s = used_s, now_s
        if not is_active and not self._gathering.on:
            return
        try:
            self._set_as_found(now_s, calls, is_active=is_active)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:  # as under a flood of connections; that passes
                return
            self._refused = True
            with contextlib.suppress(OSError):  # refused as well
                self._end(self._ours)
            log.info("threads do not gather %s", fields(error=error))

    def _set_as_found(self, now_s: float, calls: int, *, is_active: bool) -> None:
        """Raises OSError where the threads cannot be seen, or the kernel refuses the policy."""
        threads = self._threads()
        if not is_active:
            self._gathering.rest()
        if not is_active or cpu_count.binding_quota() is not None:
            self._end(threads)
            return
        turns, taken = self._turns_of(threads), calls - self._calls
        self._calls = calls
        if self._gathering.look(now_s, turns, taken):
            self._gather(threads)
        else:
            self._end(threads)

    def _end(self, threads: Collection[int]) -> None:
        """Those that gather do so no more, nor does one that has it from them since the last look."""
        for thread in set(threads) - self._others if self._ours else ():
            if _policy(thread) == os.SCHED_BATCH:
                _set(thread, os.SCHED_OTHER)
        self._ours.clear()
        self._others.clear()

    def _gather(self, threads: Collection[int]) -> None:
        begins, policies = not self._ours, {thread: _policy(thread) for thread in threads}
        self._ours &= policies.keys()
        if os.SCHED_IDLE in policies.values():  # somebody has the process give way, and knows who does not
            self._end(threads)
            return
        for thread, policy in policies.items():
            if policy == os.SCHED_OTHER:
                _set(thread, os.SCHED_BATCH)
                self._ours.add(thread)
            elif policy == os.SCHED_BATCH and thread not in self._others:
                # One has it from before, or from one of ours that started it.
                (self._others if begins else self._ours).add(thread)

    def _turns_of(self, threads: Collection[int]) -> Turns:
        """Of all of them together, since they were asked for the last time."""
        so_far = {thread: found for thread in threads if (found := self._read(thread)) is not None}
        before, self._so_far = self._so_far, so_far
        return _sum({thread: found for thread, found in so_far.items() if thread in before}, before)

    def _read(self, thread: int) -> Turns | None:
        """None for one that has ended, or where the kernel does not count."""
        try:
            ran_ns, waited_ns, count = (self._tasks / str(thread) / "schedstat").read_text("ascii").split()
            return Turns(int(count), int(ran_ns), int(waited_ns))
        except (OSError, ValueError):
            return None


def _sum(turns: Mapping[int, Turns], before: Mapping[int, Turns]) -> Turns:
    spans = [[now - then for now, then in zip(each, before[thread], strict=True)] for thread, each in turns.items()]
    return Turns(*map(sum, zip(*spans, strict=True))) if spans else Turns(0, 0, 0)


def _policy(thread: int) -> int | None:
    """None for one that has ended."""
    try:
        return os.sched_getscheduler(thread)
    except ProcessLookupError:
        return None


def _set(thread: int, policy: int) -> None:
    try:
        os.sched_setscheduler(thread, policy, _NO_PRIORITY)
    except ProcessLookupError:
        log.debug("thread gone %s", fields(thread=thread))


def stand_apart() -> None:
    """This thread does not gather, though the one that started it may: for threads that compute."""
    with contextlib.suppress(OSError):  # refused, where it was not our doing
        if os.sched_getscheduler(0) == os.SCHED_BATCH:
            os.sched_setscheduler(0, os.SCHED_OTHER, _NO_PRIORITY)


def all_threads() -> set[int]:
    """Of this process."""
    return {int(name) for name in os.listdir(_TASKS)}
