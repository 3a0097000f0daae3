"""Looks at what each worker uses of the CPUs, and has those that must give way do so. Linux; event loop only.

Thin: `fair_share` decides. Who gives way runs at idle priority (SCHED_IDLE): not only do others go before it at once, a
CPU that runs nothing else also counts as free when the kernel looks for one, which niceness does not bring about. Going
there needs no privilege, but coming back does: where this process may not, nobody is ever sent.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from .elbow_room import EVERY_S, LASTS_S, ElbowRoom
from .fair_share import FairShare, Usage, neighbours
from .wire import cpu_count, thread_priority
from .wire.cpu_idle import IdleCpus
from .wire.log import fields

log = logging.getLogger(__name__)

PERIOD_S = 0.1
# What one that is starved gets of a CPU for which somebody else has work: about a tenth.
NICER = 10
# The threads that say that the worker lives keep their priority: the one of `ControlLink`, and ZeroMQ's beneath it.
_SPARED = ("control", "ZMQbg/")
# Models that use less than this together may share a CPU: with their frontends and clients it is several times as much.
CROWD_CPUS = 0.25


class Way(Enum):
    """How a worker runs."""

    NORMAL = auto()
    IDLE = auto()
    NICE = auto()


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose a worker's process is. `weight`: of each of the model's workers.

    `pressed`: it may be taken for hung before long, and therefore does not give way.
    """

    model: str
    weight: int
    pressed: bool = False


class _Group:
    """Some CPUs, and the share of models that have them among themselves."""

    def __init__(self, cpus: Collection[int]) -> None:
        self.share = FairShare(len(cpus))
        self.idle = IdleCpus(cpus).look

    def in_the_way(self, usage: Mapping[str, Usage], models: Collection[str]) -> frozenset[str]:
        """Those of these models that give way, where one CPU may be too few for the others."""
        others = sum(usage[model].cpus for model in models if model not in self.share.giving_way)
        return self.share.giving_way if others >= CROWD_CPUS else frozenset()


class CpuWatch:
    """`tenants` gives the workers that serve, by pid: children of this process that are not reaped yet."""

    def __init__(
        self,
        tenants: Callable[[], Mapping[int, Tenant]],
        set_way: Callable[[int, Way, int], bool] | None = None,
        policy: Callable[[int], int] = os.sched_getscheduler,
    ) -> None:
        self._tenants = tenants
        self._set = set_way or set_way_of
        self._policy = policy
        self._groups: dict[frozenset[int], _Group] = {}
        self._used_s: dict[int, float] = {}
        self._looked_s = 0.0
        self._room = ElbowRoom()
        self._in_the_way: frozenset[str] = frozenset()
        """Models that must leave room."""
        self._ways: dict[int, tuple[Way | None, int]] = {}
        """Of those that do not run as they did, None for halfway, and the niceness that they had."""

    async def run(self) -> None:
        """Returns at once where nobody could come back, else never."""
        why = thread_priority.why_no_way_back()
        if why:
            log.info("no model gives way on the CPUs %s", fields(why=why, needs="privilege to come back"))
            return
        quota = cpu_count.binding_quota()
        if quota is not None:
            # Whatever priority uses it up, all processes wait for its next period; idle CPUs of the host hide it, too.
            log.info("no model gives way within the quota of the container %s", fields(quota_cpus=quota))
        while True:
            if self._in_the_way:
                await self._make_room()
            else:
                await asyncio.sleep(PERIOD_S)
            await self._room.settle()
            self.look()

    async def _make_room(self) -> None:
        """Between two looks, for those who do not give way."""
        for _ in range(round(PERIOD_S / EVERY_S)):
            await asyncio.sleep(EVERY_S - LASTS_S)
            await self._room.make(self._pids_in_the_way())

    def _pids_in_the_way(self) -> set[int]:
        return {
            pid for pid, tenant in self._tenants().items() if pid in self._ways and tenant.model in self._in_the_way
        }

    def look(self) -> None:
        """Compare with the last look, and set what has changed."""
        tenants = self._tenants()
        usage, took_s = self._usage(tenants)
        groups = neighbours(self._affinities(tenants, usage))
        self._groups = {cpus: self._groups.get(cpus) or _Group(cpus) for cpus in groups}
        for cpus, models in groups.items():
            group = self._groups[cpus]
            group.share.look({model: usage[model] for model in models}, took_s, group.idle)
        giving_way = frozenset[str]().union(*(group.share.giving_way for group in self._groups.values()))
        starved = frozenset[str]().union(*(group.share.starved for group in self._groups.values()))
        self._in_the_way = frozenset[str]().union(
            *(self._groups[cpus].in_the_way(usage, models) for cpus, models in groups.items())
        )
        self._ways = {pid: way for pid, way in self._ways.items() if pid in self._used_s}
        for pid in self._used_s:
            model = tenants[pid].model
            way = Way.NORMAL
            if model in giving_way and not tenants[pid].pressed:
                way = Way.NICE if model in starved else Way.IDLE
            if way is not self._ways.get(pid, (Way.NORMAL, 0))[0] or (way is Way.IDLE and self._strayed(pid)):
                self._turn(pid, model, way)

    def _strayed(self, pid: int) -> bool:
        """Whether one that was sent to idle priority runs by another policy: workers choose some themselves.

        They look before which one they have, and may have been sent between the look and the choice.
        """
        try:
            return self._policy(pid) != os.SCHED_IDLE
        except OSError:
            return False  # it is gone, and whoever reaps it is told

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

    def _affinities(self, tenants: Mapping[int, Tenant], models: Collection[str]) -> dict[str, set[int]]:
        """The CPUs that the workers of each of these models may use."""
        found: dict[str, set[int]] = {model: set() for model in models}
        for pid in self._used_s:
            if tenants[pid].model in found:
                with contextlib.suppress(ProcessLookupError):
                    found[tenants[pid].model] |= os.sched_getaffinity(pid)
        return found

    def _turn(self, pid: int, model: str, way: Way) -> None:
        """Have it run this way from now on. What did not work is tried again at the next look."""
        known = self._ways.get(pid)
        try:
            nice = os.getpriority(os.PRIO_PROCESS, pid) if known is None else known[1]
            self._ways[pid] = None, nice
            if not self._set(pid, way, nice):
                return
        except OSError as error:
            log.debug("priority not set %s", fields(model=model, pid=pid, error=error))
            return
        if way is Way.NORMAL:
            del self._ways[pid]
        else:
            self._ways[pid] = way, nice
        log.debug("worker on the CPUs %s", fields(model=model, pid=pid, way=way.name))


def cpu_time_s(pid: int) -> float | None:
    """What all threads of a process used so far, those that have ended too; None when it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # its CPU clock: clock_getcpuclockid(3)
    except OSError:
        return None


def set_way_of(pid: int, way: Way, nice: int) -> bool:
    """Have a worker, whose own niceness is given, run this way; False when some threads are left. Raises OSError."""
    policy = os.SCHED_IDLE if way is Way.IDLE else os.SCHED_OTHER
    spared = thread_priority.named(pid, *_SPARED)
    return thread_priority.set_all(pid, policy, nice + (NICER if way is Way.NICE else 0), spared)
