"""What pyvoy lacks of ASGI, and what the REST application is given instead."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from modelpool.frontend import rest_pyvoy
from modelpool.frontend.engine import AsgiApp, Receive, Send

START = {"type": "http.response.start", "status": 413, "headers": []}
ANSWER = {"type": "http.response.body", "body": b"too much"}
END = {"type": "http.response.body", "body": b""}
GONE = {"type": "http.disconnect"}


def part(more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x", "more_body": more}


class Client:
    """Gives parts of a request, then the last one for ever as pyvoy does, and keeps what is sent."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = list(events)
        self.received = 0
        self.sent: list[tuple[int, Any]] = []

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        self.received += 1
        return self._events.pop(0) if len(self._events) > 1 else self._events[0]

    async def send(self, event: Any) -> None:
        self.sent.append((self.received, event))

    def run(self, app: AsgiApp, method: str = "POST") -> list[Any]:
        async def call() -> None:
            await rest_pyvoy.complete(app)({"method": method}, self.receive, self.send)

        asyncio.run(call())
        return [event for _, event in self.sent]


def after(parts: int) -> AsgiApp:
    """Answers when it has read so many parts."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for _ in range(parts):
            await receive()
        await send(START)
        await send(ANSWER)

    return app


def test_an_early_answer_goes_out_at_once_and_ends_with_the_request() -> None:
    client = Client(part(True), part(True), part(True), part(False))
    assert client.run(after(1)) == [START, {**ANSWER, "more_body": True}, END]
    assert [received for received, _ in client.sent] == [1, 1, 4]


@pytest.mark.parametrize("last", [part(False), GONE])
def test_an_answer_to_a_whole_request_is_left_as_it_is(last: dict[str, Any]) -> None:
    client = Client(part(True), last)
    assert client.run(after(2)) == [START, ANSWER]


def test_an_answer_to_head_has_no_body() -> None:
    assert Client(part(False)).run(after(1), "HEAD") == [START, END]
    assert Client(part(True), part(False)).run(after(1), "HEAD") == [START, {**END, "more_body": True}, END]


def test_a_client_that_goes_on_sending_is_not_listened_to_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_pyvoy, "_LINGER_S", 0.01)
    assert Client(part(True)).run(after(1)) == [START, {**ANSWER, "more_body": True}, END]


def test_who_waits_for_the_end_of_a_client_is_told_once() -> None:
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        assert await receive() == part(False)
        assert await receive() == GONE

    client = Client(part(False), part(False), part(False), GONE)
    assert client.run(app) == []
    assert client.received == 4


def test_the_longer_somebody_waits_the_less_often_pyvoy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await really_sleep(0)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        assert await receive() == GONE

    monkeypatch.setattr(rest_pyvoy.asyncio, "sleep", sleep)
    Client(*[part(False)] * 20, GONE).run(app)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.05
    assert pauses[-1] == pauses[-2] <= 0.5
    assert sum(pauses) > 4
