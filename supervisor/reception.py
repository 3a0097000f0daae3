"""What the control socket brings: each message goes to the parts of the pool that it concerns, or is answered.

Runs in the supervisor's event loop. Decides nothing about models or processes: who is to know, and in which order, is
all that is here, and what frontends are told of each other: quarantined requests, and the load of shared workers.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from .control import ControlSocket
from .frontends import Frontends
from .manager import Manager
from .orders import Orders
from .pool_metrics import PoolMetrics
from .process import Processes
from .quarantines import Quarantines
from .replica_loads import ReplicaLoads
from .status_document import StatusDocument
from .wire.client_messages import StatusReply, StatusRequest
from .wire.frontend_messages import FrontendBindFailed, FrontendHello, FrontendStats, Pulse, Quarantined
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.metric_messages import MetricsReply, MetricsReport, MetricsRequest
from .wire.sockets import Peer
from .wire.status import FailedPrecondition
from .wire.worker_messages import (
    Profiled,
    WarmupRecorded,
    WorkerHeartbeat,
    WorkerHello,
    WorkerProgress,
    WorkerReady,
)

log = logging.getLogger(__name__)


class Reception:
    """That of one pool. `worker_ready` hears of each worker that is ready, `advance` is called after each change.

    `fail` ends the pool with an error.
    """

    def __init__(
        self,
        manager: Manager,
        control: ControlSocket,
        processes: Processes,
        frontends: Frontends,
        *,
        metrics: PoolMetrics,
        orders: Orders,
        document: StatusDocument,
        worker_ready: Callable[[Incarnation], None],
        advance: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._manager = manager
        self._control = control
        self._processes = processes
        self._frontends = frontends
        self._metrics = metrics
        self._orders = orders
        self._document = document
        self._worker_ready = worker_ready
        self._advance = advance
        self._fail = fail
        self._replica_loads = ReplicaLoads()
        self._quarantines = Quarantines()
        self._loop = asyncio.get_running_loop()

    def received(self, peer: Peer, incarnation: Incarnation, message: Message) -> None:
        """A message has come."""
        match peer, message:
            case Peer.WORKER, WorkerHello() | WorkerProgress() | WorkerReady() | WorkerHeartbeat():
                self._worker_said(incarnation, message)
            case Peer.WORKER | Peer.FRONTEND, MetricsReport():
                self._metrics.reported(peer, incarnation, message)
            case Peer.FRONTEND, _ if incarnation in self._frontends.alive:
                self._frontend_said(incarnation, message)
            case Peer.WORKER, WarmupRecorded() | Profiled():
                self._orders.answered(message)
            case Peer.CLIENT, StatusRequest(token):
                self._control.send(Peer.CLIENT, incarnation, StatusReply(token, self._document.to_json()))
            case Peer.CLIENT, _ if self._orders.asked(peer, incarnation, message):
                pass
            case _:
                log.warning(
                    "control message ignored %s",
                    fields(peer=peer, incarnation=incarnation, message=type(message).__name__),
                )

    def worker_ended(self, incarnation: Incarnation) -> None:
        """Nothing more comes of this worker."""
        self._replica_loads.ended(incarnation)

    def _worker_said(
        self,
        incarnation: Incarnation,
        message: WorkerHello | WorkerProgress | WorkerReady | WorkerHeartbeat,
    ) -> None:
        known = self._manager.worker_message(incarnation, message, self._loop.time())
        if isinstance(message, WorkerReady):
            self._worker_ready(incarnation)
        if isinstance(message, WorkerHello):
            self._processes.worker_said_hello(incarnation, message.pid)
            if known:
                self._metrics.joined(Peer.WORKER, incarnation)
        elif not known:
            log.debug("a worker that is gone still speaks %s", fields(incarnation=incarnation))
        elif isinstance(message, WorkerHeartbeat):
            self._metrics.executing(incarnation, message.in_flight)
            self._replica_loads.heard(incarnation, message)
        if not isinstance(message, WorkerHeartbeat):
            self._advance()

    def _frontend_said(self, incarnation: Incarnation, message: Message) -> None:
        if self._frontends.handle(incarnation, message):
            self._frontend_moved(incarnation, message)
            return
        if self._orders.asked(Peer.FRONTEND, incarnation, message):
            return
        match message:
            case Quarantined():
                self._quarantines.add(message)
                self._frontends.tell(message)
            case FrontendBindFailed(text):
                self._fail(FailedPrecondition(text))
            case StatusRequest(token):
                self._control.send(Peer.FRONTEND, incarnation, StatusReply(token, self._document.to_json()))
            case MetricsRequest(token):
                frontends, processes = self._frontends, self._processes
                page = self._metrics.page(
                    frontends.alive, frontends.restarts, processes.fork_server_pid, processes.shared_memory
                )
                self._control.send(Peer.FRONTEND, incarnation, MetricsReply(token, page))
            case _:
                log.warning("frontend message ignored %s", fields(message=type(message).__name__))

    def _frontend_moved(self, incarnation: Incarnation, message: Message) -> None:
        """What a frontend has said of itself was taken note of: what follows for others."""
        if isinstance(message, FrontendStats):
            self._tell_loads(incarnation)
            return
        if isinstance(message, FrontendHello):
            self._metrics.joined(Peer.FRONTEND, incarnation)
            for entry in self._quarantines.current(time.monotonic_ns()):
                self._control.send(Peer.FRONTEND, incarnation, entry)
        self._advance()

    def _tell_loads(self, frontend: Incarnation) -> None:
        stats = {name: each.stats for name, each in self._frontends.alive.items()}
        loads = self._replica_loads.view(frontend, stats, self._manager.board.table)
        self._control.send(Peer.FRONTEND, frontend, Pulse() if loads is None else loads)
