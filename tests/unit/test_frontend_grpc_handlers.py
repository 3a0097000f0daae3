"""What is told of each finished call of a model."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelpool.frontend.core import Core
from modelpool.frontend.grpc_handlers import ServingHandlers
from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import Code, PoolError, Status, Unavailable

REQUEST: bytes = GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class FakeCall:
    """A call with a deadline, or none."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self.deadline_ns = data.NO_DEADLINE_NS if remaining_s is None else time.monotonic_ns() + int(remaining_s * 1e9)

    def metadata(self, key: str) -> str | None:
        return None


class FakeCore(Core):
    """Answers with what `answer` returns or raises."""

    def __init__(self, answer: Callable[[], Awaitable[tuple[Code, bytes]]]) -> None:
        self._answer = answer

    async def call(self, *_: Any) -> tuple[Code, bytes]:
        return await self._answer()


class Told:
    """Collects what is told, without the times."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Code]] = []

    def __call__(self, api: str, model: str, code: Code, started_ns: int) -> None:
        assert started_ns > 0
        self.calls.append((api, model, code))


async def _reload(_: bytes) -> Status:
    return Status()


def call(answer: Callable[[], Awaitable[tuple[Code, bytes]]], told: Told, fake: FakeCall) -> Awaitable[bytes]:
    return ServingHandlers(FakeCore(answer), _reload, told).methods.unary[PREDICT](REQUEST, fake)


async def _fine() -> tuple[Code, bytes]:
    return Code.OK, b"reply"


async def _refused() -> tuple[Code, bytes]:
    return Code.NOT_FOUND, b"text"


async def _unavailable() -> tuple[Code, bytes]:
    raise Unavailable("gone")


async def _broken() -> tuple[Code, bytes]:
    raise ZeroDivisionError


async def _forever() -> tuple[Code, bytes]:
    await asyncio.Event().wait()
    raise AssertionError("not reached")


def test_an_answer() -> None:
    told = Told()
    assert asyncio.run(_run(_fine, told, FakeCall())) == b"reply"
    assert told.calls == [("Predict", "m", Code.OK)]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (_refused, Code.NOT_FOUND, "text"),
        (_unavailable, Code.UNAVAILABLE, "gone"),
    ],
)
def test_an_error(answer: Callable[[], Awaitable[tuple[Code, bytes]]], code: Code, text: str) -> None:
    told = Told()
    with pytest.raises(PoolError) as caught:
        asyncio.run(_run(answer, told, FakeCall()))
    assert caught.value.status == Status(code, text)
    assert told.calls == [("Predict", "m", code)]


def test_a_bug() -> None:
    told = Told()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_run(_broken, told, FakeCall()))
    assert told.calls == [("Predict", "m", Code.INTERNAL)]


@pytest.mark.parametrize(
    ("remaining_s", "code"), [(None, Code.CANCELLED), (1000.0, Code.CANCELLED), (0.0, Code.DEADLINE_EXCEEDED)]
)
def test_a_client_that_waits_no_more(remaining_s: float | None, code: Code) -> None:
    told = Told()

    async def scenario() -> None:
        task = asyncio.ensure_future(call(_forever, told, FakeCall(remaining_s)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert told.calls == [("Predict", "m", code)]


async def _run(answer: Callable[[], Awaitable[tuple[Code, bytes]]], told: Told, fake: FakeCall) -> bytes:
    return await call(answer, told, fake)
