"""The running pool: carries events to the manager and its commands to processes and sockets. The event loop's root.

Decides nothing about models: `manager` does. What is decided here is the order of start and end of the pool itself.
"""

import asyncio
import itertools
import logging
import random
import signal
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from . import source, status
from .config import PoolConfig
from .control import ControlSocket
from .manager import AnnounceDeath, Kill, Manager, ManagerOptions, Publish, Spawn, Stop
from .model import ModelSettings
from .model_config import ModelConfig
from .process import Exit, Processes, ProcessEvents
from .wire import sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import (
    DrainFrontend,
    FrontendBindFailed,
    FrontendHello,
    FrontendListening,
    FrontendSpec,
    FrontendStats,
    Message,
    OpenPorts,
    RoutesAck,
    StatusReply,
    StatusRequest,
    StopWorker,
    WorkerDied,
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
    WorkerReleased,
    WorkerSpec,
)
from .wire.sockets import Peer
from .wire.status import FailedPrecondition, PoolError

log = logging.getLogger(__name__)

_HEARTBEAT_S = 0.5
# A frontend that dies sooner than this after its start is not replaced at once.
_FRONTEND_MIN_LIFE_S = 2.0
# What a worker with nothing in flight may take to go, and a frontend beyond its drain timeout.
_EXIT_GRACE_S = 5.0


@dataclass(slots=True)
class _Frontend:
    pid: int
    started_s: float
    stats: FrontendStats | None = None


