"""gRPC over ASGI, as Envoy hands it to us: frames, deadlines, compression and trailers around our handlers. Event loop.

Each call here is a task. The usual call of a model is none and goes by `grpc_direct`, which starts and ends it with
what is here; here come what asks no model, streams, and what is out of the ordinary: a message that is packed, or large
and in parts, and all calls where replies may be packed. Whether its client is still there is asked only of calls that
have been running for a moment (`calls_in_progress`). Written against pyvoy's ASGI, where `send` does its work when it
is called and is awaited for back pressure only, and never fails when the client is gone.
gRPC over HTTP/2: github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Texts are those of gRPC's own servers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.status import (
    Code,
    Internal,
    Overloaded,
    PoolError,
    Unavailable,
    Unimplemented,
    truncated,
)

from . import grpc_frames
from .calls_in_progress import CallsInProgress, ClientGone
from .engine import Receive, Send
from .forward import Forward
from .grpc_calls import BUG, Methods, Stream, Unary, retry_metadata
from .grpc_compression import ACCEPTED, Packing
from .grpc_frames import Frames
from .grpc_timeout import before, remaining_s, timeout_ns, too_late
from .intake import Intake, Place
from .model_queue import FULL, UNKNOWN_HINT_MS

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPTS = (b"grpc-accept-encoding", ACCEPTED)
OK_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [CONTENT_TYPE, _ACCEPTS],
    "trailers": True,
}
OK_TRAILERS: dict[str, Any] = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_EMPTY_BODY: dict[str, Any] = {"type": "http.response.body", "body": b""}
_GOING = "The server is shutting down"
# So many calls may be under way that ask no model, of which the core knows nothing, and beside them so many streams,
# which last as long as their clients like. What those send is small.
_MOST_OTHERS = 10_000
_MOST_STREAMS = 10_000
_MOST_STREAMED_BYTES = 64 * 1024
# A call whose message has not come by then needs a place.
MOMENT_S = 1.0


class GrpcApp:
    """An ASGI application that serves `methods`.

    `max_request_bytes` bounds a message, packed and unpacked; `arguments`: gRPC's channel arguments, of which the
    limit and the compression of replies count here. `intake`: the room for messages that are still on their way.
    """

    def __init__(
        self,
        methods: Methods,
        max_request_bytes: int,
        arguments: Mapping[str, str],
        intake: Intake | None = None,
    ) -> None:
        self.intake = intake or Intake()
        self._others = _Bounded(_MOST_OTHERS, "calls that ask no model")
        self._streaming = _Bounded(_MOST_STREAMS, "streams")
        self._unary = dict(methods.unary)
        self._streams = dict(methods.streams)
        self._forwards = dict(methods.forwards)
        self.limit_bytes = grpc_frames.limit_bytes(max_request_bytes, arguments)
        self._packing = Packing.of(arguments)
        self._in_progress = CallsInProgress()
        self.draining = False

    @property
    def replies_plain(self) -> bool:
        """No reply is ever packed."""
        return self._packing.encoding is None

    def drain(self) -> None:
        """Refuse what comes from now on, on connections that are still there."""
        self.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not _is_grpc(scope):
            send({"type": "http.response.start", "status": 415, "headers": [(b"content-length", b"0")]})
            send(_EMPTY_BODY)
            return
        handle = self._unary.get(scope["path"])
        try:
            if handle is not None and not self.draining:
                await self._call_unary(handle, scope, receive, send)
            else:
                await self._call_other(scope, receive, send)
        except ClientGone:
            return
        except PoolError as error:
            refuse(scope, send, error)
        except Exception:
            log.exception("gRPC handler failed %s", fields(path=scope["path"]))
            refuse(scope, send, Internal(BUG))

    # -- one message in, one out -----------------------------------------------------------------------------------

    async def _call_unary(self, handle: Unary, scope: Scope, receive: Receive, send: Send) -> None:
        call = _Call(scope["headers"])
        forward = self._forwards.get(scope["path"])
        message = await self._message(call, receive, forward)
        with self._in_progress.watched(receive, call.deadline_ns):
            if forward is not None:
                reply = await forward.call(message, call.deadline_ns)
            else:
                with self._others.one_more():
                    reply = await handle(bytes(message), call)
            packed = None if self.replies_plain else await self._packing.pack(reply, call.accepts)
        if packed is None:
            send(OK_START)
            grpc_frames.send_plain(send, reply)
            send(OK_TRAILERS)
            return
        encoding, framed = packed
        send(OK_START if encoding is None else _start_of(encoding))
        send({"type": "http.response.body", "body": framed})
        send(OK_TRAILERS)

    async def _message(self, call: "_Call", receive: Receive, forward: Forward | None) -> Payload:
        """The one message of a unary call. Raises PoolError, ClientGone."""
        started_ns = time.monotonic_ns()
        try:
            return await self._arrived(call, receive)
        except (PoolError, ClientGone) as error:
            if forward is not None:
                code = error.status.code if isinstance(error, PoolError) else Code.CANCELLED
                forward.finished("", code, started_ns)
            raise

    async def _arrived(self, call: "_Call", receive: Receive) -> Payload:
        """Without a place when it comes at once and whole, so that nobody's slowness keeps such a call out."""
        first = asyncio.ensure_future(receive())
        rest_s = remaining_s(call.deadline_ns)
        try:
            if not first.done():
                await asyncio.wait((first,), timeout=MOMENT_S if rest_s is None else min(rest_s, MOMENT_S))
            if first.done() and (whole := self._only_message(first.result())) is not None:
                return whole
            with self.intake.place() as place:
                async with asyncio.timeout(remaining_s(call.deadline_ns)):
                    return await self._arriving(call, Rest(first, receive), place)
        except TimeoutError as late:
            raise too_late() from late
        finally:
            first.cancel()

    def _only_message(self, event: Any) -> Payload | None:
        if event["type"] != "http.request":
            raise ClientGone
        return grpc_frames.only_message(event["body"], self.limit_bytes)

    async def _arriving(self, call: "_Call", receive: Receive, place: Place) -> Payload:
        event = await receive()
        whole = self._only_message(event)
        if whole is not None:
            return whole
        body: bytes = event["body"]
        frames = Frames(self.limit_bytes, call.encoding, place.came)
        frames.add(body)
        place.came(len(body))
        while (message := await frames.next()) is None:
            if not event["more_body"]:
                raise Internal("Request without a whole message")
            event = await receive()
            if event["type"] != "http.request":
                raise ClientGone
            place.came(len(event["body"]))
            frames.add(event["body"])
        return message

    # -- streams, and what is not served ---------------------------------------------------------------------------

    async def _call_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _Call(scope["headers"])
        if self.draining:
            raise Unavailable(_GOING)
        handle = self._streams.get(scope["path"])
        if handle is None:
            raise Unimplemented("Method not found!")
        with self._streaming.one_more():
            await self._call_stream(handle, call, scope, receive, send)

    async def _call_stream(self, handle: Stream, call: "_Call", scope: Scope, receive: Receive, send: Send) -> None:
        """Requests are read as the handler wants them, and one ahead, which tells of a client that is gone."""
        requests: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        frames = Frames(min(self.limit_bytes, _MOST_STREAMED_BYTES), call.encoding)
        started = False
        failure: PoolError | None = None
        try:
            async with before(call.deadline_ns):
                with self._in_progress.cancelled_with(_read(frames, receive, requests)):
                    async for reply in handle(_items(requests), call):
                        if not started:
                            send(OK_START)
                            started = True
                        await send({"type": "http.response.body", "body": grpc_frames.plain(reply), "more_body": True})
        except ClientGone:
            raise
        except PoolError as error:
            if not started:
                raise
            failure = error
        except Exception:
            if not started:
                raise
            log.exception("gRPC handler failed %s", fields(path=scope["path"]))
            failure = Internal(BUG)
        if not started:
            send(OK_START)
        send(_EMPTY_BODY)
        send(OK_TRAILERS if failure is None else _trailers(failure))


