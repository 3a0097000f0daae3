"""The core alone, over links that only record: every accepted request gets exactly one answer."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.frontend.in_flight import Awaited, Bounds
from modelpool.frontend.model_spec import ModelSpec
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.supervisor.wire.route_table import RequestRules
from modelpool.supervisor.wire.status import Code, DeadlineExceeded, Overloaded, PoolError, Status, Unavailable
from tests.unit.core_bench import Bench, in_loop, worker_of

M = ModelSpec("m")


def test_the_reply_settles_once() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        pending = bench.submit()
        assert bench.core.in_flight() == {7: 1}
        bench.reply(7, pending.request_id, b"first")
        bench.reply(7, pending.request_id, b"second")
        bench.die(7, [pending.request_id])
        assert pending.answer.result() == (Code.OK, b"first")
        assert (bench.core.answered, bench.core.in_flight()) == (1, {})

    in_loop(test)


def test_a_reply_of_another_worker_is_ignored() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7, 8)
        pending = bench.submit()
        bench.reply(8, pending.request_id)
        assert not pending.answer.done()

    in_loop(test)


def test_a_full_link_is_an_answer_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(max_queued_requests=2))
        bench.route(7)
        bench.links[7].full = True
        with pytest.raises(Overloaded, match="queue to which this task was submitted is full: model m: its worker"):
            bench.submit()
        assert bench.core.in_flight() == {7: 0}
        bench.links[7].full = False
        bench.submit()
        bench.submit()
        with pytest.raises(Overloaded, match="is full: model m: 2 requests wait"):
            bench.submit()
        assert len(bench.links[7].sent) == 2

    in_loop(test)


def test_a_queue_grows_with_the_workers_and_is_shared_by_the_frontends() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(max_queued_requests=3), Bounds(frontends=2))
        bench.route_models(("m", (7, 8)), ("n", (9,)))
        for _ in range(3):
            bench.submit()
        with pytest.raises(Overloaded):
            bench.submit()
        for _ in range(2):
            bench.submit(model="n")  # one model's overload takes nothing from the others
        with pytest.raises(Overloaded):
            bench.submit(model="n")

    in_loop(test)


def test_a_refusal_says_when_to_ask_again() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(max_queued_requests=1))
        bench.route(7)
        pending = bench.submit()
        with pytest.raises(Overloaded) as caught:
            bench.submit()
        assert caught.value.retry_after_ms > 0
        bench.reply(7, pending.request_id, b"busy", Code.RESOURCE_EXHAUSTED, 250)
        error = pending.answer.exception()
        assert isinstance(error, PoolError)
        assert (error.status, error.retry_after_ms) == (Status(Code.RESOURCE_EXHAUSTED, "busy"), 250)

    in_loop(test)


def test_the_deadline_answers_and_a_past_one_is_not_sent() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        with pytest.raises(DeadlineExceeded):
            bench.submit(time.monotonic_ns() - 1)
        assert bench.links[7].sent == []
        pending = bench.submit(time.monotonic_ns() + 10_000_000)
        code, _ = await asyncio.wait_for(pending.answer, 5)
        assert code is Code.DEADLINE_EXCEEDED
        bench.reply(7, pending.request_id)
        assert bench.core.in_flight() == {7: 0}
        assert bench.links[7].cancelled == [pending.request_id]

    in_loop(test)


def test_a_cancelled_caller_drops_its_request_and_frees_the_worker() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        caller = asyncio.create_task(bench.core.call(Method.PREDICT, b"", M, NO_DEADLINE_NS))
        await asyncio.sleep(0)
        bench.route()
        assert bench.released == []
        caller.cancel()
        await asyncio.wait([caller])
        assert bench.released == [7]
        assert bench.links[7].cancelled == [1]
        assert bench.links[7].closed
        bench.reply(7, 1)

    in_loop(test)


def test_routes_to_an_unreachable_worker_are_not_taken_and_the_old_ones_hold() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(8)
        bench.unreachable.add(7)
        with pytest.raises(Unavailable, match="no way"):
            bench.route(7)
        assert worker_of(bench.submit()) == 8
        bench.unreachable.clear()
        bench.route(7)
        assert worker_of(bench.submit()) == 7

    in_loop(test)


def test_a_worker_that_could_never_be_reached_is_released_when_it_is_named_no_more() -> None:
    async def test() -> None:
        bench = Bench()
        bench.unreachable.add(7)
        with pytest.raises(Unavailable, match="no way"):
            bench.route(7)
        bench.route(8)
        bench.core.release_idle()
        assert bench.released == [7]

    in_loop(test)


@pytest.mark.parametrize("seconds", [1e10, 1e15])
def test_a_deadline_beyond_all_clocks_is_no_error(seconds: float) -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        pending = bench.submit(time.monotonic_ns() + int(seconds * 1e9))
        assert bench.links[7].sent[0].deadline_ns == (1 << 63) - 1
        bench.reply(7, pending.request_id, b"y")
        assert pending.answer.result() == (Code.OK, b"y")

    in_loop(test)


def test_the_budget_of_a_worker_and_of_all() -> None:
    async def test() -> None:
        bench = Bench(bounds=Bounds(model_bytes=100, total_bytes=150))
        bench.route_models(("m", (7,)), ("n", (8,)))
        first = bench.submit(size_bytes=60)
        with pytest.raises(Unavailable) as caught:
            bench.submit(size_bytes=41)
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full: model m: 41 bytes more "
            "than the 60 bytes in flight exceed the budget of 100 bytes of the model"
        )
        bench.submit(size_bytes=40)
        with pytest.raises(Unavailable) as caught:
            bench.submit(size_bytes=51, model="n")
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full: model n: 51 bytes more "
            "than the 100 bytes in flight exceed the budget of 150 bytes of all models together"
        )
        assert bench.links[8].sent == []
        bench.reply(7, first.request_id)
        bench.submit(size_bytes=51, model="n")
        assert bench.core.in_flight_bytes == 91

    in_loop(test)


def test_one_request_bigger_than_the_budget_passes_alone() -> None:
    async def test() -> None:
        bench = Bench(bounds=Bounds(model_bytes=100, total_bytes=150))
        bench.route_models(("m", (7,)), ("n", (8,)))
        big = bench.submit(size_bytes=1000)
        for model in ("m", "n"):
            with pytest.raises(Unavailable, match="exceed the budget"):
                bench.submit(size_bytes=1, model=model)
        bench.core.drop(big)
        bench.submit(size_bytes=1)
        with pytest.raises(Unavailable, match="exceed the budget"):
            bench.submit(size_bytes=1000)

    in_loop(test)


class Ledger:
    """A core of two models, and beside it what must be in flight after each event."""

    EVENTS = ("submit", "reply", "drop", "expire", "die", "fill", "replace")

    def __init__(self) -> None:
        self.bench = Bench(bounds=Bounds(model_bytes=100, total_bytes=150))
        self.serving = {"m": 1, "n": 2}
        self.waiting: list[Awaited] = []
        self._publish()

    def _publish(self) -> None:
        self.bench.route_models(*((name, (worker,)) for name, worker in self.serving.items()))

    def in_flight_bytes(self, model: str | None = None) -> int:
        return sum(len(each.payload) for each in self.waiting if model in (None, each.servable.name))

    def check(self) -> None:
        self.waiting = [each for each in self.waiting if not each.answer.done()]
        assert self.bench.core.in_flight_bytes == self.in_flight_bytes()
        for each in self.waiting:
            assert each.queue.in_flight_bytes == self.in_flight_bytes(each.servable.name)

    def handle(self, event: str, number: int, size: int) -> None:
        if event in ("reply", "drop", "expire"):
            if self.waiting:
                self._settle(event, self.waiting.pop(number % len(self.waiting)))
            return
        model = "mn"[number % 2]
        if event == "submit":
            self._submit(model, size)
        elif event == "fill":
            link = self.bench.links[self.serving[model]]
            link.full = not link.full
        else:
            self._replace(model, died=event == "die")

    def _submit(self, model: str, size: int) -> None:
        used = ((self.in_flight_bytes(model), 100), (self.in_flight_bytes(), 150))
        fits = all(not in_flight or in_flight + size <= budget for in_flight, budget in used)
        try:
            pending = self.bench.submit(time.monotonic_ns() + 3_600_000_000_000, size, model)
        except Overloaded:
            assert not fits or self.bench.links[self.serving[model]].full
        else:
            assert fits
            self.waiting.append(pending)

    def _settle(self, event: str, pending: Awaited) -> None:
        if event == "reply":
            self.bench.reply(worker_of(pending), pending.request_id)
        elif event == "expire":
            self.bench.core._expire(pending)
        for _ in range(2):
            self.bench.core.drop(pending)

    def _replace(self, model: str, died: bool) -> None:
        if died:
            self.bench.die(self.serving[model])
            self.check()
        self.serving[model] = max(self.serving.values()) + 1
        self._publish()


LEDGER_EVENTS = st.tuples(
    st.sampled_from(Ledger.EVENTS), st.integers(0, 9), st.sampled_from([0, 1, 30, 49, 50, 51, 120])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LEDGER_EVENTS, max_size=50))
def test_bytes_are_counted_once_and_given_back_once(events: list[tuple[str, int, int]]) -> None:
    async def test() -> None:
        ledger = Ledger()
        for event in events:
            ledger.handle(*event)
            ledger.check()
        while ledger.waiting:
            ledger.handle("drop", 0, 0)
        assert ledger.bench.core.in_flight_bytes == 0

    in_loop(test)
