"""Looks at what each worker uses of the CPUs, and has those that must give way do so. Linux; event loop only.

Thin: `fair_share` decides. Who gives way runs at idle priority (SCHED_IDLE): not only do others go before it at once, a
CPU that runs nothing else also counts as free when the kernel looks for one, which niceness does not bring about. Going
there needs no privilege, but coming back does: where this process may not, nobody is ever sent.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from .fair_share import FairShare, Usage
from .wire.log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.1
# What one that is starved gets of a CPU for which somebody else has work: about a tenth.
NICER = 10
_MOST_NICE = 19
_NO_PRIORITY = os.sched_param(0)
_STAT = Path("/proc/stat")


class Way(Enum):
    """How a worker runs."""

    NORMAL = auto()
    IDLE = auto()
    NICE = auto()


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose a worker's process is. `weight`: of each of the model's workers."""

    model: str
    weight: int


class CpuWatch:
    """`tenants` gives the workers that serve, by pid: children of this process that are not reaped yet."""

    def __init__(self, tenants: Callable[[], Mapping[int, Tenant]]) -> None:
        self._tenants = tenants
        self._cpus = sorted(os.sched_getaffinity(0))
        self._share = FairShare(len(self._cpus))
        self._used_s: dict[int, float] = {}
        self._looked_s = 0.0
        self._ticks: tuple[int, int] | None = None
        self._ways: dict[int, tuple[Way, int]] = {}
        """Of those that do not run as they did, and the niceness that they had."""

    async def run(self) -> None:
        """Returns at once where nobody could come back, else never."""
        if not can_come_back():
            log.info("no model gives way on the CPUs %s", fields(why="no privilege to come back"))
            return
        while True:
            await asyncio.sleep(PERIOD_S)
            self.look()

    def look(self) -> None:
        """Compare with the last look, and set what has changed."""
        tenants = self._tenants()
        usage, took_s = self._usage(tenants)
        giving_way = self._share.look(usage, took_s, self._idle)
        self._ways = {pid: way for pid, way in self._ways.items() if pid in self._used_s}
        for pid in self._used_s:
            model = tenants[pid].model
            way = Way.NORMAL
            if model in giving_way:
                way = Way.NICE if model in self._share.starved else Way.IDLE
            if way is not self._ways.get(pid, (Way.NORMAL, 0))[0]:
                self._turn(pid, model, way)

    def _usage(self, tenants: Mapping[int, Tenant]) -> tuple[dict[str, Usage], float]:
        """Of each model since the last time that this was asked, and how long ago that is."""
        now_s = time.monotonic()
        took_s, self._looked_s = now_s - self._looked_s, now_s
        before_s, self._used_s = self._used_s, {pid: used for pid in tenants if (used := cpu_time_s(pid)) is not None}
        cpus: dict[str, float] = {}
        for pid in self._used_s.keys() & before_s.keys():
            model = tenants[pid].model
            cpus[model] = cpus.get(model, 0.0) + (self._used_s[pid] - before_s[pid]) / took_s
        weights = {tenant.model: tenant.weight for tenant in tenants.values()}
        return {model: Usage(each, weights[model]) for model, each in cpus.items()}, took_s

    def _turn(self, pid: int, model: str, way: Way) -> None:
        """Have it run this way from now on."""
        try:
            nice = self._ways.pop(pid)[1] if pid in self._ways else os.getpriority(os.PRIO_PROCESS, pid)
            if way is not Way.NORMAL:
                self._ways[pid] = way, nice
            set_priority(pid, idle=way is Way.IDLE, nice=nice if way is not Way.NICE else min(_MOST_NICE, nice + NICER))
        except OSError as error:
            log.debug("priority not set %s", fields(model=model, pid=pid, error=error))
        log.debug("worker on the CPUs %s", fields(model=model, pid=pid, way=way.name))

    def _idle(self) -> float:
        """The part of our CPUs that nobody used since this was last asked; 0 where that is not known."""
        before, self._ticks = self._ticks, _ticks(self._cpus)
        if before is None or self._ticks is None or self._ticks[1] <= before[1]:
            return 0.0
        return (self._ticks[0] - before[0]) / (self._ticks[1] - before[1])


def cpu_time_s(pid: int) -> float | None:
    """What all threads of a process used so far, those that have ended too; None when it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # its CPU clock: clock_getcpuclockid(3)
    except OSError:
        return None


def set_priority(pid: int, *, idle: bool, nice: int) -> None:
    """Of every thread; again until none was missed, for one may start another meanwhile. Raises OSError."""
    done: set[int] = set()
    while missing := {int(name) for name in os.listdir(f"/proc/{pid}/task")} - done:
        for thread in missing:
            try:
                os.sched_setscheduler(thread, os.SCHED_IDLE if idle else os.SCHED_OTHER, _NO_PRIORITY)
                os.setpriority(os.PRIO_PROCESS, thread, nice)
            except ProcessLookupError:
                log.debug("thread gone %s", fields(pid=pid, thread=thread))
        done |= missing


def can_come_back() -> bool:
    """Whether priority can be had back: tried out on a thread of its own, for the kernel knows best."""
    allowed: list[bool] = []

    def try_out() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice + 1)
            os.sched_setscheduler(0, os.SCHED_IDLE, _NO_PRIORITY)
            os.sched_setscheduler(0, os.SCHED_OTHER, _NO_PRIORITY)
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError:
            return
        allowed.append(True)

    probe = threading.Thread(target=try_out, name="priority probe")
    probe.start()
    probe.join()
    return bool(allowed)


def _ticks(cpus: list[int]) -> tuple[int, int] | None:
    """Of these CPUs, as the kernel counts them since its start: idle, and all."""
    names = {f"cpu{number}" for number in cpus}
    try:
        rows = [line.split() for line in _STAT.read_text("ascii").splitlines() if line.startswith("cpu")]
        counts = [[int(word) for word in words] for name, *words in rows if name in names]
    except (OSError, ValueError):
        return None
    # user nice system idle iowait irq softirq steal; guests are in the first two already
    return sum(row[3] + row[4] for row in counts), sum(sum(row[:8]) for row in counts)
