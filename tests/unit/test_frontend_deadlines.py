"""One timer for the deadlines of all requests in flight."""

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.frontend.deadlines import Deadlines
from modelpool.frontend.in_flight import Pending
from modelpool.frontend.model_queue import ModelQueue
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.ids import ServableId

QUEUE = ModelQueue("m", 1)
MS_NS = 1_000_000


class Bench:
    """Deadlines, and what has expired; each is checked not to be early."""

    def __init__(self) -> None:
        self.deadlines = Deadlines(self._expired)
        self.expired: list[int] = []
        self.began_ns = time.monotonic_ns()
        self.all_there = asyncio.Event()
        self.expected = 0

    def request(self, number: int, after_ms: float) -> Pending:
        deadline_ns = self.began_ns + int(after_ms * MS_NS)
        sink = asyncio.get_running_loop().create_future()
        return Pending(number, Method.PREDICT, b"", None, deadline_ns, ServableId("m", 1), QUEUE, sink)

    def _expired(self, pending: Pending) -> None:
        assert time.monotonic_ns() >= pending.deadline_ns
        self.deadlines.remove(pending)
        self.expired.append(pending.request_id)
        if len(self.expired) == self.expected:
            self.all_there.set()

    async def all_of(self, count: int) -> list[int]:
        self.expected = count
        if len(self.expired) < count:
            async with asyncio.timeout(10):
                await self.all_there.wait()
        return self.expired


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(-5, 20), st.booleans()), max_size=12))
def test_each_that_is_not_removed_expires_once(requests: list[tuple[int, bool]]) -> None:
    async def main() -> list[int]:
        bench = Bench()
        pendings = [bench.request(number, after_ms) for number, (after_ms, _) in enumerate(requests)]
        for pending in pendings:
            bench.deadlines.add(pending)
        for pending, (_, removed) in zip(pendings, requests, strict=True):
            if removed:
                bench.deadlines.remove(pending)
        return await bench.all_of(sum(not removed for _, removed in requests))

    expired = asyncio.run(main())
    assert sorted(expired) == [number for number, (_, removed) in enumerate(requests) if not removed]


def test_an_earlier_deadline_does_not_wait_for_a_later_one() -> None:
    async def main() -> list[int]:
        bench = Bench()
        bench.deadlines.add(bench.request(1, 1e12))
        bench.deadlines.add(bench.request(2, 3_600_000))
        bench.deadlines.add(bench.request(3, 5))
        return await bench.all_of(1)

    assert asyncio.run(main()) == [3]


def test_one_that_comes_while_another_expires() -> None:
    async def main() -> list[int]:
        bench = Bench()
        second = bench.request(2, 0)
        expired = bench._expired

        def add_another(pending: Pending) -> None:
            if pending is not second:
                bench.deadlines.add(second)
            expired(pending)

        bench.deadlines = Deadlines(add_another)
        bench.deadlines.add(bench.request(1, 1))
        return await bench.all_of(2)

    assert asyncio.run(main()) == [1, 2]
