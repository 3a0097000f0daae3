"""What is done because somebody asked: a warmup file recorded, a worker traced, started afresh or hurt, a reload.

The asker is the command line, or a client by way of a frontend; each is told how it ended, also when the worker dies
meanwhile. Runs in the supervisor's event loop.
"""

import asyncio
import logging
from collections.abc import Callable

from . import recordings, restart_by_hand
from .chaos import Chaos
from .configuration import Configuration, Seams
from .daemon_thread import call_in_thread
from .manager import Manager
from .profilings import Asker, Profilings
from .recordings import Recordings
from .wire.client_messages import HurtModel, ProfileOf, RecordingGoesOn, RecordWarmupOf, Restarted, RestartOf
from .wire.frontend_messages import ReloadReply, ReloadRequest
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.sockets import Peer
from .wire.status import FailedPrecondition, PoolError
from .wire.worker_messages import EndProfile, EndRecording, Profiled, WarmupRecorded

log = logging.getLogger(__name__)

# How soon it is seen that nobody waits for a recording any more.
_STILL_THERE_S = 1.0


class Orders:
    """Those of one pool. `send` sends a message to a peer."""

    def __init__(
        self,
        manager: Manager,
        configuration: Configuration,
        chaos: Chaos,
        profilings: Profilings,
        *,
        send: Callable[[Peer, Incarnation, Message], bool],
        seams: Seams,
    ) -> None:
        self._manager = manager
        self._chaos = chaos
        self._profilings = profilings
        self._recordings = Recordings()
        self._send = send
        self._configuration = configuration
        self._seams = seams
        self._loop = asyncio.get_running_loop()

    def asked(self, peer: Peer, asker: Incarnation, message: Message) -> bool:
        """Have it done; False for what is no order."""
        match message:
            case ProfileOf():
                self._profile(Asker(peer, asker, message.order.token), message)
            case ReloadRequest(token, request) if peer is Peer.FRONTEND:
                self._seams.background(self._reload(asker, token, request), "reload")
            case EndProfile(session) if peer is Peer.FRONTEND:
                for worker in self._profilings.workers(session):
                    self._send(Peer.WORKER, worker, message)
            case RecordWarmupOf() if peer is Peer.CLIENT:
                self._seams.background(self._record_warmup(asker, message), "warmup recording")
            case HurtModel() if peer is Peer.CLIENT:
                self._send(peer, asker, self._chaos.hurt(message))
            case RestartOf() if peer is Peer.CLIENT:
                self._seams.background(self._restart(asker, message), "restart")
            case _:
                return False
        return True

    def answered(self, message: WarmupRecorded | Profiled) -> None:
        """A worker says how it ended."""
        if isinstance(message, WarmupRecorded):
            client = self._recordings.ended(message.token)
            if client is not None:
                self._send(Peer.CLIENT, client, message)
        elif (ended := self._profilings.ended(message)) is not None:
            asker, answer = ended
            self._send(asker.peer, asker.incarnation, answer)

    def worker_died(self, worker: Incarnation) -> None:
        """What it was told to do will not end otherwise."""
        for client, answer in self._recordings.died(worker):
            self._send(Peer.CLIENT, client, answer)
        for asker, lost in self._profilings.died(worker):
            self._send(asker.peer, asker.incarnation, lost)

    async def _record_warmup(self, client: Incarnation, wanted: RecordWarmupOf) -> None:
        """Pass the order on to a worker, and end the recording when its client goes away."""
        token = wanted.order.token
        try:
            worker = await self._warmup_recorder(wanted)
        except PoolError as error:
            self._send(Peer.CLIENT, client, WarmupRecorded(token, error.status.code, error.message, 0))
            return
        self._recordings.begin(token, client, worker)
        self._send(Peer.WORKER, worker, wanted.order)
        await asyncio.sleep(_STILL_THERE_S)
        while self._recordings.is_open(token):
            if not self._send(Peer.CLIENT, client, RecordingGoesOn(token)):
                log.info("warmup recording dropped, its client is gone %s", fields(model=wanted.model))
                self._recordings.ended(token)
                self._send(Peer.WORKER, worker, EndRecording(token))
            await asyncio.sleep(_STILL_THERE_S)

    async def _warmup_recorder(self, wanted: RecordWarmupOf) -> Incarnation:
        """A worker that serves the model, if its operator allows recording, and the file can be written.

        Raises PoolError.
        """
        self._manager.ready_worker(wanted.model, wanted.version)  # above all, there has to be such a model
        if not self._configuration.policy(wanted.model).record_warmup:
            raise FailedPrecondition(
                f"recording is off for model {wanted.model}: set record_warmup = true for it in --pool_config_file"
            )
        await call_in_thread(recordings.check_place, wanted.order.path, name="warmup place")
        return self._manager.ready_worker(wanted.model, wanted.version)

    def _profile(self, asker: Asker, wanted: ProfileOf) -> None:
        """Have a worker that serves the model traced, where its file may go to the place that was asked for."""
        try:
            order = self._profilings.order(asker.peer, wanted)
            worker = self._manager.ready_worker(wanted.model, wanted.version)
        except PoolError as error:
            refusal = Profiled(asker.token, error.status.code, error.message, "", False)
            self._send(asker.peer, asker.incarnation, refusal)
            return
        self._send(Peer.WORKER, worker, self._profilings.begin(asker, worker, order))

    async def _restart(self, client: Incarnation, wanted: RestartOf) -> None:
        """Restart workers by hand, and say how that ended."""
        try:
            restarts = self._manager.restart(wanted.model, wanted.version, self._loop.time())
        except PoolError as error:
            self._send(Peer.CLIENT, client, Restarted(wanted.token, error.status.code, error.message))
            return
        self._seams.advance()
        board = self._manager.board
        await self._seams.until(
            lambda: all(each.outcome(board.acked_epoch) is not None for each in restarts), wanted.timeout_s
        )
        self._send(Peer.CLIENT, client, restart_by_hand.reply(wanted, restarts, board.acked_epoch))

    async def _reload(self, frontend: Incarnation, token: int, request: bytes) -> None:
        """Take another model configuration over."""
        status = await self._configuration.reload(request)
        log.info("reload done %s", fields(status=status))
        self._send(Peer.FRONTEND, frontend, ReloadReply(token, status.code, status.message))