class _Bounded:
    """How many of `what` are under way, `most` at most."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self._count >= self._most:
            raise Overloaded(f"{FULL}: {self._count} {self._what} are under way", UNKNOWN_HINT_MS)
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def _is_grpc(scope: Scope) -> bool:
    content_type: bytes = dict(scope["headers"]).get(CONTENT_TYPE[0], b"")
    return scope["method"] == "POST" and content_type.startswith(CONTENT_TYPE[1])


class Rest:
    """A `receive` whose first event was asked for already."""

    def __init__(self, first: Awaitable[Any], receive: Receive) -> None:
        self._first: Awaitable[Any] | None = first
        self._receive = receive

    def __call__(self) -> Awaitable[Any]:
        first, self._first = self._first, None
        return first if first is not None else self._receive()


class _Call:
    """A call of `grpc_calls`. Headers that come more than once are there as they came last."""

    __slots__ = ("_all", "deadline_ns", "headers")

    def __init__(self, headers: Headers) -> None:
        self._all = headers
        self.headers = dict(headers)
        timeout = self.headers.get(b"grpc-timeout")
        self.deadline_ns = data.NO_DEADLINE_NS
        if timeout is not None:
            duration_ns = timeout_ns(timeout)
            if duration_ns is not None:
                self.deadline_ns = time.monotonic_ns() + duration_ns

    @property
    def encoding(self) -> bytes:
        return self.headers.get(b"grpc-encoding", b"identity")

    @property
    def accepts(self) -> bytes:
        return self.headers.get(b"grpc-accept-encoding", b"")

    def metadata(self, key: str) -> str | None:
        wanted = key.encode()
        return next((value.decode("utf-8", "replace") for name, value in self._all if name == wanted), None)


def percent_encoded(message: str) -> bytes:
    """A text as `grpc-message` carries it: printable ASCII but for the percent sign, UTF-8 in percent signs else."""
    raw = message.encode("utf-8", "replace")
    return b"".join(b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw)


async def _read(frames: Frames, receive: Receive, requests: "asyncio.Queue[bytes | None]") -> None:
    """Put each message of a stream in `requests`, then None; raises ClientGone when the client goes, then or before."""
    more = True
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGone
        frames.add(event["body"])
        while (message := await frames.next()) is not None:
            await requests.put(bytes(message))
        if more and not event["more_body"]:
            more = False
            await requests.put(None)
        elif not more:
            # pyvoy's answer for a request that ended with its headers, again and again (see `rest_pyvoy`).
            await asyncio.sleep(0.05)


async def _items(requests: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
    while (message := await requests.get()) is not None:
        yield message


def _start_of(encoding: bytes) -> dict[str, Any]:
    return {**OK_START, "headers": [CONTENT_TYPE, _ACCEPTS, (b"grpc-encoding", encoding)]}


def _trailers(error: PoolError) -> dict[str, Any]:
    status = error.status
    headers = [
        (b"grpc-status", b"%d" % status.code),
        (b"grpc-message", percent_encoded(truncated(status.message))),
        *((key.encode(), value.encode()) for key, value in retry_metadata(error)),
    ]
    return {"type": "http.response.trailers", "headers": headers}


def refuse(scope: Scope, send: Send, error: PoolError) -> None:
    """The end of a call that has sent nothing.

    In trailers, so that the headers that every HTTP server adds are not among them; a client that takes none gets all
    at once, as headers.
    """
    trailers = _trailers(error)
    if (b"te", b"trailers") in scope["headers"]:
        send(OK_START)
        send(_EMPTY_BODY)
        send(trailers)
    else:
        headers = [CONTENT_TYPE, *trailers["headers"]]
        send({"type": "http.response.start", "status": 200, "headers": headers})
        send(_EMPTY_BODY)
