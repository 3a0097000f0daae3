"""A fake of pyvoy for calls of models: its thread, its futures, clients that go; behind it a core with one worker."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from modelpool.frontend.envoy_loop import Begun, GuestLoop
from modelpool.frontend.grpc_asgi import GrpcApp
from modelpool.frontend.grpc_direct import DirectGrpc
from modelpool.frontend.grpc_handlers import ServingHandlers
from modelpool.frontend.intake import Intake
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import Code, Status
from tests.unit.core_bench import Bench

REQUEST: bytes = GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()
PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
LIMIT = 1000
PLACES = 3
GONE = {"type": "http.disconnect"}


class Pyvoy:
    """Does what pyvoy does, in a thread of its own, with the loop and the application that it is given."""

    def __init__(self, app: Any, host: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = GuestLoop(host)  # type: ignore[abstract]

    def run(self, work: Callable[[], None]) -> None:
        """As pyvoy has something done for which it has no time to wait."""
        thread = threading.Thread(target=lambda: self.loop.call_soon_threadsafe(work))
        thread.start()
        thread.join(10)


class Client:
    """One call. Each part of its body, and its end, is given to who asks for it."""

    def __init__(self, pyvoy: Pyvoy, path: str = PREDICT, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._pyvoy = pyvoy
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *headers],
        }
        self.asked: list[Any] = []
        self.sent: list[Any] = []
        self.was_begun = self.is_broken = False
        self.ended = asyncio.Event()
        self._host = asyncio.get_running_loop()

    def start(self) -> "Client":
        def start() -> None:
            work = self._pyvoy.app(self._scope, self._receive, self._send)
            self.was_begun = isinstance(work, Begun)
            self._pyvoy.loop.create_task(work).add_done_callback(lambda future: None)

        self._pyvoy.run(start)
        return self

    def give(self, body: bytes, more_body: bool = False) -> "Client":
        self._answer({"type": "http.request", "body": body, "more_body": more_body})
        return self

    def go(self) -> None:
        self._answer(GONE)

    def _answer(self, event: Any) -> None:
        future = self.asked.pop(0)
        self._pyvoy.run(lambda: future.set_result(event))

    def _receive(self) -> Any:
        if self.is_broken:
            raise ZeroDivisionError
        self.asked.append(self._pyvoy.loop.create_future())
        return self.asked[-1]

    def _send(self, event: Any) -> Awaitable[None]:
        assert asyncio.get_running_loop() is self._host
        self.sent.append(event)
        if event["type"] == "http.response.trailers":
            self.ended.set()
        done = self._host.create_future()
        done.set_result(None)
        return done

    async def is_asked(self) -> None:
        """Until the application asks for more."""
        async with asyncio.timeout(10):
            while not self.asked:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def answer(self) -> tuple[Code, bytes]:
        async with asyncio.timeout(10):
            await self.ended.wait()
        kinds = [event["type"].removeprefix("http.response.") for event in self.sent]
        assert kinds == ["start", "body", "trailers"]
        trailers = dict(self.sent[-1]["headers"])
        return Code(int(trailers[b"grpc-status"])), trailers.get(b"grpc-message", self.sent[1]["body"])


class Scene:
    """A core with one worker, and what was told of finished calls."""

    def __init__(self, arguments: dict[str, str]) -> None:
        self.bench = Bench()
        self.bench.route(7)
        self.told: list[tuple[str, str, Code]] = []
        handlers = ServingHandlers(self.bench.core, _reload, lambda *told: self.told.append(told[:3]))
        self.intake = Intake(PLACES)
        self.app = DirectGrpc(GrpcApp(handlers.methods, LIMIT, arguments, self.intake), handlers.methods.forwards)
        self.pyvoy = Pyvoy(self.app, asyncio.get_running_loop())

    async def sent_to_worker(self, count: int = 1) -> list[bytes]:
        link = self.bench.links[7]
        async with asyncio.timeout(10):
            while len(link.payloads) < count:  # noqa: ASYNC110 - the fake tells nobody
                await asyncio.sleep(0.001)
        return link.payloads

    async def finished(self, count: int = 1) -> list[tuple[str, str, Code]]:
        async with asyncio.timeout(10):
            while len(self.told) < count:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
        return self.told


async def _reload(_: bytes) -> Status:
    return Status()


def run(scenario: Callable[[Scene], Awaitable[Any]], arguments: dict[str, str] | None = None) -> Any:
    async def main() -> Any:
        return await scenario(Scene(arguments or {}))

    return asyncio.run(main())
