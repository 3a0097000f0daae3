"""What pyvoy says after the body of a request that has none, made what ASGI promises. In the event loop.

ASGI's `receive` waits, once the body has come, for the client to go. pyvoy answers at once for a request that ended
with its headers, again and again, until the client is gone: here such a caller waits.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from .engine import AsgiApp, Receive, Send

_ASK_S = 0.05


def polled_when_empty(app: AsgiApp) -> AsgiApp:
    """The same application, told of the end of clients as ASGI has it."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await app(scope, _Receive(receive), send)

    return call


class _Receive:
    __slots__ = ("_ended", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def __call__(self) -> Any:
        event = await self._receive()
        while self._ended and event["type"] != "http.disconnect":
            await asyncio.sleep(_ASK_S)
            event = await self._receive()
        self._ended = not event.get("more_body", False)
        return event
