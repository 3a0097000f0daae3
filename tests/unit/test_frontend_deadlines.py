"""One timer for the deadlines of all requests in flight."""

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.frontend.deadlines import Deadlines
from modelpool.frontend.in_flight import Awaited, Pending
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method

MS_NS = 1_000_000


class Bench:
    """Deadlines, and what has expired; each is checked not to be early."""

    def __init__(self) -> None:
        self.in_flight: dict[int, Pending] = {}
        self.deadlines = Deadlines(self.in_flight, self._expired)
        self.expired: list[int] = []
        self.began_ns = time.monotonic_ns()
        self.all_there = asyncio.Event()
        self.expected = 0

    def add(self, number: int, after_ms: float | None) -> Pending:
        """As the core does; None: a request without a deadline."""
        deadline_ns = NO_DEADLINE_NS if after_ms is None else self.began_ns + int(after_ms * MS_NS)
        answer = asyncio.get_running_loop().create_future()
        pending = Awaited(Method.PREDICT, b"", None, deadline_ns, answer)
        pending.request_id = number
        self.in_flight[number] = pending
        if deadline_ns != NO_DEADLINE_NS and deadline_ns < self.deadlines.first_ns:
            self.deadlines.expect(deadline_ns)
        return pending

    def _expired(self, pending: Pending) -> None:
        assert time.monotonic_ns() >= pending.deadline_ns
        del self.in_flight[pending.request_id]
        self.expired.append(pending.request_id)
        if len(self.expired) == self.expected:
            self.all_there.set()

    async def all_of(self, count: int) -> list[int]:
        self.expected = count
        if len(self.expired) < count:
            self.all_there.clear()
            async with asyncio.timeout(10):
                await self.all_there.wait()
        return self.expired


AFTER_MS = st.one_of(st.none(), st.integers(-5, 20), st.just(3_600_000))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(AFTER_MS, st.booleans(), st.booleans()), max_size=12))
def test_each_that_is_not_removed_expires_once(requests: list[tuple[int | None, bool, bool]]) -> None:
    """Some come when others have expired already."""

    async def main() -> tuple[list[int], list[int]]:
        bench = Bench()
        due = []
        for number, (after_ms, is_removed, comes_late) in enumerate(requests, 1):
            if comes_late:
                await bench.all_of(len(due))
            bench.add(number, after_ms)
            if is_removed:
                del bench.in_flight[number]
            elif after_ms is not None and after_ms <= 20:
                due.append(number)
        return due, await bench.all_of(len(due))

    due, expired = asyncio.run(main())
    assert sorted(expired) == due


def test_an_earlier_deadline_does_not_wait_for_a_later_one() -> None:
    async def main() -> list[int]:
        bench = Bench()
        bench.add(1, 1e12)
        bench.add(2, 3_600_000)
        bench.add(3, 5)
        return await bench.all_of(1)

    assert asyncio.run(main()) == [3]


def test_one_that_comes_while_another_expires() -> None:
    async def main() -> list[int]:
        bench = Bench()
        expired = bench._expired

        def add_another(pending: Pending) -> None:
            if pending.request_id == 1:
                bench.add(2, 0)
            expired(pending)

        bench.deadlines = Deadlines(bench.in_flight, add_another)
        bench.add(1, 1)
        return await bench.all_of(2)

    assert asyncio.run(main()) == [1, 2]


def test_of_those_that_are_gone_few_are_kept() -> None:
    """Though their deadlines are far away, and others' pass all the time."""

    async def main() -> int:
        bench = Bench()
        most = 0
        for number in range(1, 1001):
            bench.add(number, 3_600_000)
            if number % 10 == 0:
                bench.deadlines._look()
                for gone in range(number - 9, number + 1):
                    del bench.in_flight[gone]
            most = max(most, len(bench.deadlines._heap))
        return most

    assert asyncio.run(main()) < 100
