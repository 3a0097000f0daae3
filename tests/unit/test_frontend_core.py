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

    def __init__(self, max_in_flight: int = 1000) -> None:
        self.links: dict[int, FakeLink] = {}
        self.released: list[int] = []
        self.unreachable: set[int] = set()
        self.core = Core(self._connect, self.released.append, max_in_flight)
        self.epoch = 0

    def _connect(self, route: WorkerRoute, on_message: Callable[[list[bytes]], None]) -> FakeLink:
        if route.incarnation in self.unreachable:
            raise Unavailable("no way")
        return self.links.setdefault(route.incarnation, FakeLink(on_message))

    def route(self, *workers: int) -> None:
        self.epoch += 1
        routes = tuple(WorkerRoute(Incarnation(worker), "ipc://x") for worker in workers)
        entry = VersionRoute(1, ServableState.AVAILABLE, Code.OK, "", routes)
        models = (ModelRoute("m", (entry,), {}),) if workers else ()
        assert self.core.swap_routes(RouteTable(self.epoch, models))
        self.core.release_idle()

    def submit(self, deadline_ns: int = NO_DEADLINE_NS) -> Pending:
        return self.core.submit(Method.PREDICT, b"", M, deadline_ns)

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


def test_an_unreachable_worker_makes_its_version_unavailable() -> None:
    async def test() -> None:
        bench = Bench()
        bench.unreachable.add(7)
        bench.route(7)
        with pytest.raises(Unavailable, match="no way"):
            bench.submit()
        bench.route(7, 8)
        assert bench.submit().worker.incarnation == 8

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
