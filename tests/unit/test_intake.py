"""Room for requests that are still on their way: who is refused, who gives way, and what it costs to find out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelpool.frontend import intake
from modelpool.frontend.intake import Intake, Place
from modelpool.frontend.model_queue import FULL
from modelpool.supervisor.wire.status import Overloaded

KIB, MIB = 1 << 10, 1 << 20


class Scene:
    """An intake for few, on a clock of its own, and requests that take places in it."""

    def __init__(self, most: int = 2, budget_bytes: int = MIB) -> None:
        self.now_s = 100.0
        self.intake = Intake(most, budget_bytes, lambda: self.now_s)
        self._places: dict[str, Place] = {}
        self._end: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[str]] = {}

    async def begins(self, name: str) -> None:
        """A request, of which nothing has come yet."""
        self._end[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._read(name))
        await asyncio.sleep(0)

    async def _read(self, name: str) -> str:
        try:
            with self.intake.place() as place:
                self._places[name] = place
                async with asyncio.timeout(60):
                    await self._end[name].wait()
        except Overloaded as error:
            return f"{error.status.code.name} {error.retry_after_ms}: {error.message}"
        return "whole"

    def came(self, name: str, size_bytes: int) -> bool:
        """So much more of it comes; False when it is refused for that."""
        try:
            self._places[name].came(size_bytes)
        except Overloaded:
            return False
        return True

    async def under_way(self) -> list[str]:
        """Those that have neither come whole nor been refused."""
        await asyncio.sleep(0)  # who has to give way has been told, and hears of it in the next turn
        await asyncio.sleep(0)
        return sorted(name for name, task in self._tasks.items() if not task.done())

    async def ends(self, name: str) -> str:
        """The rest has come, or it was refused before: how it ended."""
        self._end[name].set()
        return await self._tasks[name]


def run(scenario: Callable[[Scene], Awaitable[Any]], **bounds: int) -> Any:
    async def main() -> Any:
        scene = Scene(**bounds)
        async with asyncio.timeout(10):
            return await scenario(scene)

    return asyncio.run(main())


def test_whoever_finds_no_place_is_told_when_to_come_again() -> None:
    async def scenario(scene: Scene) -> Any:
        for name in ("a", "b", "c"):
            await scene.begins(name)
        refused = await scene.ends("c")
        ended = [await scene.ends("a"), await scene.ends("b")]
        await scene.begins("d")
        return refused, ended, await scene.ends("d"), scene.intake.requests

    refused, ended, later, left = run(scenario)
    assert refused == f"UNAVAILABLE 1000: {FULL}: 2 requests are still on their way"
    assert (ended, later, left) == (["whole"] * 2, "whole", 0)


def test_a_slow_sender_has_its_place_until_another_wants_it() -> None:
    async def scenario(scene: Scene) -> Any:
        await scene.begins("slow")
        await scene.begins("brisk")
        for _ in range(10):
            scene.now_s += 60.0
            assert scene.came("slow", KIB)
            assert scene.came("brisk", 80 * KIB * 60)
        await scene.begins("new")
        return [await scene.ends(name) for name in ("slow", "brisk", "new")], scene.intake.requests

    ended, left = run(scenario, budget_bytes=100 * MIB)
    assert ended == [
        f"UNAVAILABLE 1000: {FULL}: the request came too slowly, 10240 bytes in 600 s, and others wait",
        "whole",
        "whole",
    ]
    assert left == 0


def test_those_who_send_nothing_hold_their_places_for_a_few_seconds_only() -> None:
    async def scenario(scene: Scene) -> Any:
        seen = []
        await scene.begins("x")
        await scene.begins("y")
        for number in range(12):
            scene.now_s += 0.5
            await scene.begins(f"new {number}")
            seen.append((await scene.ends(f"new {number}")).partition(" ")[0])
        return seen

    assert run(scenario) == ["UNAVAILABLE"] * 10 + ["whole"] * 2


def test_a_flood_of_newcomers_does_not_have_all_places_looked_through_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0
    due_s = Place.due_s

    def counted(place: Place) -> float:
        nonlocal looked
        looked += 1
        return due_s(place)

    async def scenario(scene: Scene) -> None:
        for number in range(100):
            await scene.begins(str(number))
        monkeypatch.setattr(Place, "due_s", counted)
        for number in range(1000):
            scene.now_s += 0.001
            await scene.begins(f"new {number}")

    run(scenario, most=100)
    assert 0 < looked < 1000


def test_bytes_are_bounded_too_and_a_small_request_passes_all_the_same() -> None:
    async def scenario(scene: Scene) -> Any:
        for name in ("a", "b", "c"):
            await scene.begins(name)
        took = [scene.came("a", 900 * KIB), scene.came("c", 60 * KIB), scene.came("b", 200 * KIB)]
        return took, [await scene.ends(name) for name in "abc"], scene.intake.held_bytes

    took, ended, left = run(scenario, most=3)
    assert took == [True, True, False]
    assert (ended, left) == (["whole"] * 3, 0)


def test_one_that_is_bigger_than_all_the_room_passes_alone() -> None:
    async def scenario(scene: Scene) -> Any:
        await scene.begins("big")
        return scene.came("big", 5 * MIB), await scene.ends("big"), scene.intake.held_bytes

    assert run(scenario) == (True, "whole", 0)


def test_one_that_is_bigger_than_all_the_room_passes_beside_small_ones() -> None:
    async def scenario(scene: Scene) -> Any:
        for name in ("small", "big", "second"):
            await scene.begins(name)
        took = [scene.came("small", 10), scene.came("big", 5 * MIB), scene.came("small", 10), scene.came("big", MIB)]
        second = scene.came("second", 65 * KIB)
        return took, second, [await scene.ends(name) for name in ("small", "big", "second")], scene.intake.held_bytes

    assert run(scenario, most=3) == ([True] * 4, False, ["whole"] * 3, 0)


def test_small_ones_take_nothing_of_the_bytes_however_many_there_are() -> None:
    async def scenario(scene: Scene) -> Any:
        small = [f"small {number}" for number in range(20)]
        for name in ("first", "second", *small):
            await scene.begins(name)
        took = {scene.came(name, 64 * KIB) for name in small}
        big = [scene.came("first", 65 * KIB), scene.came("second", 65 * KIB)]
        held = scene.intake.held_bytes
        # One that grows is counted with all that has come of it.
        return took, big, held, scene.came(small[0], 1), scene.intake.held_bytes

    assert run(scenario, most=22) == ({True}, [True, True], 130 * KIB, True, 194 * KIB + 1)


def test_those_who_give_way_do_so_a_few_at_a_time_the_slowest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a task that wakes, and all others' calls wait for it."""
    monkeypatch.setattr(intake, "_MOST_AT_ONCE", 2)

    async def scenario(scene: Scene) -> Any:
        for number in range(5):
            await scene.begins(str(number))
            scene.now_s += 0.01
        scene.now_s += 60.0
        left = []
        for new in ("ab", "cd"):
            for name in new:
                await scene.begins(name)
            left.append(await scene.under_way())
            scene.now_s += 0.2
        return left

    assert run(scenario, most=5) == [["2", "3", "4", "a", "b"], ["4", "a", "b", "c", "d"]]


def test_bytes_of_a_slow_sender_make_room_for_another() -> None:
    async def scenario(scene: Scene) -> Any:
        await scene.begins("slow")
        await scene.begins("new")
        assert scene.came("slow", 900 * KIB)
        scene.now_s += 60.0
        took = scene.came("new", 800 * KIB)
        return took, await scene.ends("slow"), await scene.ends("new")

    took, slow, new = run(scenario)
    assert took
    assert "too slowly" in slow
    assert new == "whole"


def test_one_whose_own_time_is_up_in_the_same_moment() -> None:
    """Both cancel the task, and what it ends with is one of the two."""

    async def scenario(scene: Scene) -> Any:
        async def read() -> str:
            try:
                with scene.intake.place():
                    async with asyncio.timeout(None) as timeout:
                        begun.set_result(timeout)
                        await asyncio.Event().wait()
            except (Overloaded, TimeoutError) as error:
                return type(error).__name__
            return "whole"

        begun: asyncio.Future[asyncio.Timeout] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(read())
        timeout = await begun
        scene.now_s += 60.0
        timeout.reschedule(asyncio.get_running_loop().time())
        scene.intake.place()
        ended = await task
        return ended, task.cancelling()

    assert run(scenario, most=1) == ("Overloaded", 0)
