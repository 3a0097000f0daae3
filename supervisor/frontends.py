"""The frontends of a pool: started, told of routes, replaced when they die or stand still. Event loop only.

What a frontend acknowledges and lets go of is kept by `routes`; here is their life. Each fills one of a fixed number of
*seats*. All listen on the same TCP ports, among which the kernel shares out new connections; the unix socket, a file
that only one process can bind (and neither engine takes a descriptor that listens already), goes with the first seat.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .control import ControlSocket
from .exits import Exit
from .process import Processes
from .routes import RouteBoard
from .wire.client_messages import StatusRequest
from .wire.frontend_messages import (
    DrainFrontend,
    FrontendHello,
    FrontendListening,
    FrontendStats,
    LameDuck,
    OpenPorts,
    RoutesAck,
    WorkerReleased,
)
from .wire.frontend_spec import Engine, FrontendSpec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.sockets import Peer

log = logging.getLogger(__name__)

SOCKET_SEAT = 0
# A frontend that has listened is replaced at once, unless this is the third in a row that lived for less than this;
# one that never did is replaced after so much time from its start.
_MIN_LIFE_S = 2.0
_QUICK_REPLACEMENTS = 2
_CHECK_S = 2.0
# Frontends speak each second, from the first second of theirs on; their own imports come before it.
_SILENCE_S = 20.0


@dataclass(slots=True)
class Frontend:
    """One process. `stats`: what it said of itself last."""

    pid: int
    seat: int
    started_s: float
    heard_s: float
    listening: bool = False
    stats: FrontendStats | None = None


class Frontends:
    """All frontends, `count` of them. `spec` makes the specification of a new one for a seat."""

    def __init__(
        self,
        count: int,
        engine: Engine,
        spec: Callable[[Incarnation, int], FrontendSpec],
        *,
        processes: Processes,
        control: ControlSocket,
        board: RouteBoard,
    ) -> None:
        self._short_lives = [0] * count
        self.engine = engine
        """What new ones are to be made of."""
        self._greeted = False
        self._spec = spec
        self._processes = processes
        self._control = control
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._alive: dict[Incarnation, Frontend] = {}
        self._open = False
        self._leaving = False
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
        """There is a frontend, and every one has said hello and has the newest routes."""
        everybody = self._board.frontends.keys() >= self._alive.keys()
        return bool(self._alive) and everybody and self._board.acked_epoch == self._board.table.epoch

    def start(self) -> None:
        """Start all of them and watch over them from now on. Once."""
        self._loop.call_later(_CHECK_S, self._check, self._loop.time() + _CHECK_S)
        for seat in range(len(self._short_lives)):
            self._fill(seat)

    def _fill(self, seat: int) -> None:
        """Start one, now or, when it cannot be had, later."""
        if self._draining:
            return
        incarnation = Incarnation(next(self._numbers))
        try:
            pid = self._processes.spawn_frontend(self._spec(incarnation, seat))
        except OSError as error:
            log.error("frontend not started %s", fields(error=error))
            self._loop.call_later(_MIN_LIFE_S, self._fill, seat)
            return
        self._alive[incarnation] = Frontend(pid, seat, self._loop.time(), self._loop.time())

    def exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        """A frontend's process is gone."""
        frontend = self._alive.pop(incarnation, None)
        self._board.leave(incarnation)
        if frontend is None or self._draining:
            return
        log.error("frontend gone %s", fields(incarnation=incarnation, pid=frontend.pid, cause=exit_.cause))
        self.restarts += 1
        if self.engine is Engine.AUTO and not self._greeted:
            # Where Envoy cannot start, it dies before it has said a word.
            log.error("frontends are made of grpcio from now on, none could be had with Envoy")
            self.engine = Engine.GRPCIO
        lived_s = self._loop.time() - frontend.started_s
        short_lives = self._short_lives[frontend.seat] + 1 if lived_s < _MIN_LIFE_S else 0
        self._short_lives[frontend.seat] = short_lives
        delay_s = restart_delay_s(frontend.listening, lived_s, short_lives)
        if delay_s:
            self._loop.call_later(delay_s, self._fill, frontend.seat)
        else:
            self._fill(frontend.seat)

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

    def leave(self) -> None:
        """From now on every frontend says that it is not ready, and serves as before."""
        self._leaving = True
        self.tell(LameDuck())

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
                self._greeted = True
                self._control.send(Peer.FRONTEND, incarnation, self._board.join(incarnation))
                if self._leaving:
                    self._control.send(Peer.FRONTEND, incarnation, LameDuck())
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
            case StatusRequest():
                frontend.listening = True  # a client has reached it, though Envoy is slow to tell that it can be
                return False
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


def restart_delay_s(listened: bool, lived_s: float, short_lives: int) -> float:
    """How long the seat of a frontend that died stays empty.

    `listened`: it took requests; `short_lives`: so many in a row, this one included, lived for less than a moment.
    """
    if listened and short_lives <= _QUICK_REPLACEMENTS:
        return 0.0
    return max(0.0, _MIN_LIFE_S - lived_s)
