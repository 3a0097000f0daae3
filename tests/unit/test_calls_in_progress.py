"""Who is asked whether its client is still there, and when: many calls, few of which last."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from modelpool.frontend import calls_in_progress
from modelpool.frontend.calls_in_progress import CallsInProgress


class Call:
    """A `Watched` that is asked once, and notes the turn of the loop in which it is."""

    def __init__(self, asked: "Counter[int]") -> None:
        self.seen = False
        self.looks = 0
        self._asked = asked

    def look(self, now_ns: int) -> bool:
        self.looks += 1
        self._asked[now_ns] += self.looks == 1
        return self.looks == 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_in_progress, "_LOOK_S", 0.02)
    monkeypatch.setattr(calls_in_progress, "_SOON_S", 0.001)


def run(scenario: Callable[[CallsInProgress], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10):
            await scenario(CallsInProgress())

    asyncio.run(whole())


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - the fake tells nobody
        await asyncio.sleep(0)


def test_a_call_is_asked_after_the_second_look_and_one_that_is_over_never() -> None:
    async def scenario(calls: CallsInProgress) -> None:
        asked: Counter[int] = Counter()
        lasts, ends = Call(asked), Call(asked)
        for call in (lasts, ends):
            calls.add(call)
        calls.look_soon()
        await until(lambda: lasts.seen)
        assert lasts.looks == 0
        calls.discard(ends)
        await until(lambda: lasts.looks > 1)
        assert ends.looks == 0

    run(scenario)


def test_many_that_wait_are_asked_by_and_by() -> None:
    """One that comes meanwhile gets no younger look than else: it is not seen before the others are through."""

    async def scenario(calls: CallsInProgress) -> None:
        asked: Counter[int] = Counter()
        many = [Call(asked) for _ in range(2 * calls_in_progress._MOST_AT_ONCE + 1)]
        for call in many:
            calls.add(call)
        calls.look_soon()
        await until(lambda: bool(+asked))
        late = Call(asked)
        calls.add(late)
        while not all(call.looks for call in many):
            assert not late.seen
            await asyncio.sleep(0)
        await until(lambda: late.looks > 0)
        assert max(asked.values()) == calls_in_progress._MOST_AT_ONCE
        assert sum(asked.values()) == len(many) + 1

    run(scenario)


def test_nobody_looks_where_there_is_no_call() -> None:
    async def scenario(calls: CallsInProgress) -> None:
        call = Call(Counter())
        calls.add(call)
        calls.look_soon()
        await until(lambda: call.seen)
        calls.discard(call)
        await until(lambda: not calls._looking)
        again = Call(Counter())
        calls.add(again)
        calls.look_soon()
        await until(lambda: again.looks > 0)

    run(scenario)
