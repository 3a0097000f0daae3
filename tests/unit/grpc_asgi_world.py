"""A fake of pyvoy's side of one gRPC call, and a service with a method of each kind."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from modelpool.frontend.grpc_asgi import GrpcApp
from modelpool.frontend.grpc_calls import Call, Methods
from modelpool.supervisor.wire.status import Code, NotFound

LIMIT = 1000
WATCH = "/s/Watch"
TE = (b"te", b"trailers")
GRPC = (b"content-type", b"application/grpc")
Headers = tuple[tuple[bytes, bytes], ...]


class Client:
    """One call: gives the parts of its body, then waits; keeps what it is sent."""

    def __init__(self, *parts: bytes, headers: Headers = (GRPC, TE)) -> None:
        self._events: list[Any] = [
            {"type": "http.request", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        self.headers = headers
        self.gone = asyncio.Event()
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if self._events:
            return self._events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def send(self, event: Any) -> Awaitable[None]:
        self.sent.append(event)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def call(self, app: GrpcApp, path: str = "/s/Echo") -> "Client":
        scope = {"type": "http", "method": "POST", "path": path, "headers": list(self.headers)}
        await app(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> tuple[Code, str]:
        """By the trailers, or by the headers where there is nothing but them."""
        found = dict(self.sent[-1].get("headers") or self.sent[0]["headers"])
        return Code(int(found[b"grpc-status"])), unquote(found.get(b"grpc-message", b"").decode())

    @property
    def body(self) -> bytes:
        return b"".join(event["body"] for event in self.sent if event["type"] == "http.response.body")


class Handlers:
    """A service with one method of each kind."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled = False
        self.methods = Methods(
            {"/s/Echo": self._echo, "/s/Fail": self._fail, "/s/Bug": self._bug, "/s/Wait": self._wait},
            {"/s/Twice": self._twice, "/s/Watch": self._watch, "/s/Slow": self._slow},
        )

    async def _echo(self, request: bytes, call: Call) -> bytes:
        self.calls.append(call)
        return request

    async def _fail(self, request: bytes, call: Call) -> bytes:
        raise NotFound("nö: 100%\n")

    async def _bug(self, request: bytes, call: Call) -> bytes:
        raise ZeroDivisionError

    async def _wait(self, request: bytes, call: Call) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("not reached")

    async def _twice(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            yield request

    async def _watch(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        yield await anext(requests)
        await self._wait(b"", call)

    async def _slow(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        yield await anext(requests)
        raise TimeoutError(errno.ETIMEDOUT, "of somebody else")


def run(scenario: Callable[[GrpcApp, Handlers], Awaitable[Any]], arguments: dict[str, str] | None = None) -> Any:
    async def main() -> Any:
        handlers = Handlers()
        async with asyncio.timeout(10):
            return await scenario(GrpcApp(handlers.methods, LIMIT, arguments or {}), handlers)

    return asyncio.run(main())


def answered(*parts: bytes, path: str = "/s/Echo", headers: Headers = (GRPC, TE)) -> Client:
    client: Client = run(lambda app, _: Client(*parts, headers=headers).call(app, path))
    return client
