"""The frontends of a pool: started, told of routes, replaced when they die or stand still. Event loop only.

What a frontend acknowledges and lets go of is kept by `routes`; here is their life.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .control import ControlSocket
from .process import Exit, Processes
from .routes import RouteBoard
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import (
    DrainFrontend,
    FrontendHello,
    FrontendListening,
    FrontendSpec,
    FrontendStats,
    Message,
    OpenPorts,
    RoutesAck,
    WorkerReleased,
)
from .wire.sockets import Peer

log = logging.getLogger(__name__)

# A frontend that dies sooner than this after its start is not replaced at once.
_MIN_LIFE_S = 2.0
_CHECK_S = 2.0
# Frontends speak each second, from the first second of theirs on; their own imports come before it.
_SILENCE_S = 20.0


@dataclass(slots=True)
class Frontend:
    """One process. `stats`: what it said of itself last."""

    pid: int
    started_s: float
    heard_s: float
    listening: bool = False
    stats: FrontendStats | None = None


class Frontends:
    """All frontends. `spec` makes the specification of a new one."""

    def __init__(
        self,
        spec: Callable[[Incarnation], FrontendSpec],
        processes: Processes,
        control: ControlSocket,
        board: RouteBoard,
    ) -> None:
        self._spec = spec
        self._processes = processes
        self._control = control
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._alive: dict[Incarnation, Frontend] = {}
        self._open = False
        self._draining = False
        self.restarts = 0

    @property
    def alive(self) -> Mapping[Incarnation, Frontend]:
        return self._alive

    @property
    def listening(self) -> bool:
        """Some frontend takes requests."""
        return any(frontend.listening for frontend in self._alive.values())

    @property
    def up_to_date(self) -> bool:
        """There is a frontend, and every one has the newest routes."""
        return bool(self._alive) and self._board.acked_epoch == self._board.table.epoch

    def start(self) -> None:
        """Start one, now or, when it cannot be had, later; and watch over all of them from the first on."""
        if self._draining:
            return
        if not self.restarts and not self._alive:
            self._loop.call_later(_CHECK_S, self._check, self._loop.time() + _CHECK_S)
        incarnation = Incarnation(next(self._numbers))
        try:
            pid = self._processes.spawn_frontend(self._spec(incarnation))
        except OSError as error:
            log.error("frontend not started %s", fields(error=error))
            self._loop.call_later(_MIN_LIFE_S, self.start)
            return
        self._alive[incarnation] = Frontend(pid, self._loop.time(), self._loop.time())

    def exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        """A frontend's process is gone."""
        frontend = self._alive.pop(incarnation, None)
        self._board.leave(incarnation)
        if frontend is None or self._draining:
            return
        log.error("frontend gone %s", fields(incarnation=incarnation, pid=frontend.pid, cause=exit_.cause))
        self.restarts += 1
        lived_s = self._loop.time() - frontend.started_s
        self._loop.call_later(max(0.0, _MIN_LIFE_S - lived_s), self.start)

    def tell(self, message: Message) -> None:
        """Tell every frontend that has said hello. One that cannot be told would go wrong for ever, so it is killed."""
        self.tell_each(lambda _: message)

    def tell_each(self, message: Callable[[Incarnation], Message]) -> None:
        """As `tell`, with a message for each."""
        for incarnation in self._board.frontends:
            if not self._control.send(Peer.FRONTEND, incarnation, message(incarnation)):
                self._processes.kill_frontend(incarnation)

    def open_ports(self) -> None:
        """From now on every frontend listens."""
        self._open = True
        self.tell(OpenPorts())

    def replace_none(self) -> None:
        """Whoever dies from now on stays dead."""
        self._draining = True

    def drain(self, timeout_s: float) -> None:
        """Have all of them finish and go; none is replaced any more."""
        self.replace_none()
        for incarnation in list(self._alive):
            if not self._control.send(Peer.FRONTEND, incarnation, DrainFrontend(timeout_s)):
                self._processes.kill_frontend(incarnation)

    def handle(self, incarnation: Incarnation, message: Message) -> bool:
        """What a frontend says of itself and of its routes; False for what is somebody else's to answer."""
        frontend = self._alive[incarnation]
        frontend.heard_s = self._loop.time()
        match message:
            case FrontendHello():
                self._control.send(Peer.FRONTEND, incarnation, self._board.join(incarnation))
                if self._open:
                    self._control.send(Peer.FRONTEND, incarnation, OpenPorts())
            case RoutesAck(epoch):
                self._board.ack(incarnation, epoch)
            case WorkerReleased(worker):
                self._board.released(incarnation, worker)
            case FrontendStats():
                frontend.stats = message
            case FrontendListening():
                frontend.listening = True
            case _:
                return False
        return True

    def _check(self, due_s: float) -> None:
        """A frontend that says nothing for too long stands still: the next one takes its place."""
        now_s = self._loop.time()
        for incarnation, frontend in self._alive.items():
            if now_s - due_s > _CHECK_S:
                frontend.heard_s = now_s  # it is this process that stood still
            elif now_s - frontend.heard_s > _SILENCE_S:
                log.error("killing a frontend that is silent %s", fields(incarnation=incarnation, pid=frontend.pid))
                self._processes.kill_frontend(incarnation)
        if not self._draining:
            self._loop.call_later(_CHECK_S, self._check, now_s + _CHECK_S)
