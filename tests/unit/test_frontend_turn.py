"""What is done at the end of a turn: once, by who holds the turn or else by the loop, and never twice."""

import asyncio
from collections.abc import Awaitable, Callable

from modelpool.frontend.turn import Turn


def in_loop(test: Callable[[Turn, list[str]], Awaitable[None]]) -> list[str]:
    async def run() -> list[str]:
        done: list[str] = []
        assert Turn.of_loop() is Turn.of_loop()
        await test(Turn.of_loop(), done)
        return done

    return asyncio.run(run())


def test_the_loop_ends_a_turn_that_nobody_holds() -> None:
    async def test(turn: Turn, done: list[str]) -> None:
        turn.at_end(lambda: done.append("a"))
        turn.at_end(lambda: done.append("b"))
        assert done == []
        await asyncio.sleep(0)
        assert done == ["a", "b"]
        await asyncio.sleep(0)

    assert in_loop(test) == ["a", "b"]


def test_who_holds_a_turn_ends_it() -> None:
    async def test(turn: Turn, done: list[str]) -> None:
        turn.at_end(lambda: done.append("before"))
        turn.hold()
        turn.at_end(lambda: done.append("held"))
        turn.end()
        assert done == ["before", "held"]
        turn.at_end(lambda: done.append("after"))
        assert done == ["before", "held"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert in_loop(test) == ["before", "held", "after"]


def test_what_is_asked_for_at_the_end_comes_in_the_next_turn() -> None:
    async def test(turn: Turn, done: list[str]) -> None:
        turn.hold()
        turn.at_end(lambda: turn.at_end(lambda: done.append("next")))
        turn.end()
        assert done == []
        await asyncio.sleep(0)

    assert in_loop(test) == ["next"]


def test_each_loop_has_its_own() -> None:
    async def turn_of() -> Turn:
        return Turn.of_loop()

    assert asyncio.run(turn_of()) is not asyncio.run(turn_of())
