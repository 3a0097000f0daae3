"""Calls of models without a task: how much may wait for the loop, and what becomes of those of which nothing comes."""

import asyncio
import itertools
from typing import Any

import pytest

from modelpool.frontend import grpc_direct
from modelpool.frontend.grpc_frames import plain
from modelpool.frontend.model_queue import FULL
from modelpool.frontend.model_spec import ModelSpec
from modelpool.frontend.routes import Target
from modelpool.supervisor.wire.status import Code
from tests.unit.pyvoy_world import PLACES, REQUEST, Client, Scene, run


@pytest.fixture
def short_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "MOMENT_S", 0.01)
    monkeypatch.setattr(grpc_direct, "_SOON_S", 0.001)


@pytest.mark.usefixtures("short_moment")
def test_the_deadline_holds_for_a_call_of_which_nothing_comes() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy, headers=((b"grpc-timeout", b"50m"),)).start()
        answer = await client.answer()
        client.give(plain(REQUEST))  # too late
        other = Client(scene.pyvoy).start().give(plain(REQUEST))
        assert await scene.sent_to_worker() == [REQUEST]
        scene.bench.reply(7, 1, b"y")
        return answer, (await other.answer())[0], scene.told, len(client.sent), scene.intake.requests

    answer, other, told, sent, left = run(scenario)
    assert answer == (Code.DEADLINE_EXCEEDED, b"Deadline exceeded before the whole message had come")
    assert other is Code.OK
    assert told == [("Predict", "", Code.DEADLINE_EXCEEDED), ("Predict", "m", Code.OK)]
    assert (sent, left) == (3, 0)


@pytest.mark.usefixtures("short_moment")
def test_calls_of_which_nothing_comes_need_places() -> None:
    """One that has no place is refused; with one it goes on when its message comes, whole or in parts."""

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(PLACES)]
        async with asyncio.timeout(10):
            while scene.intake.requests < PLACES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        refused = await Client(scene.pyvoy).start().answer()
        whole, parts, gone = clients
        whole.give(plain(REQUEST))
        parts.give(plain(REQUEST)[:3], more_body=True)
        await parts.is_asked()
        parts.give(plain(REQUEST)[3:])
        gone.go()
        await scene.sent_to_worker(2)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        answers = [await client.answer() for client in (whole, parts)]
        return refused, answers, sorted(await scene.finished(4)), gone.sent, scene.intake.requests

    (code, text), answers, told, gone, left = run(scenario)
    assert code is Code.UNAVAILABLE
    assert text.startswith(FULL.encode())
    assert answers == [(Code.OK, plain(b"y"))] * 2
    assert told == sorted(
        [("Predict", "m", Code.OK)] * 2 + [("Predict", "", Code.UNAVAILABLE), ("Predict", "", Code.CANCELLED)]
    )
    assert (gone, left) == ([], 0)


@pytest.mark.usefixtures("short_moment")
def test_a_flood_of_calls_of_which_nothing_comes_does_not_keep_the_loop_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_AT_ONCE", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(9)]
        grown = [0]
        async with asyncio.timeout(10):
            while len(scene.told) < len(clients) - PLACES:
                await asyncio.sleep(0)
                grown.append(scene.intake.requests + len(scene.told))
        return max(after - before for before, after in itertools.pairwise(grown))

    assert run(scenario) == 2


def test_what_comes_faster_than_the_loop_turns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_WAITING", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(4)]
        for client in clients:
            client.give(plain(REQUEST))  # and the loop does not turn
        refused = [await client.answer() for client in clients[2:]]
        retry_after = dict(clients[3].sent[-1]["headers"])[b"retry-after"]
        later = Client(scene.pyvoy).start().give(plain(REQUEST))
        await scene.sent_to_worker(3)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        taken = [await client.answer() for client in (*clients[:2], later)]
        return taken, [code for code, text in refused if text.startswith(FULL.encode())], retry_after, scene.told

    taken, refused, retry_after, told = run(scenario)
    assert taken == [(Code.OK, plain(b"y"))] * 3
    assert refused == [Code.UNAVAILABLE] * 2
    assert retry_after == b"1"
    assert told == [("Predict", "", Code.UNAVAILABLE)] * 2 + [("Predict", "m", Code.OK)] * 3


def test_a_part_of_a_message_waits_for_the_loop_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_WAITING", 2)
    monkeypatch.setattr(grpc_direct, "_MOST_APART", 0)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(3)]
        for client in clients:
            client.give(plain(REQUEST)[:3], more_body=True)  # and the loop does not turn
        refused = await clients[2].answer()
        for client in clients[:2]:
            async with asyncio.timeout(10):
                while not client.asked:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            client.give(plain(REQUEST)[3:])
        await scene.sent_to_worker(2)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        return refused[0], [await client.answer() for client in clients[:2]], scene.told

    refused, taken, told = run(scenario)
    assert refused is Code.UNAVAILABLE
    assert taken == [(Code.OK, plain(b"y"))] * 2
    assert told == [("Predict", "", Code.UNAVAILABLE)] + [("Predict", "m", Code.OK)] * 2


def test_so_many_messages_are_put_together_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others need places, of which there are fewer than calls here."""
    monkeypatch.setattr(grpc_direct, "_MOST_APART", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(3 + PLACES)]
        for client in clients:
            client.give(plain(REQUEST)[:7], more_body=True)
        refused = await clients[-1].answer()
        held = scene.intake.requests
        for client in clients[:-1]:
            await client.is_asked()
            client.give(plain(REQUEST)[7:])
        await scene.sent_to_worker(2 + PLACES)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        answers = [await client.answer() for client in clients[:-1]]
        return refused[0], held, {code for code, _ in answers}, scene.intake.requests, len(scene.app.apart)

    assert run(scenario) == (Code.UNAVAILABLE, PLACES, {Code.OK}, 0, 0)


@pytest.mark.usefixtures("short_moment")
def test_a_message_whose_end_is_late_needs_a_place() -> None:
    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start().give(plain(REQUEST)[:7], more_body=True) for _ in range(PLACES)]
        async with asyncio.timeout(10):
            while scene.intake.requests < PLACES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        refused = Client(scene.pyvoy).start().give(plain(REQUEST)[:7], more_body=True)
        answer = await refused.answer()
        refused.give(plain(REQUEST)[7:9], more_body=True)  # nobody wants it any more
        for client in clients:
            client.give(plain(REQUEST)[7:])
        await scene.sent_to_worker(PLACES)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        answers = [await client.answer() for client in clients]
        return answer[0], refused.asked, {code for code, _ in answers}, scene.intake.requests, len(scene.app.apart)

    assert run(scenario) == (Code.UNAVAILABLE, [], {Code.OK}, 0, 0)


def test_a_turn_of_the_loop_takes_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else calls that come as fast as they are begun would keep the loop to themselves."""
    turns: list[list[bytes]] = []

    async def scenario(scene: Scene) -> Any:
        first, second = (Client(scene.pyvoy).start() for _ in range(2))
        find = scene.bench.core.routes.find

        def find_when_another_comes(spec: ModelSpec | None) -> Target:
            if second.asked:
                scene.app.loop.call_soon(lambda: turns.append(list(scene.bench.links[7].payloads)))
                second.give(plain(REQUEST))
            return find(spec)

        monkeypatch.setattr(scene.bench.core.routes, "find", find_when_another_comes)
        first.give(plain(REQUEST))
        await scene.sent_to_worker(2)

    run(scenario)
    assert turns == [[REQUEST]]
