"""What ASGI promises and pyvoy does not do, made up for before the REST application. In the event loop.

- `receive` waits, once the body has come, for the client to go. pyvoy answers at once for a request that ended with
  its headers, again and again, until the client is gone: here such a caller waits.
- An answer may come before the request's end. Envoy then stops reading and soon resets the connection, and a client
  that is still sending never sees the answer, a 413 say. Here the answer goes out whole and at once, but its end is
  held back until the rest of the request has come, for a while; what comes is dropped.
- The answer to HEAD has the headers of the one to GET and no body. pyvoy and Envoy send what they are given, and a
  client would take it for the beginning of the next answer.
"""

import asyncio
from collections.abc import Awaitable, MutableMapping
from typing import Any

from .engine import AsgiApp, Receive, Send

# A question costs a tenth of a millisecond of CPU and three changes of threads, so who waits long asks seldom.
_ASK_S, _ASK_MOST_S, _ASK_GROWTH = 0.05, 0.5, 1.5
# As long as this a client may go on sending what nobody reads; then its connection is reset.
_LINGER_S = 30.0


def complete(app: AsgiApp) -> AsgiApp:
    """The same application under what pyvoy gives, as if it were all of ASGI."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        whole = _Receive(receive)
        await app(scope, whole, _Send(_bodiless(send) if scope["method"] == "HEAD" else send, whole))

    return call


def _bodiless(send: Send) -> Send:
    """The same `send`, but for what is in the body."""
    return lambda event: send({**event, "body": b""} if event["type"] == "http.response.body" else event)


class _Receive:
    """`ended`: all of the request has come, or its client is gone."""

    __slots__ = ("_receive", "ended")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def __call__(self) -> Any:
        event = await self._receive()
        pause_s = _ASK_S
        while self.ended and event["type"] != "http.disconnect":
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _ASK_GROWTH, _ASK_MOST_S)
            event = await self._receive()
        self.ended = not event.get("more_body", False)
        return event

    async def drop_rest(self) -> None:
        """Read on until the end, or until it takes too long."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.ended:
                    self.ended = not (await self._receive()).get("more_body", False)
        except TimeoutError:
            return


class _Send:
    __slots__ = ("_request", "_send")

    def __init__(self, send: Send, request: _Receive) -> None:
        self._send = send
        self._request = request

    def __call__(self, event: Any) -> Awaitable[None]:
        if self._request.ended or event["type"] != "http.response.body" or event.get("more_body", False):
            return self._send(event)
        return self._send_early(event)

    async def _send_early(self, event: Any) -> None:
        await self._send({**event, "more_body": True})
        await self._request.drop_rest()
        await self._send({"type": "http.response.body", "body": b""})
