"""Whether pyvoy's threads let Envoy's go on: decided by what they did, set on a real thread."""

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelpool.frontend.gathering import FEW, RARELY, SEVERAL, SHORT, SPARE, Gatherers, Gathering
from modelpool.supervisor.wire import cpu_count

IDLE = 0.2
TURNS = 1000


def test_one_gathers_that_takes_several_calls_at_a_time_while_cpus_are_idle() -> None:
    assert Gathering().look(round(SEVERAL * TURNS), TURNS, SPARE)


@pytest.mark.parametrize(
    ("calls", "turns", "idle"),
    [(SEVERAL * TURNS - 1, TURNS, IDLE), (10 * TURNS, TURNS, SPARE - 0.001), (10 * RARELY, RARELY - 1, IDLE)],
    ids=["one by one", "no CPU is idle", "next to nothing to do"],
)
def test_one_does_not_gather_else(calls: int, turns: int, idle: float) -> None:
    assert not Gathering().look(calls, turns, idle)


def test_one_that_gathers_goes_on_a_little_longer_and_then_ends() -> None:
    gathering = Gathering()
    few = round(FEW * TURNS)
    assert [gathering.look(*seen) for seen in ((TURNS, TURNS, SPARE), (few, TURNS, SHORT), (few - 1, TURNS, IDLE))] == [
        True,
        True,
        False,
    ]
    assert not gathering.look(few, TURNS, IDLE), "it would have had to go on"
    assert gathering.look(TURNS, TURNS, IDLE)
    assert not gathering.look(TURNS, TURNS, SHORT - 0.001)


@dataclass
class Taker:
    """A thread that took so many calls, and what the kernel is made to say of it."""

    tasks: Path
    thread: int = 0
    calls: int = 0
    turns: int = 0

    def work(self, calls: int, turns: int) -> None:
        self.calls += calls
        self.turns += turns
        (self.tasks / str(self.thread)).mkdir(exist_ok=True)
        (self.tasks / str(self.thread) / "schedstat").write_text(f"123 456 {self.turns}\n")

    def policy(self) -> int:
        return os.sched_getscheduler(self.thread)


@pytest.fixture
def taker(tmp_path: Path) -> Iterator[Taker]:
    ends, runs = threading.Event(), threading.Event()
    taker = Taker(tmp_path)

    def run() -> None:
        taker.thread = threading.get_native_id()
        runs.set()
        ends.wait(60)

    thread = threading.Thread(target=run)
    thread.start()
    assert runs.wait(10)
    yield taker
    ends.set()
    thread.join(10)


def test_the_policy_follows(taker: Taker) -> None:
    idle = [IDLE]
    gatherers = Gatherers([taker], lambda: idle[0], taker.tasks)
    taker.work(50_000, 50)
    gatherers.look()
    assert taker.policy() == os.SCHED_OTHER, "what was before the first look counts"
    taker.work(2 * TURNS, TURNS)
    gatherers.look()
    assert taker.policy() == os.SCHED_BATCH
    idle[0] = 0.0
    taker.work(2 * TURNS, TURNS)
    gatherers.look()
    assert taker.policy() == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_who_comes_later_is_looked_at_and_who_took_nothing_yet_is_not(taker: Taker) -> None:
    guests: list[Taker] = [Taker(taker.tasks)]
    gatherers = Gatherers(guests, lambda: IDLE, taker.tasks)
    gatherers.look()
    guests.append(taker)
    for _ in range(2):
        taker.work(2 * TURNS, TURNS)
        gatherers.look()
    assert taker.policy() == os.SCHED_BATCH


@pytest.mark.parametrize("said", ["", "0 0\n", "1 2 three\n", None])
def test_where_the_kernel_does_not_count_the_others_are_looked_at_all_the_same(
    taker: Taker, tmp_path: Path, said: str | None
) -> None:
    other = Taker(tmp_path, threading.get_native_id())
    if said is not None:
        other.work(0, 0)
        (tmp_path / str(other.thread) / "schedstat").write_text(said)
    gatherers = Gatherers([other, taker], lambda: IDLE, tmp_path)
    for _ in range(2):
        taker.work(2 * TURNS, TURNS)
        gatherers.look()
    assert (other.policy(), taker.policy()) == (os.SCHED_OTHER, os.SCHED_BATCH)


def test_one_that_has_ended_is_forgotten(taker: Taker) -> None:
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join(10)
    ended = Taker(taker.tasks, gone.native_id or 0)
    gatherers = Gatherers([ended, taker], lambda: IDLE, taker.tasks)
    for _ in range(3):
        ended.work(2 * TURNS, TURNS)
        taker.work(2 * TURNS, TURNS)
        gatherers.look()
    assert taker.policy() == os.SCHED_BATCH


def test_a_policy_that_somebody_else_has_chosen_stays(taker: Taker) -> None:
    os.sched_setscheduler(taker.thread, os.SCHED_IDLE, os.sched_param(0))
    gatherers = Gatherers([taker], lambda: IDLE, taker.tasks)
    for _ in range(3):
        taker.work(2 * TURNS, TURNS)
        gatherers.look()
    assert taker.policy() == os.SCHED_IDLE


def test_nobody_asks_how_many_cpus_are_idle_while_nothing_is_done(taker: Taker) -> None:
    asked: list[int] = []
    gatherers = Gatherers([taker], lambda: asked.append(1) or IDLE, taker.tasks)  # type: ignore[func-returns-value]
    for _ in range(3):
        taker.work(1, RARELY - 1)
        gatherers.look()
    assert not asked
    taker.work(1, RARELY)
    gatherers.look()
    assert len(asked) == 1


def test_within_a_quota_nothing_is_done(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_count, "quota", lambda cgroup: len(os.sched_getaffinity(0)) - 1)
    taker.work(0, 0)
    asyncio.run(asyncio.wait_for(Gatherers([taker], lambda: IDLE, taker.tasks).run(), 10))
    assert taker.policy() == os.SCHED_OTHER


def test_one_that_gathers_and_can_no_longer_be_looked_at_has_its_policy_back(taker: Taker) -> None:
    gatherers = Gatherers([taker], lambda: IDLE, taker.tasks)
    for _ in range(2):
        taker.work(2 * TURNS, TURNS)
        gatherers.look()
    assert taker.policy() == os.SCHED_BATCH
    (taker.tasks / str(taker.thread) / "schedstat").unlink()
    gatherers.look()
    assert taker.policy() == os.SCHED_OTHER


def test_when_a_quota_comes_all_have_their_policy_back(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    taker.work(0, 0)
    gatherers = Gatherers([taker], lambda: IDLE, taker.tasks)
    gatherers.look()
    taker.work(2 * TURNS, TURNS)
    gatherers.look()
    assert taker.policy() == os.SCHED_BATCH
    monkeypatch.setattr(cpu_count, "quota", lambda cgroup: len(os.sched_getaffinity(0)) - 1)
    asyncio.run(asyncio.wait_for(gatherers.run(), 10))
    assert taker.policy() == os.SCHED_OTHER
