"""The frontend's end of the control socket: messages to and from the supervisor. In the event loop's thread.

What is no message of this version is logged and ignored. It knows how a question to the supervisor finds its answer;
what the other messages mean is the session's.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import zmq

from modelpool.supervisor.wire import codec, sockets
from modelpool.supervisor.wire.client_messages import ProfileOf, StatusReply, StatusRequest
from modelpool.supervisor.wire.frontend_messages import Quarantined, ReloadReply, ReloadRequest, WorkerReleased
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.metric_messages import MetricSample, MetricsReply, MetricsReport, MetricsRequest
from modelpool.supervisor.wire.status import ResourceExhausted, Status, Unavailable
from modelpool.supervisor.wire.worker_messages import EndProfile, Profiled

from .dealer import Dealer

log = logging.getLogger(__name__)

_STATUS_TIMEOUT_S = 2.0
_FLUSH_S = 1.0
# A configuration of a hundred thousand models fits; more is not worth the supervisor's memory.
_MAX_RELOAD_BYTES = 16 << 20

R = TypeVar("R", StatusReply, ReloadReply, MetricsReply, Profiled)


class _Questions(Generic[R]):
    """Questions of one kind to the supervisor, each waiting for the answer that carries its token."""

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[R]] = {}
        self._refusal: str | None = None

    async def ask(self, question: Callable[[int], Message]) -> R:
        """The answer to what `question` makes of a token; waits as long as the caller does. Raises Unavailable."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        token = next(self._tokens)
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            if not self._send(question(token)):
                raise Unavailable("The supervisor does not take in its messages")
            return await answer
        finally:
            del self._waiting[token]

    def settle(self, answer: R) -> None:
        """Hand an answer to its asker; nothing when nobody waits for it any more."""
        waiting = self._waiting.get(answer.token)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def refuse(self, reason: str) -> None:
        """Fail what waits, and all questions to come, with Unavailable."""
        self._refusal = reason
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable(reason))


class Control:
    """`on_message` is called for each message of the supervisor except the answers to our own questions."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        spec: FrontendSpec,
        on_message: Callable[[Message], None],
    ) -> None:
        self._on_message = on_message
        self._heard_s = time.monotonic()
        self._status_questions: _Questions[StatusReply] = _Questions(self.send)
        self._reloads: _Questions[ReloadReply] = _Questions(self.send)
        self._metrics_questions: _Questions[MetricsReply] = _Questions(self.send)
        self._profiles: _Questions[Profiled] = _Questions(self.send)
        name = sockets.identity(sockets.Peer.FRONTEND, spec.incarnation)
        self._dealer = Dealer(context, spec.control_endpoint, name, sockets.CONTROL_HWM, self._handle_frames)

    def send(self, message: Message) -> bool:
        """False when the supervisor has stopped reading and the queue is full."""
        sent = self._dealer.send(codec.encode(message))
        if not sent:
            log.error("control message not sent %s", fields(message=type(message).__name__))
        return sent

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard of the supervisor. It answers each FrontendStats."""
        return time.monotonic() - self._heard_s

    def release(self, incarnation: Incarnation) -> None:
        self.send(WorkerReleased(incarnation))

    def report_poison(self, entry: Quarantined) -> None:
        self.send(entry)

    async def pool_status(self) -> bytes:
        """The supervisor's JSON status. Raises Unavailable when it does not come soon."""
        return (await self._soon(self._status_questions.ask(StatusRequest))).body

    async def metrics_page(self) -> bytes:
        """The supervisor's page of all metrics it has heard of. Raises Unavailable when it does not come soon."""
        return (await self._soon(self._metrics_questions.ask(MetricsRequest))).body

    @staticmethod
    async def _soon(answer: Coroutine[Any, Any, R]) -> R:
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise Unavailable(f"The supervisor did not answer within {_STATUS_TIMEOUT_S} s") from error

    def report_metrics(self, samples: tuple[MetricSample, ...]) -> bool:
        """False when it was not sent: the supervisor must be told of the same again."""
        return not samples or self.send(MetricsReport(samples))

    async def reload(self, request: bytes) -> Status:
        """How the supervisor took over a serialized ReloadConfigRequest; waits as long as the caller does.

        Raises Unavailable when the supervisor cannot be asked or the frontend drains, ResourceExhausted for a request
        that is too big.
        """
        if len(request) > _MAX_RELOAD_BYTES:
            raise ResourceExhausted(
                f"ReloadConfigRequest: expected at most {_MAX_RELOAD_BYTES} bytes, got {len(request)}"
            )
        reply = await self._reloads.ask(lambda token: ReloadRequest(token, request))
        return Status(reply.code, reply.message)

    async def profile(self, order: Callable[[int], ProfileOf]) -> Profiled:
        """How the trace that `order` makes of a token ended; waits as long as the caller does. Raises Unavailable."""
        return await self._profiles.ask(order)

    def end_profile(self, session: str) -> None:
        """Have the traces of this session ended."""
        self.send(EndProfile(session))

    def drain(self) -> None:
        """Stop waiting for reloads and traces: a supervisor that shuts down may never answer them."""
        self._profiles.refuse("The server is shutting down")
        self._reloads.refuse("The server is shutting down; the reload may not have been carried out")

    def close(self) -> None:
        """Let queued messages leave, then close."""
        self._dealer.close(_FLUSH_S)

    def _handle_frames(self, frames: list[bytes]) -> None:
        if len(frames) != 1:
            log.warning("ignored a control message %s", fields(expected_frames=1, got=len(frames)))
            return
        try:
            message = codec.decode(frames[0])
        except codec.WireError as error:
            log.warning("ignored a control message %s", fields(error=error.message))
            return
        self._heard_s = time.monotonic()
        match message:
            case StatusReply():
                self._status_questions.settle(message)
            case MetricsReply():
                self._metrics_questions.settle(message)
            case Profiled():
                self._profiles.settle(message)
            case ReloadReply():
                self._reloads.settle(message)
            case _:
                self._on_message(message)
