"""The frontend's end of the control socket: messages to and from the supervisor. In the event loop's thread.

What is no message of this version is logged and ignored. It knows how a status question finds its answer; what the
other messages mean is the session's.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable

import zmq

from modelpool.supervisor.wire import codec, sockets
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import FrontendSpec, Message, StatusReply, StatusRequest, WorkerReleased
from modelpool.supervisor.wire.status import Unavailable

from .dealer import Dealer

log = logging.getLogger(__name__)

_STATUS_TIMEOUT_S = 2.0
_FLUSH_S = 1.0


class Control:
    """`on_message` is called for each message of the supervisor except StatusReply."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        spec: FrontendSpec,
        on_message: Callable[[Message], None],
    ) -> None:
        self._on_message = on_message
        self._tokens = itertools.count(1)
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        name = sockets.identity(sockets.Peer.FRONTEND, spec.incarnation)
        self._dealer = Dealer(context, spec.control_endpoint, name, sockets.CONTROL_HWM, self._handle_frames)

    def send(self, message: Message) -> bool:
        """False when the supervisor has stopped reading and the queue is full."""
        sent = self._dealer.send(codec.encode(message))
        if not sent:
            log.error("control message not sent %s", fields(message=type(message).__name__))
        return sent

    def release(self, incarnation: Incarnation) -> None:
        self.send(WorkerReleased(incarnation))

    async def pool_status(self) -> bytes:
        """The supervisor's JSON status. Raises Unavailable when it does not come soon."""
        token = next(self._tokens)
        question = asyncio.get_running_loop().create_future()
        self._questions[token] = question
        try:
            self.send(StatusRequest(token))
            return await asyncio.wait_for(question, _STATUS_TIMEOUT_S)
        except TimeoutError as error:
            raise Unavailable(f"The supervisor did not answer within {_STATUS_TIMEOUT_S} s") from error
        finally:
            del self._questions[token]

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
        if not isinstance(message, StatusReply):
            self._on_message(message)
            return
        question = self._questions.get(message.token)
        if question is not None and not question.done():
            question.set_result(message.body)
