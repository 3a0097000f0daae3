"""The calls of models under Envoy without a task for each: from its headers to its trailers a call is one object.

Two threads have it, one after the other. pyvoy's thread starts it, asks for its message and gets it; then it lies in
the `_Inbox`, and the event loop begins it at the core, which later brings the answer. What is out of the ordinary (a
message that is packed, or large and comes in parts; a method that asks no model; replies that are packed) goes by
`grpc_asgi`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, Internal, Overloaded, PoolError, Status, StatusError

from . import grpc_frames
from .callback import guarded
from .calls_in_progress import CallsInProgress
from .engine import Receive, Send
from .envoy_loop import Begun, Delivery
from .forward import Forward
from .grpc_asgi import (
    CONTENT_TYPE,
    MOMENT_S,
    OK_START,
    OK_TRAILERS,
    GrpcApp,
    Rest,
    Scope,
    refuse,
)
from .grpc_calls import BUG
from .grpc_timeout import remaining_s, timeout_ns, too_late
from .in_flight import Answer, Pending
from .model_queue import FULL, UNKNOWN_HINT_MS
from .turn import Turn

log = logging.getLogger(__name__)

_OK = Code.OK  # a member costs more to find than a name
# So many calls may wait for the event loop with their messages: far more than come in one turn of it.
_MOST_WAITING = 10_000
# So many of which nothing comes get their places, or are refused, in one turn of the loop; the next are looked at soon.
_MOST_AT_ONCE = 200
_SOON_S = 0.05
# Messages up to this size that come in parts are put together in pyvoy's thread, so many at the same time; others, and
# those beyond, get places in order.
_MOST_APART_BYTES = 64 * 1024
_MOST_APART = 512


class DirectGrpc:
    """An application for pyvoy's thread. `app` serves what is not in `forwards`, and what is out of the ordinary."""

    # A word of asgiref's: what is called once, with all three, though it is no coroutine function.
    _asgi_single_callable = True

    def __init__(self, app: GrpcApp, forwards: Mapping[str, Forward]) -> None:
        self.app = app
        self.in_progress = CallsInProgress()
        self.inbox = _Inbox(self.in_progress.look_soon)
        self.unheard = _Unheard()
        self.most_apart_bytes = min(_MOST_APART_BYTES, app.limit_bytes)
        self.apart: set[_Call] = set()
        """Those of whose messages a part is here; pyvoy's threads add and discard."""
        self.loop = asyncio.get_running_loop()
        self._forwards = dict(forwards) if app.replies_plain else {}
        self._tasks: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """See GrpcApp."""
        self.app.drain()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """A call that is under way, or a coroutine."""
        forward = self._forwards.get(scope["path"])
        if forward is None or self.app.draining:
            return self.app(scope, receive, send)
        if scope["method"] != "POST" or CONTENT_TYPE not in scope["headers"]:  # it may be gRPC all the same
            return self.app(scope, receive, send)
        call = _Call(self, forward, scope, receive, send)
        self.unheard.add(call)
        message = receive()
        if isinstance(message, Delivery):  # made by the `GuestLoop` that pyvoy has
            message.receiver = call
            return call
        # The request has ended with its headers: pyvoy has its own awaitable for that.
        self.unheard.discard(call)
        return self.app(scope, Rest(message, receive), send)

    def go_on(self, event: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """In the event loop: a call whose first event has been taken becomes a task."""
        first: asyncio.Future[Any] = self.loop.create_future()
        first.set_result(event)
        self.run(self.app(scope, Rest(first, receive), send))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """In the event loop: as a task."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Call(Begun, Pending):
    """One call: a request of the core, and a `Watched` of `calls_in_progress`."""

    __slots__ = (
        *("_app", "_asked", "_begin", "_came", "_done", "_forward", "_has_room", "_part", "_receive", "_scope"),
        *("_send", "_started_ns", "seen"),
    )

    def __init__(self, app: DirectGrpc, forward: Forward, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._forward = forward
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started_ns = time.monotonic_ns()
        self._begin: bytes | None = None  # of a small message, while the rest is awaited
        self._part: Any = None  # the first event, where it is not the whole message
        self._came: asyncio.Event | None = None  # where it was waited for
        self._has_room = True
        self._done = self._asked = self.seen = False
        self.method = forward.method
        self.payload = b""
        self.spec = None

    # -- in pyvoy's thread ---------------------------------------------------------------------------------------

    def received(self, event: Any) -> None:
        """What came first, nearly always the whole message; or a further part of a small one."""
        app = self._app
        body, began = event.get("body", b""), self._begin is not None
        if self._begin:
            body = self._begin + body
        message = grpc_frames.only_message(body, app.app.limit_bytes)
        if message is not None:
            self.payload = message
        elif self._asks_for_more(event, body):
            return
        else:
            self._part = {**event, "body": body} if began and "body" in event else event
        if began:
            self._begin = None
            app.apart.discard(self)
        app.unheard.discard(self)
        app.inbox.put(self)

    def _asks_for_more(self, event: Any, body: bytes) -> bool:
        """Whether what is missing of a small message is awaited here, where it costs nobody a turn.

        As of one of which nothing has come yet, its deadline is looked at when it comes, or when it has been `_Unheard`
        for too long.
        """
        apart = self._app.apart
        if not event.get("more_body") or self._done or not grpc_frames.begins_plain(body, self._app.most_apart_bytes):
            return False
        if self not in apart and len(apart) >= _MOST_APART:
            return False
        further = self._receive()
        if not isinstance(further, Delivery):
            return False
        apart.add(self)
        self._begin = body
        further.receiver = self
        return True

    def finds_no_room(self) -> None:
        """Keep nothing of what came."""
        self._has_room = False
        self._part, self.payload = None, b""

    # -- in the event loop ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """At the core, or as a task. Never raises."""
        if self._came is not None:
            if self._done:
                return
            self._came.set()
        if self._part is not None:
            part, self._part = self._part, None
            self._app.go_on(part, self._scope, self._receive, self._send)
            return
        self.deadline_ns = self._its_deadline_ns()
        forward = self._forward
        try:
            if not self._has_room:
                raise Overloaded(f"{FULL}: more than {_MOST_WAITING} calls wait to be looked at", UNKNOWN_HINT_MS)
            self.spec = forward.read(self.payload)
            forward.begin(self)
        except PoolError as error:
            self.set_exception(error)
        except Exception:
            log.exception("gRPC handler failed %s", fields(path=self._scope["path"]))
            self.set_exception(Internal(BUG))
        else:
            self._app.in_progress.add(self)

    def _its_deadline_ns(self) -> int:
        timeout = None
        for name, value in self._scope["headers"]:  # of several the last counts, as in `grpc_asgi`
            if name == b"grpc-timeout":
                timeout = value
        duration_ns = None if timeout is None else timeout_ns(timeout)
        return data.NO_DEADLINE_NS if duration_ns is None else self._started_ns + duration_ns

    def waits(self) -> None:
        """For what should have come at once: with a place, and until the deadline. Then it begins as any other."""
        self._came = asyncio.Event()
        self._app.run(self._wait(self._came))

    async def _wait(self, came: asyncio.Event) -> None:
        try:
            with self._app.app.intake.place():
                async with asyncio.timeout(remaining_s(self._its_deadline_ns())):
                    await came.wait()
            return
        except TimeoutError:
            failure: PoolError = too_late()
        except Overloaded as error:
            failure = error
        if not came.is_set():  # else it came in the same turn of the loop, and has begun
            self.set_exception(failure)

    def done(self) -> bool:
        return self._done

    def set_result(self, answer: Answer) -> None:
        """See `Pending`."""
        code, reply = answer
        if code is not _OK:
            self.set_exception(StatusError(Status(code, reply.decode("utf-8", "replace"))))
            return
        self._end(code)
        send = self._send
        send(OK_START)
        grpc_frames.send_plain(send, reply)
        send(OK_TRAILERS)

    def set_exception(self, error: PoolError) -> None:
        """See `Pending`."""
        self._end(error.status.code)
        refuse(self._scope, self._send, error)

    def _end(self, code: Code) -> None:
        self._done = True
        self.payload = b""  # somebody may have a reference to the call for a while
        self._app.in_progress.discard(self)
        spec = self.spec
        self._forward.finished("" if spec is None else spec.name, code, self._started_ns)

    def look(self, now_ns: int) -> bool:
        """See `Watched`. The core answers at the deadline by itself."""
        if self._asked:
            return False
        self._asked = True
        asyncio.ensure_future(self._receive()).add_done_callback(self._told)
        return True

    @guarded
    def _told(self, future: "asyncio.Future[Any]") -> None:
        """The end of the request when it comes late, which is nothing new, or the end of its client."""
        self._asked = False
        if self._done or future.result()["type"] != "http.disconnect":
            return
        self._end(self._forward.drop(self))


class _Inbox:
    """Calls on their way from pyvoy's threads to the loop, which is woken once for all that have come by then.

    Beyond `_MOST_WAITING` a call that is put here brings nothing of its message and is refused when its turn comes, in
    order and in the loop's thread like all others: of it nothing is kept that is big beside its stream, which Envoy has
    open. A turn of the loop takes what was there when it began, so that a flood cannot keep the loop to itself.
    """

    def __init__(self, on_begun: Callable[[], None]) -> None:
        """`on_begun` is called when calls have been begun, once for all of a turn."""
        self._loop = asyncio.get_running_loop()
        self._turn = Turn.of_loop()
        self._on_begun = on_begun
        self._calls: deque[_Call] = deque()
        self._woken = False

    def put(self, call: _Call) -> None:
        """In any thread. As many threads as do it at once may exceed the limit by as many."""
        if len(self._calls) >= _MOST_WAITING:
            call.finds_no_room()
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._begin)

    @guarded
    def _begin(self) -> None:
        self._woken = False  # before the calls are counted: one that is put after that wakes again
        calls = self._calls
        self._turn.hold()
        for _ in range(len(calls)):
            calls.popleft().begin()
        self._on_begun()
        self._turn.end()


class _Unheard:
    """Calls of which nothing has come but their headers; those that stay so for `MOMENT_S` are made to wait in order.

    Nearly all are here for microseconds. So nothing is done for one but to keep it, and one timer goes for all, also
    while none is here: to start it would wake the loop for each call that comes alone. pyvoy's threads add and discard,
    each in one step of the interpreter; the loop looks.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: set[_Call] = set()
        self.add = self._calls.add
        self.discard = self._calls.discard
        self._loop.call_later(MOMENT_S, self._look)

    @guarded
    def _look(self) -> None:
        late = 0
        for call in list(self._calls):  # in one step, too
            if not call.seen:
                call.seen = True
            elif late < _MOST_AT_ONCE:
                late += 1
                self.discard(call)
                call.waits()
        self._loop.call_later(_SOON_S if late == _MOST_AT_ONCE else MOMENT_S, self._look)