class Pool:
    """One pool, from start to exit. Made and run in one event loop, once."""

    def __init__(self, config: PoolConfig, models: Sequence[ModelConfig]) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._models = {model.name: model for model in models}
        self._manager = Manager(
            ManagerOptions(
                devices=config.devices,
                max_loading=config.max_loading,
                endpoint=lambda incarnation: sockets.data_endpoint(config.runtime_dir, incarnation),
                jitter=random.random,
                restart=config.restart,
                drain_timeout_s=config.drain_timeout_s,
            )
        )
        self._processes = Processes(
            ProcessEvents(self._worker_spawned, self._worker_exited, self._frontend_exited), config.log_level
        )
        self._control = ControlSocket(sockets.control_endpoint(config.runtime_dir), self._received)
        self._frontends: dict[Incarnation, _Frontend] = {}
        self._frontend_numbers = itertools.count(1)
        self._frontend_restarts = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pollers: dict[str, asyncio.Task[None]] = {}
        self._ports_open = False
        self._draining = False
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._changed = asyncio.Event()
        self._signals = 0

    # -- the whole life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal. Raises PoolError when the start fails. A second signal ends it without draining."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        try:
            self._watch(self._control.task)
            self._processes.start_fork_server()
            self._start_frontend()
            self._configure(tuple(self._models.values()))
            if self._config.model_config_file and self._config.model_config_poll_s > 0:
                self._background(self._poll_model_config(), "model config")
            await self._end
            await self._drain()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(number)
            await self._close()

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("signal received %s", fields(signal=number.name, count=self._signals))
        if not self._end.done():
            self._end.set_result(None)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    async def _drain(self) -> None:
        """Ordered end: frontends finish what is in flight and go, then the workers, which nobody asks any more."""
        self._draining = True
        for poller in self._pollers.values():
            poller.cancel()
        timeout_s = self._config.drain_timeout_s
        for incarnation in list(self._frontends):
            if not self._control.send(Peer.FRONTEND, incarnation, DrainFrontend(timeout_s)):
                self._processes.kill_frontend(incarnation)
        await self._until(lambda: not self._frontends, timeout_s + _EXIT_GRACE_S, "frontends")
        self._manager.shut_down(self._loop.time())
        self._advance()
        await self._until(lambda: self._manager.all_gone, _EXIT_GRACE_S, "workers")

    async def _until(self, done: Any, timeout_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not done() and self._signals < 2:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.error("not gone in time, killed now %s", fields(what=what, timeout_s=timeout_s))

    async def _close(self) -> None:
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
        for poller in self._pollers.values():
            poller.cancel()
        await asyncio.gather(*self._pollers.values(), return_exceptions=True)
        await self._processes.close()
        await self._control.close()

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._pollers[name] = asyncio.create_task(work, name=name)
        self._watch(task)

    def _watch(self, task: "asyncio.Task[None]") -> None:
        """A task of the pool never ends by itself: an error in one is the pool's own error."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        task.add_done_callback(ended)

    # -- the manager -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let the manager recompute everything, do what it says, and come back when it wants."""
        for command in self._manager.advance(self._loop.time()):
            match command:
                case Spawn():
                    self._processes.spawn_worker(self._worker_spec(command))
                case Stop(incarnation):
                    self._control.send(Peer.WORKER, incarnation, StopWorker())
                case Kill(incarnation, reason):
                    log.warning("killing worker %s", fields(incarnation=incarnation, reason=reason))
                    self._processes.kill_worker(incarnation)
                case Publish(table):
                    self._tell_frontends(table)
                case AnnounceDeath(incarnation, cause):
                    self._tell_frontends(WorkerDied(incarnation, cause))
        if self._timer is not None:
            self._timer.cancel()
        due_s = self._manager.next_deadline_s()
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._advance)
        if not self._ports_open and self._manager.settled and self._ready_to_open():
            self._ports_open = True
            self._tell_frontends(OpenPorts())
        self._changed.set()

    def _ready_to_open(self) -> bool:
        """Every frontend has the newest routes, so the first request already finds its model."""
        return bool(self._frontends) and self._manager.board.acked_epoch == self._manager.board.table.epoch

    def _worker_spec(self, command: Spawn) -> WorkerSpec:
        return WorkerSpec(
            incarnation=command.incarnation,
            name=command.slot.servable.name,
            version=command.slot.servable.version,
            path=command.path,
            device=command.device.id,
            cuda_visible_devices=command.device.cuda_visible_devices,
            data_endpoint=sockets.data_endpoint(self._config.runtime_dir, command.incarnation),
            control_endpoint=sockets.control_endpoint(self._config.runtime_dir),
            tags=self._config.saved_model_tags,
            warmup=self._config.warmup,
            warmup_iterations=self._config.warmup_iterations,
            auto_warmup=False,
            golden_rtol=1e-5,
            golden_atol=1e-6,
            heartbeat_s=_HEARTBEAT_S,
        )

    # -- sources ---------------------------------------------------------------------------------------------

    def _configure(self, models: Sequence[ModelConfig]) -> None:
        """Take over a model configuration as a whole."""
        for name in list(self._pollers):
            if name.startswith("source "):
                self._pollers.pop(name).cancel()
        self._models = {model.name: model for model in models}
        self._manager.configure({model.name: ModelSettings(dict(model.labels)) for model in models})
        for model in models:
            self._background(self._poll_source(model), f"source {model.name}")
        self._advance()

    async def _poll_source(self, model: ModelConfig) -> None:
        """Look for versions of one model; in a thread, so that a file system that hangs stops nobody else."""
        said: tuple[str, ...] = ()
        while self._config.source_poll_s >= 0:
            poll = await asyncio.to_thread(source.poll, model)
            notes = (*poll.warnings, *((str(poll.error),) if poll.error is not None else ()))
            for note in notes:
                if note not in said:
                    log.warning("source %s", fields(model=model.name, note=note))
            said = notes
            if poll.error is not None:
                self._manager.source_failed(model.name, poll.error)
            else:
                self._manager.aspire(model.name, poll.versions)
            self._advance()
            if self._config.source_poll_s == 0:
                return
            await asyncio.sleep(self._config.source_poll_s)

    async def _poll_model_config(self) -> None:
        """Re-read the model configuration; one that cannot be taken is logged, and the last good one stays."""
        last = None
        while True:
            await asyncio.sleep(self._config.model_config_poll_s)
            try:
                models = await asyncio.to_thread(self._config.read_models, tuple(self._models.values()))
            except PoolError as error:
                if error.message != last:
                    log.error("model configuration refused, the last good one stays %s", fields(error=error.message))
                last = error.message
                continue
            last = None
            if models != tuple(self._models.values()):
                log.info("model configuration changed %s", fields(models=len(models)))
                self._configure(models)

    # -- workers ---------------------------------------------------------------------------------------------

    def _worker_spawned(self, incarnation: Incarnation, pid: int) -> None:
        self._manager.spawned(incarnation, pid)

    def _worker_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        self._manager.exited(incarnation, exit_, self._loop.time())
        self._advance()

    # -- frontends -------------------------------------------------------------------------------------------

    def _start_frontend(self) -> None:
        if self._draining:
            return
        incarnation = Incarnation(next(self._frontend_numbers))
        pid = self._processes.spawn_frontend(
            FrontendSpec(
                incarnation=incarnation,
                index=0,
                control_endpoint=sockets.control_endpoint(self._config.runtime_dir),
                grpc_port=self._config.grpc_port,
                rest_port=self._config.rest_port,
                grpc_socket_path=self._config.grpc_socket_path,
                rest_timeout_s=self._config.rest_timeout_s,
                max_request_bytes=self._config.max_request_bytes,
                log_level=self._config.log_level,
            )
        )
        self._frontends[incarnation] = _Frontend(pid, self._loop.time())

    def _frontend_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        frontend = self._frontends.pop(incarnation, None)
        self._manager.board.leave(incarnation)
        if frontend is not None and not self._draining:
            log.error("frontend gone %s", fields(incarnation=incarnation, pid=frontend.pid, cause=exit_.cause))
            self._frontend_restarts += 1
            lived_s = self._loop.time() - frontend.started_s
            self._loop.call_later(max(0.0, _FRONTEND_MIN_LIFE_S - lived_s), self._start_frontend)
        self._advance()

    def _tell_frontends(self, message: Message) -> None:
        for incarnation in self._manager.board.frontends:
            if not self._control.send(Peer.FRONTEND, incarnation, message):
                # It would route by an old table for ever; its successor starts with the newest one.
                self._processes.kill_frontend(incarnation)

    # -- messages --------------------------------------------------------------------------------------------

    def _received(self, peer: Peer, incarnation: Incarnation, message: Message) -> None:
        match peer, message:
            case Peer.WORKER, WorkerHello() | WorkerProgress() | WorkerReady() | WorkerLoadFailed() | WorkerHeartbeat():
                self._worker_said(incarnation, message)
            case Peer.FRONTEND, _ if incarnation in self._frontends:
                self._frontend_said(incarnation, message)
            case Peer.CLIENT, StatusRequest(token):
                self._control.send(peer, incarnation, StatusReply(token, self._status()))
            case _:
                names = fields(peer=peer, incarnation=incarnation, message=type(message).__name__)
                log.warning("control message ignored %s", names)

    def _worker_said(
        self,
        incarnation: Incarnation,
        message: WorkerHello | WorkerProgress | WorkerReady | WorkerLoadFailed | WorkerHeartbeat,
    ) -> None:
        known = self._manager.worker_message(incarnation, message, self._loop.time())
        if not known and isinstance(message, WorkerHello):
            self._processes.kill_stray_worker(message.pid)
        if not isinstance(message, WorkerHeartbeat):
            self._advance()

    def _frontend_said(self, incarnation: Incarnation, message: Message) -> None:
        board = self._manager.board
        match message:
            case FrontendHello():
                self._control.send(Peer.FRONTEND, incarnation, board.join(incarnation))
                if self._ports_open:
                    self._control.send(Peer.FRONTEND, incarnation, OpenPorts())
            case RoutesAck(epoch):
                board.ack(incarnation, epoch)
                self._advance()
            case WorkerReleased(worker):
                board.released(incarnation, worker)
                self._advance()
            case FrontendStats():
                self._frontends[incarnation].stats = message
            case FrontendListening():
                log.info("serving %s", fields(**self._config.listening()))
            case FrontendBindFailed(text):
                self._fail(FailedPrecondition(text))
            case StatusRequest(token):
                self._control.send(Peer.FRONTEND, incarnation, StatusReply(token, self._status()))
            case _:
                log.warning("frontend message ignored %s", fields(message=type(message).__name__))

    def _status(self) -> bytes:
        frontends = {incarnation: (frontend.pid, frontend.stats) for incarnation, frontend in self._frontends.items()}
        supervisor = {
            "serving": self._ports_open,
            "fork_server_pid": self._processes.fork_server_pid,
            "frontend_restarts": self._frontend_restarts,
            "runtime_dir": str(self._config.runtime_dir),
            **self._config.listening(),
        }
        return status.to_json(status.pool_status(self._manager, frontends, supervisor, self._loop.time()))
