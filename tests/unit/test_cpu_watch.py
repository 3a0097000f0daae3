"""What is done with the workers of a model that gives way: who is spared, and what is tried again."""

import asyncio
import math
import os
import time
from collections.abc import Callable, Collection

import pytest

from modelpool.supervisor import cpu_watch
from modelpool.supervisor.cpu_watch import PERIOD_S, CpuWatch, Tenant, Way
from modelpool.supervisor.elbow_room import LASTS_S, ElbowRoom
from modelpool.supervisor.fair_share import MOST, SLACK, TOO_MUCH
from modelpool.supervisor.wire import cpu_idle

FLOOD, LIGHT = 11, 12
# So many looks it takes until who uses as much as this file's flood is known.
KNOWN = math.ceil(TOO_MUCH / (MOST - SLACK))


class Watched:
    """Two workers of two models on one CPU that is never idle; time and what they use are told. `asks` are answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.used_s = {FLOOD: 0.0, LIGHT: 0.0}
        self.cpus = {FLOOD: {0}, LIGHT: {0}}
        self.policies = dict.fromkeys(self.used_s, os.SCHED_OTHER)
        self.pressed = False
        self.answer: Callable[[], bool] = lambda: True
        self.asked: list[tuple[int, Way, int]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(cpu_watch, "cpu_time_s", self.used_s.get)
        monkeypatch.setattr(os, "getpriority", lambda which, pid: 3)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: self.cpus[pid])
        monkeypatch.setattr(cpu_idle, "ticks", self.ticks)
        self.watch = CpuWatch(self.tenants, self.set_way, self.policy)
        self.watch.look()

    def tenants(self) -> dict[int, Tenant]:
        return {FLOOD: Tenant("flood", 100, pressed=self.pressed), LIGHT: Tenant("light", 100)}

    def ticks(self, names: set[str]) -> tuple[int, int]:
        """Of CPU 0, which is never idle, and of the others, which always are."""
        all_of_one = round(self.now_s * 100)
        return all_of_one * len(names - {"cpu0"}), all_of_one * len(names)

    def set_way(self, pid: int, way: Way, nice: int) -> bool:
        self.asked.append((pid, way, nice))
        if pid in self.policies:
            self.policies[pid] = os.SCHED_IDLE if way is Way.IDLE else os.SCHED_OTHER
        return self.answer()

    def policy(self, pid: int) -> int:
        if pid not in self.policies:
            raise ProcessLookupError
        return self.policies[pid]

    def look(self, times: int = 1, flood: float = 0.6, light: float = 0.2) -> list[tuple[int, Way, int]]:
        """What was asked for meanwhile."""
        self.asked = []
        for _ in range(times):
            self.now_s += PERIOD_S
            self.used_s[FLOOD] += flood * PERIOD_S
            self.used_s[LIGHT] += light * PERIOD_S
            self.watch.look()
        return self.asked


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


IDLE, NORMAL = (FLOOD, Way.IDLE, 3), (FLOOD, Way.NORMAL, 3)


def test_who_gives_way_is_sent_once_and_brought_back_once(watched: Watched) -> None:
    assert watched.look(KNOWN + 5) == [IDLE]
    assert watched.look(30, light=0.0) == [NORMAL]


def test_one_that_chose_another_policy_while_it_was_sent_is_sent_again(watched: Watched) -> None:
    watched.look(KNOWN)
    watched.policies[FLOOD] = os.SCHED_BATCH
    assert watched.look(5) == [IDLE]
    assert watched.look(30, light=0.0) == [NORMAL], "as it was before"
    watched.policies[FLOOD] = os.SCHED_BATCH
    assert watched.look(5, light=0.0) == [], "it gives way no more"


def test_one_that_is_gone_and_not_reaped_yet_is_let_be(watched: Watched) -> None:
    watched.look(KNOWN)
    del watched.policies[FLOOD]
    assert watched.look(5) == []


def test_one_that_may_be_taken_for_hung_comes_back_until_it_is_done(watched: Watched) -> None:
    watched.look(KNOWN)
    watched.pressed = True
    assert watched.look(5, flood=0.3) == [NORMAL]
    watched.pressed = False
    assert watched.look(5, flood=0.3) == [IDLE]


def test_what_was_done_by_half_is_done_again(watched: Watched) -> None:
    watched.answer = lambda: False
    assert watched.look(KNOWN + 2) == [IDLE] * 3
    watched.answer = lambda: True
    assert watched.look(3) == [IDLE]


def refuse() -> bool:
    raise PermissionError


def test_the_way_back_is_tried_until_it_works(watched: Watched) -> None:
    watched.look(KNOWN)
    watched.answer = refuse
    watched.pressed = True
    assert watched.look(3, flood=0.3) == [NORMAL] * 3
    watched.answer = lambda: True
    assert watched.look(3, flood=0.3) == [NORMAL]


def test_one_that_failed_halfway_is_brought_back_though_it_never_arrived(watched: Watched) -> None:
    watched.answer = refuse
    assert watched.look(KNOWN) == [IDLE]
    watched.answer, watched.pressed = (lambda: True), True
    assert watched.look(3, flood=0.3) == [NORMAL]


def test_models_on_cpus_of_their_own_are_not_compared(watched: Watched) -> None:
    watched.cpus[LIGHT] = {1}
    assert watched.look(KNOWN + 5, flood=0.9, light=0.2) == []
    watched.cpus[LIGHT] = {0}
    assert watched.look(KNOWN + 5) == [IDLE]


def test_how_idle_other_cpus_are_does_not_count(watched: Watched) -> None:
    """Those of the models that share some are compared, however many this machine has."""
    watched.cpus = {FLOOD: {0}, LIGHT: {0, 1, 2, 3}}
    assert watched.look(KNOWN + 5) == [], "three of four are idle"
    watched.cpus[LIGHT] = {0}
    assert watched.look(KNOWN + 5) == [IDLE]


@pytest.mark.parametrize(("flood", "light", "room"), [(0.3, 0.25, 5), (0.3, 0.2, 0), (0.6, 0.0, 0)])
def test_who_gives_way_leaves_room_between_looks_where_the_others_use_much(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, flood: float, light: float, room: int
) -> None:
    seen: list[set[int]] = []
    slept_s: list[float] = []
    settled: list[int] = []

    async def make(self: ElbowRoom, pids: Collection[int]) -> None:
        seen.append(set(pids))
        await asyncio.sleep(LASTS_S)

    async def settle(self: ElbowRoom) -> None:
        settled.append(len(slept_s))

    async def sleep(wait_s: float) -> None:
        slept_s.append(wait_s)
        watched.now_s += wait_s
        if sum(slept_s) > PERIOD_S * 1.05:
            raise asyncio.CancelledError

    monkeypatch.setattr(cpu_watch.thread_priority, "why_no_way_back", str)
    monkeypatch.setattr(ElbowRoom, "make", make)
    monkeypatch.setattr(ElbowRoom, "settle", settle)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    watched.look(KNOWN + 1, light=light)
    watched.look(flood=flood, light=light)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watched.watch.run())
    assert seen == [{FLOOD}] * room
    assert sum(slept_s[:-1]) == pytest.approx(PERIOD_S)
    assert settled == [len(slept_s) - 1], "once before each look, also when nobody leaves room any more"


@pytest.mark.parametrize(("quota", "why", "said"), [(1, "", "quota"), (4, "", ""), (None, "", ""), (1, "no", "no")])
def test_who_will_not_give_way_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, quota: int | None, why: str, said: str
) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(CpuWatch(dict).run())
        await asyncio.sleep(0)
        task.cancel()

    monkeypatch.setattr(cpu_watch.thread_priority, "why_no_way_back", lambda: why)
    monkeypatch.setattr(cpu_watch.cpu_count, "quota", lambda cgroup: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    with caplog.at_level("INFO"):
        asyncio.run(run())
    assert len(caplog.records) == bool(said)
    assert said in caplog.text
