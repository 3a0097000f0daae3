"""The core alone, over links that only record: every accepted request gets exactly one answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.frontend.core import Core, Pending
from modelpool.frontend.model_spec import ModelSpec
from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.messages import ModelRoute, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, DeadlineExceeded, Unavailable

M = ModelSpec("m")


@dataclass
class FakeLink:
    on_message: Callable[[list[bytes]], None]
    full: bool = False
    closed: bool = False
    sent: list[data.RequestHeader] = field(default_factory=list)

    def send(self, *frames: bytes) -> bool:
        assert not self.closed
        if not self.full:
            self.sent.append(data.unpack_request(frames[0]))
        return not self.full

    def close(self) -> None:
        self.closed = True


class Bench:
    """A core, its links by incarnation, and the workers it has released."""

    def __init__(self, max_in_flight: int = 1000, worker_bytes: int = 1 << 30, total_bytes: int = 2 << 30) -> None:
        self.links: dict[int, FakeLink] = {}
        self.released: list[int] = []
        self.unreachable: set[int] = set()
        self.core = Core(self._connect, self.released.append, max_in_flight, worker_bytes, total_bytes)
        self.epoch = 0

    def _connect(self, route: WorkerRoute, on_message: Callable[[list[bytes]], None]) -> FakeLink:
        if route.incarnation in self.unreachable:
            raise Unavailable("no way")
        return self.links.setdefault(route.incarnation, FakeLink(on_message))

    def route(self, *workers: int) -> None:
        self.route_models(*([("m", workers)] if workers else []))

    def route_models(self, *served: tuple[str, tuple[int, ...]]) -> None:
        """A table of models with one version each, and the workers of that."""
        self.epoch += 1
        models = tuple(
            ModelRoute(
                name,
                (
                    VersionRoute(
                        1,
                        ServableState.AVAILABLE,
                        Code.OK,
                        "",
                        tuple(WorkerRoute(Incarnation(worker), "ipc://x") for worker in workers),
                    ),
                ),
                {},
            )
            for name, workers in served
        )
        assert self.core.swap_routes(RouteTable(self.epoch, models))
        self.core.release_idle()

    def submit(self, deadline_ns: int = NO_DEADLINE_NS, size_bytes: int = 0, model: str = "m") -> Pending:
        return self.core.submit(Method.PREDICT, bytes(size_bytes), ModelSpec(model), deadline_ns)

    def reply(self, worker: int, request_id: int, body: bytes = b"") -> None:
        self.links[worker].on_message([data.pack_reply(request_id, Code.OK), body])


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def test_the_reply_settles_once() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        pending = bench.submit()
        assert bench.core.in_flight() == {7: 1}
        bench.reply(7, pending.request_id, b"first")
        bench.reply(7, pending.request_id, b"second")
        bench.core.bury(Incarnation(7), "too late")
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
        bench = Bench(max_in_flight=2)
        bench.route(7)
        bench.links[7].full = True
        with pytest.raises(Unavailable, match="queue to which this task was submitted is full: model m version 1"):
            bench.submit()
        assert bench.core.in_flight() == {7: 0}
        bench.links[7].full = False
        bench.submit()
        bench.submit()
        with pytest.raises(Unavailable, match="is full"):
            bench.submit()
        assert len(bench.links[7].sent) == 2

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
        assert bench.submit().worker.incarnation == 8
        bench.unreachable.clear()
        bench.route(7)
        assert bench.submit().worker.incarnation == 7


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
        bench = Bench(worker_bytes=100, total_bytes=150)
        bench.route_models(("m", (7,)), ("n", (8,)))
        first = bench.submit(size_bytes=60)
        with pytest.raises(Unavailable) as caught:
            bench.submit(size_bytes=41)
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full: model m version 1: 41 bytes more "
            "than the 60 bytes in flight exceed the budget of 100 bytes of the model"
        )
        bench.submit(size_bytes=40)
        with pytest.raises(Unavailable) as caught:
            bench.submit(size_bytes=51, model="n")
        assert caught.value.message == (
            "The batch scheduling queue to which this task was submitted is full: model n version 1: 51 bytes more "
            "than the 100 bytes in flight exceed the budget of 150 bytes of all models together"
        )
        assert bench.links[8].sent == []
        bench.reply(7, first.request_id)
        bench.submit(size_bytes=51, model="n")
        assert bench.core.in_flight_bytes == 91

    in_loop(test)


def test_one_request_bigger_than_the_budget_passes_alone() -> None:
    async def test() -> None:
        bench = Bench(worker_bytes=100, total_bytes=150)
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

    EVENTS = ("submit", "reply", "drop", "expire", "bury", "fill", "replace")

    def __init__(self) -> None:
        self.bench = Bench(worker_bytes=100, total_bytes=150)
        self.serving = {"m": 1, "n": 2}
        self.waiting: list[tuple[Pending, int]] = []
        self._publish()

    def _publish(self) -> None:
        self.bench.route_models(*((name, (worker,)) for name, worker in self.serving.items()))

    def in_flight_bytes(self, worker: int | None = None) -> int:
        return sum(size for each, size in self.waiting if worker in (None, each.worker.incarnation))

    def check(self) -> None:
        assert self.bench.core.in_flight_bytes == self.in_flight_bytes()
        for each, _ in self.waiting:
            assert each.worker.in_flight_bytes == self.in_flight_bytes(each.worker.incarnation)

    def handle(self, event: str, number: int, size: int) -> None:
        if event in ("reply", "drop", "expire"):
            if self.waiting:
                self._settle(event, *self.waiting.pop(number % len(self.waiting)))
            return
        model = "mn"[number % 2]
        if event == "submit":
            self._submit(model, size)
        elif event == "fill":
            link = self.bench.links[self.serving[model]]
            link.full = not link.full
        else:
            self._replace(model, died=event == "bury")

    def _submit(self, model: str, size: int) -> None:
        worker = self.serving[model]
        used = ((self.in_flight_bytes(worker), 100), (self.in_flight_bytes(), 150))
        fits = all(not in_flight or in_flight + size <= budget for in_flight, budget in used)
        try:
            pending = self.bench.submit(time.monotonic_ns() + 3_600_000_000_000, size, model)
        except Unavailable:
            assert not fits or self.bench.links[worker].full
        else:
            assert fits
            self.waiting.append((pending, size))

    def _settle(self, event: str, pending: Pending, _: int) -> None:
        if event == "reply":
            self.bench.reply(int(pending.worker.incarnation), pending.request_id)
        elif event == "expire":
            self.bench.core._expire(pending)
        for _ in range(2):
            self.bench.core.drop(pending)

    def _replace(self, model: str, died: bool) -> None:
        old = self.serving[model]
        if died:
            self.bench.core.bury(Incarnation(old), "killed")
            self.waiting = [each for each in self.waiting if each[0].worker.incarnation != old]
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


EVENTS = st.lists(
    st.tuples(st.sampled_from(["submit", "reply", "drop", "bury", "route"]), st.integers(0, 7)), max_size=40
)


@settings(max_examples=100)
@given(EVENTS)
def test_any_order_of_events(events: list[tuple[str, int]]) -> None:
    async def test() -> None:
        bench = Bench()
        accepted: list[Pending] = []
        dropped: set[int] = set()
        buried: set[int] = set()
        serving: tuple[int, ...] = (1, 2)
        bench.route(*serving)
        for kind, number in events:
            pending = accepted[number % len(accepted)] if accepted else None
            if kind == "submit" and set(serving) - buried:
                accepted.append(bench.submit())
                assert accepted[-1].worker.incarnation in set(serving) - buried
            elif kind == "reply" and pending and not bench.links[pending.worker.incarnation].closed:
                bench.reply(pending.worker.incarnation, pending.request_id)
            elif kind == "drop" and pending and not pending.answer.done():
                bench.core.drop(pending)
                dropped.add(pending.request_id)
            elif kind == "bury":
                # The news of a death may come before the first table that names the worker.
                doomed = 1 + number % (serving[-1] + 1)
                buried.add(doomed)
                bench.core.bury(Incarnation(doomed), "killed")
            elif kind == "route":
                serving = (serving[-1], serving[-1] + 1)
                bench.route(*serving)
        waiting = [each for each in accepted if not each.answer.done() and each.request_id not in dropped]
        assert sum(bench.core.in_flight().values()) == len(waiting)
        for worker in list(bench.core.in_flight()):
            bench.core.bury(Incarnation(worker), "the end")
        assert all(each.answer.done() or each.request_id in dropped for each in accepted)
        assert bench.core.answered == len(accepted) - len(dropped)
        assert len(bench.released) == len(set(bench.released))
        assert all(link.closed for link in bench.links.values())

    in_loop(test)
