"""Which replica is picked: a clock and a chance that the test owns."""

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend.balance import HOLD_S, SICK_AFTER, STALL_FACTOR, STALL_S, Balance, Candidate
from modelpool.supervisor.wire.frontend_messages import WorkerLoads
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.status import Code


@dataclass
class Bench:
    """Replicas with the requests that each has and has not answered."""

    workers: int = 2
    now_s: float = 100.0
    outstanding: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.balance = Balance(lambda: self.now_s, random.Random(7).random)

    def send(self) -> int:
        candidates = [Candidate(Incarnation(n), self.outstanding[n]) for n in range(1, self.workers + 1)]
        worker = self.balance.pick(candidates)
        self.outstanding[worker] += 1
        return worker

    def answer(self, worker: int, code: Code = Code.OK) -> None:
        self.outstanding[worker] -= 1
        self.balance.answered(Incarnation(worker), code)

    def expire(self, worker: int) -> None:
        self.outstanding[worker] -= 1
        self.balance.expired(Incarnation(worker))

    def ask(self, *failing: int, code: Code = Code.INTERNAL) -> int:
        """One request and its answer; who got it."""
        worker = self.send()
        self.answer(worker, code if worker in failing else Code.OK)
        return worker

    def make_sick(self, worker: int) -> None:
        for _ in range(2 * SICK_AFTER):
            self.ask(worker)


def test_one_after_the_other_they_take_turns() -> None:
    bench = Bench()
    assert Counter(bench.ask() for _ in range(10)) == {1: 5, 2: 5}


def test_the_one_with_less_outstanding_is_taken() -> None:
    bench = Bench()
    for _ in range(6):
        bench.send()
    assert bench.outstanding == {1: 3, 2: 3}
    bench.answer(2)
    bench.answer(2)
    assert [bench.send() for _ in range(2)] == [2, 2]


@given(st.integers(3, 12), st.integers(20, 200))
def test_of_many_two_are_drawn_and_the_lesser_taken(workers: int, requests: int) -> None:
    bench = Bench(workers)
    for _ in range(requests):
        bench.send()
    # "The power of two choices": far closer together than one draw would leave them.
    assert max(bench.outstanding.values()) - requests / workers <= 4
    assert sum(bench.outstanding.values()) == requests


def test_what_other_frontends_have_in_flight_counts() -> None:
    bench = Bench()
    bench.ask(), bench.ask()
    bench.balance.told(WorkerLoads({1: 3}, {}))
    assert [bench.send() for _ in range(3)] == [2, 2, 2]
    bench.balance.told(WorkerLoads({1: 0}, {}))
    assert bench.send() == 1


def test_a_sick_replica_is_left_out_and_tried_again() -> None:
    bench = Bench()
    bench.make_sick(1)
    assert {bench.ask() for _ in range(20)} == {2}
    bench.now_s += HOLD_S
    assert bench.send() == 1  # its trial
    assert {bench.ask() for _ in range(20)} == {2}  # one request at a time
    bench.answer(1, Code.INTERNAL)
    bench.now_s += HOLD_S
    assert {bench.ask() for _ in range(20)} == {2}  # held twice as long
    bench.now_s += HOLD_S
    assert bench.send() == 1
    bench.answer(1)
    assert {bench.ask() for _ in range(2)} == {1, 2}


def test_errors_that_speak_of_the_request_do_not_count() -> None:
    bench = Bench()
    for _ in range(4 * SICK_AFTER):
        bench.ask(1, code=Code.INVALID_ARGUMENT)
    assert {bench.ask() for _ in range(2)} == {1, 2}


def test_never_are_all_left_out() -> None:
    bench = Bench()
    for _ in range(4 * SICK_AFTER):
        bench.ask(1, 2)
    assert {bench.ask(1, 2) for _ in range(4)} == {1, 2}


def test_a_replica_that_stands_still_is_left_out_until_it_answers() -> None:
    bench = Bench()
    assert (bench.send(), bench.send()) == (1, 2)
    for _ in range(20):
        bench.now_s += STALL_S / 10
        bench.answer(2)
        bench.outstanding[2] += 5  # however much its sibling has to do
        assert bench.now_s <= 100.0 + STALL_S or bench.send() == 2
    bench.answer(1)
    assert bench.send() == 1


def test_slow_models_are_not_taken_for_stalled() -> None:
    bench = Bench()
    for _ in range(20):
        assert (bench.send(), bench.send()) in {(1, 2), (2, 1)}
        bench.now_s += 5.0
        bench.answer(1), bench.answer(2)
    assert (bench.send(), bench.send()) in {(1, 2), (2, 1)}
    bench.now_s += 5.0 * STALL_FACTOR - 1.0
    bench.answer(2)
    bench.outstanding[2] += 1
    assert bench.send() in {1, 2}
    bench.outstanding[2] += 5
    assert bench.send() == 1  # not stalled yet, so the load decides


def test_one_whose_requests_ran_into_their_deadline_is_on_trial() -> None:
    bench = Bench()
    assert (bench.send(), bench.send()) == (1, 2)
    bench.now_s += STALL_S + 0.1
    bench.answer(2)
    bench.expire(1)
    assert {bench.ask() for _ in range(5)} == {2}
    bench.now_s += HOLD_S
    assert bench.send() == 1


def test_a_replica_that_another_frontend_waits_for_is_left_out() -> None:
    bench = Bench()
    assert {bench.ask(), bench.ask()} == {1, 2}
    bench.balance.told(WorkerLoads({1: 1}, {1: STALL_S + 1.0}))
    bench.outstanding[2] += 10
    assert bench.send() == 2
    bench.balance.told(WorkerLoads({1: 0}, {1: 0.0}))
    assert bench.send() == 1


def test_what_is_not_routed_any_more_is_forgotten() -> None:
    bench = Bench()
    bench.make_sick(1)
    bench.balance.keep({Incarnation(2)})
    assert {bench.ask() for _ in range(2)} == {1, 2}
    bench.balance.answered(Incarnation(99), Code.INTERNAL)
    bench.balance.expired(Incarnation(99))
