"""gRPC over ASGI: messages that do not come, or not at once, and how many calls may be under way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelpool.frontend import grpc_asgi
from modelpool.frontend.grpc_asgi import GrpcApp
from modelpool.frontend.grpc_frames import plain
from modelpool.frontend.intake import Intake
from modelpool.supervisor.wire.status import Code
from tests.unit.grpc_asgi_world import GRPC, LIMIT, TE, WATCH, Client, Handlers, answered, run


def test_the_deadline_holds_for_a_message_that_does_not_come() -> None:
    async def scenario(app: GrpcApp, _: Handlers) -> Any:
        client = Client(b"\0\0", b"", headers=(GRPC, TE, (b"grpc-timeout", b"20m")))
        del client._events[1]
        await client.call(app)
        return client.status

    assert run(scenario) == (Code.DEADLINE_EXCEEDED, "Deadline exceeded before the whole message had come")


@pytest.mark.parametrize(
    ("path", "other", "text"),
    [
        ("/s/Wait", WATCH, "2 calls that ask no model are under way"),
        (WATCH, "/s/Echo", "2 streams are under way"),
    ],
)
def test_calls_that_ask_no_model_are_bounded_and_streams_apart(
    monkeypatch: pytest.MonkeyPatch, path: str, other: str, text: str
) -> None:
    """A stream lasts as long as its client likes, and many of them must not keep a health check out."""
    monkeypatch.setattr(grpc_asgi, "_MOST_OTHERS", 2)
    monkeypatch.setattr(grpc_asgi, "_MOST_STREAMS", 2)

    async def scenario(app: GrpcApp, _: Handlers) -> Any:
        waiting = [Client(plain(b"x")) for _ in range(2)]
        calls = [asyncio.create_task(client.call(app, path)) for client in waiting]
        while app._others._count + app._streaming._count < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        refused = await Client(plain(b"x")).call(app, path)
        assert refused.status[1].endswith(text)
        beside = Client(plain(b"x"))
        calls.append(asyncio.create_task(beside.call(app, other)))
        while not beside.sent:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        for client in (*waiting, beside):
            client.gone.set()
        await asyncio.gather(*calls)
        return refused.status[0], beside.body, (await Client(plain(b"x")).call(app)).status

    assert run(scenario) == (Code.UNAVAILABLE, plain(b"x"), (Code.OK, ""))


def crowded(scenario: Callable[[GrpcApp, Intake], Awaitable[Any]]) -> Any:
    """In an application with one place, which somebody slow has."""

    async def main() -> Any:
        intake = Intake(most=1)
        app = GrpcApp(Handlers().methods, LIMIT, {}, intake)
        slow = Client(b"\0\0", b"")
        del slow._events[1]
        task = asyncio.create_task(slow.call(app))
        async with asyncio.timeout(10):
            while not intake.requests:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            found = await scenario(app, intake)
            slow.gone.set()
            await task
        return found, intake.requests

    return asyncio.run(main())


def test_a_message_that_comes_at_once_needs_no_place() -> None:
    async def scenario(app: GrpcApp, _: Intake) -> Any:
        whole, parts = Client(plain(b"x")), Client(b"\0", plain(b"x")[1:])
        return [(await client.call(app)).status[0] for client in (whole, parts)]

    assert crowded(scenario) == ([Code.OK, Code.UNAVAILABLE], 0)


def test_a_call_whose_message_does_not_come_needs_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_asgi, "MOMENT_S", 0.01)

    async def scenario(app: GrpcApp, _: Intake) -> Any:
        return (await Client().call(app)).status[0]

    assert crowded(scenario) == (Code.UNAVAILABLE, 0)


@pytest.mark.parametrize("moment_s", [0.001, 60.0])
def test_the_deadline_holds_for_a_call_of_which_nothing_comes(moment_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_asgi, "MOMENT_S", moment_s)
    client = answered(headers=(GRPC, TE, (b"grpc-timeout", b"20m")))
    assert client.status == (Code.DEADLINE_EXCEEDED, "Deadline exceeded before the whole message had come")
