"""The running pool: carries events to the manager and its commands to processes and sockets. The event loop's root.

Decides nothing about models: `manager` does. What is decided here is the order of start and end of the pool itself.
"""

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import cpu_parts, memory_book, restart_command, session_config, status
from .cgroup import MemoryGroups
from .chaos import Chaos, Hands
from .config import PoolConfig
from .configuration import Configuration, Seams
from .control import ControlSocket
from .crashes import Crashes
from .device_watch import DeviceWatch
from .devices import Inventory, Nvml
from .exits import Exit
from .frontends import SOCKET_SEAT, Frontends
from .limits import BEAT_S, Limits
from .loading_progress import run_loading_progress
from .manager import AnnounceDeath, Kill, Manager, ManagerOptions, Publish, Report, Spawn, Stop
from .memory_limit import Sample
from .model_config import ModelConfig
from .places import Places
from .pool_config import BatchingMode, ModelPolicy, PoolFile
from .pool_metrics import PoolMetrics
from .process import Processes, ProcessEvents
from .profilings import Asker, Profilings
from .quarantines import Quarantines
from .recordings import Recordings
from .replica_loads import ReplicaLoads
from .request_logs import RequestLogs
from .service_manager import ServiceManager
from .wire import codec, sockets
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import (
    EndProfile,
    FrontendBindFailed,
    FrontendDied,
    FrontendHello,
    FrontendSpec,
    FrontendStats,
    HurtModel,
    Message,
    MetricsReply,
    MetricsReport,
    MetricsRequest,
    Profiled,
    ProfileOf,
    Pulse,
    Quarantined,
    RecordWarmupOf,
    ReloadReply,
    ReloadRequest,
    Restarted,
    RestartOf,
    RetryOnCrash,
    SetRequestLog,
    StatusReply,
    StatusRequest,
    StopWorker,
    WarmupRecorded,
    WorkerBroken,
    WorkerDied,
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
    WorkerSpec,
)
from .wire.sockets import Peer
from .wire.status import FailedPrecondition, InvalidArgument, PoolError, StatusError

log = logging.getLogger(__name__)

# What a worker with nothing in flight may take to go, and a frontend beyond its drain timeout.
_EXIT_GRACE_S = 5.0


class Pool:
    """One pool, from start to exit. Made and run in one event loop, once."""

    def __init__(
        self,
        config: PoolConfig,
        models: Sequence[ModelConfig],
        pool_file: PoolFile,
        nvml: Nvml,
        inventory: Inventory,
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        cache_dir = Path(pool_file.source.cache_dir or config.default_cache_dir)
        fraction = session_config.gpu_memory_fraction(config.platform)
        self._places = Places(inventory, memory_book.read(cache_dir), fraction)
        self._device_watch = DeviceWatch(nvml, self._places, cache_dir, self._advance)
        self._manager = Manager(
            ManagerOptions(
                max_loading=config.max_loading,
                endpoint=lambda incarnation: sockets.data_endpoint(config.runtime_dir, incarnation),
                jitter=random.random,
                restart=config.restart,
                limits=Limits(load_s=config.load_timeout_s),
                places=self._places,
            )
        )
        self._processes = Processes(
            ProcessEvents(self._worker_spawned, self._worker_exited, self._frontend_exited, self._worker_memory),
            config.log_level,
            groups=MemoryGroups.find(config.name),
        )
        self._control = ControlSocket(sockets.control_endpoint(config.runtime_dir), self._received)
        hands = Hands(self._processes.kill_worker, self._processes.stop_worker, self._tell_worker)
        self._chaos = Chaos(config.allow_chaos, self._manager, hands, self._host_memory_mb)
        self._recordings = Recordings()
        self._profilings = Profilings(config.profiler_dir, socket.gethostname())
        self._request_logs = RequestLogs()
        pool_names = {"runtime_dir": str(config.runtime_dir), "grpc_port": config.grpc_port}
        self._crashes = Crashes(config.crash_dir, self._background, pool_names)
        self._replica_loads = ReplicaLoads()
        self._quarantines = Quarantines()
        self._metrics = PoolMetrics(self._manager)
        self._frontends = Frontends(
            config.frontends,
            config.engine,
            self._frontend_spec,
            processes=self._processes,
            control=self._control,
            board=self._manager.board,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._configuration = Configuration(
            config, models, pool_file, self._manager, Seams(self._advance, self._background, self._until)
        )
        self._service = ServiceManager(config.service)
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
            self._loop.set_exception_handler(self._callback_failed)
            self._service.start()
            self._processes.start_fork_server()
            self._frontends.start()
            self._configuration.start()
            if self._places.inventory.gpus:
                self._background(self._device_watch.run(), "devices")
            self._background(run_loading_progress(self._manager, self._loop.time), "loading progress")
            await self._end
            self._service.stopping()
            await self._leave()
            await self._drain()
        finally:
            await self._close()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(number)

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("signal received %s", fields(signal=number.name, count=self._signals))
        if not self._end.done():
            self._end.set_result(None)
        self._changed.set()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error in a timer, a signal handler or a reader is the pool's own, as one in a task is."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        if isinstance(error, Exception) and "handle" in context:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    async def _leave(self) -> None:
        """Say not ready, and serve on for as long as load balancers need to notice. A second signal cuts it short."""
        if self._ports_open and self._config.lame_duck_s:
            log.info("leaving %s", fields(lame_duck_s=self._config.lame_duck_s))
            self._frontends.leave()
            await self._until(lambda: self._signals > 1, self._config.lame_duck_s)

    async def _drain(self) -> None:
        """Ordered end: frontends finish what is in flight and go, then the workers, which nobody asks any more."""
        self._draining = True
        self._configuration.stop()
        timeout_s = self._config.drain_timeout_s
        self._frontends.drain(timeout_s)
        await self._until(lambda: not self._frontends.alive or self._signals > 1, timeout_s + _EXIT_GRACE_S)
        self._manager.shut_down(self._loop.time())
        self._processes.end_spawning()
        self._advance()
        await self._until(lambda: self._manager.all_gone or self._signals > 1, _EXIT_GRACE_S)
        if self._frontends.alive or not self._manager.all_gone:
            log.error("not gone in time, killed now %s", fields(frontends=len(self._frontends.alive)))

    async def _until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `done`, asked after each change, but for no longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    async def _close(self) -> None:
        """End whatever is left, however it came to this; nothing that dies now is replaced."""
        self._draining = True
        self._frontends.replace_none()
        self._manager.shut_down(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._processes.close()
        self._control.close()
        self._service.close()

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._watch(task)
        return task

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
                    self._metrics.spawned(command.slot, renewal=command.renewal)
                    self._processes.spawn_worker(self._worker_spec(command))
                case Stop(incarnation):
                    self._control.send(Peer.WORKER, incarnation, StopWorker())
                case Kill(incarnation, reason, hung):
                    log.warning("killing worker %s", fields(incarnation=incarnation, reason=reason))
                    self._processes.kill_worker(incarnation, hung=hung)
                case Publish(table):
                    self._frontends.tell(table)
                case Report(document):
                    self._crashes.keep(document)
                case AnnounceDeath():
                    self._frontends.tell_each(partial(_worker_died, command))
        for incarnation, request_log in self._request_logs.due(self._configuration.request_log):
            self._control.send(Peer.WORKER, incarnation, SetRequestLog(request_log))
        if self._timer is not None:
            self._timer.cancel()
        due_s = self._manager.next_deadline_s()
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._advance)
        if not self._ports_open and not self._draining:
            self._open_ports()
        if self._frontends.listening:
            self._service.ready()
        self._changed.set()

    def _open_ports(self) -> None:
        """Open the ports once every model has settled; or end the start, where that is what the operator wants."""
        if self._config.exit_on_startup_failure:
            failure = self._manager.startup_failure()
            if failure is not None:
                self._fail(StatusError(failure))
                return
        settled = self._manager.answering if self._config.exit_on_startup_failure else self._manager.settled
        if settled and self._frontends.up_to_date:  # so that the first request already finds its model
            self._ports_open = True
            self._frontends.open_ports()

    def _worker_spec(self, command: Spawn) -> WorkerSpec:
        policy = self._configuration.policy(command.slot.servable.name)
        platform = self._config.platform
        request_log = self._configuration.request_log(command.slot.servable.name)
        self._request_logs.started(command.incarnation, command.slot.servable.name, request_log)
        return WorkerSpec(
            incarnation=command.incarnation,
            name=command.slot.servable.name,
            version=command.slot.servable.version,
            path=command.path,
            device=command.device.id,
            cuda_visible_devices=command.device.cuda_visible_devices,
            data_endpoint=sockets.data_endpoint(self._config.runtime_dir, command.incarnation),
            control_endpoint=sockets.control_endpoint(self._config.runtime_dir),
            tags=platform.tags,
            warmup=platform.warmup,
            warmup_iterations=platform.warmup_iterations,
            auto_warmup=policy.auto_warmup,
            golden_rtol=policy.golden_rtol,
            golden_atol=policy.golden_atol,
            low_priority=self._ports_open and not command.urgent,
            heartbeat_s=BEAT_S,
            session_config=platform.session_config,
            check_method_names=self._config.check_method_names,
            tensor_content=self._config.tensor_content,
            op_libraries=policy.op_libraries,
            python_modules=policy.python_modules,
            xla=platform.xla,
            prefer_tflite=platform.prefer_tflite,
            tflite_interpreters=platform.tflite_interpreters,
            host_memory_bytes=int(policy.host_memory_mb * (1 << 20)),
            gpu_memory_limit_bytes=command.memory_limit_bytes,
            request_log=request_log,
            batching=platform.batching if policy.batching is BatchingMode.FLAGS else None,
            per_model_batching=platform.per_model_batching,
            auto_batching=policy.batching is BatchingMode.AUTO,
            latency_target_ms=policy.latency_target_ms,
            executors=policy.executors,
            run_again=policy.retry_on_crash is not RetryOnCrash.NEVER,
            cpus=_cpus(policy, command),
            cpu_weight=policy.cpu_weight,
            replica=command.slot.replica,
            metrics=bool(self._config.endpoints.metrics_path),
            deadly_size_bytes=self._chaos.deadly_size_bytes(command.slot.servable.name),
        )

    def _host_memory_mb(self, model: str) -> float:
        return self._configuration.policy(model).host_memory_mb

    def _tell_worker(self, incarnation: Incarnation, message: Message) -> None:
        self._control.send(Peer.WORKER, incarnation, message)

    # -- workers ---------------------------------------------------------------------------------------------

    def _worker_spawned(self, incarnation: Incarnation, pid: int) -> None:
        self._manager.spawned(incarnation, pid)

    def _worker_memory(self, incarnation: Incarnation, sample: Sample) -> None:
        if self._manager.memory_used(incarnation, sample, self._loop.time()):
            self._advance()

    def _worker_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        # A worker that goes in good order takes its socket's file along; a killed one cannot.
        self._config.data_socket(incarnation).unlink(missing_ok=True)
        for client, answer in self._recordings.died(incarnation):
            self._control.send(Peer.CLIENT, client, answer)
        for asker, lost in self._profilings.died(incarnation):
            self._control.send(asker.peer, asker.incarnation, lost)
        self._request_logs.exited(incarnation)
        self._replica_loads.ended(incarnation)
        words = _last_words(exit_)
        if words is not None:
            self._manager.worker_message(incarnation, words, self._loop.time())
        self._metrics.worker_ended(incarnation, exit_)
        self._manager.exited(incarnation, exit_, self._loop.time())
        self._device_watch.nudge()
        self._advance()

    # -- frontends -------------------------------------------------------------------------------------------

    def _frontend_spec(self, incarnation: Incarnation, seat: int) -> FrontendSpec:
        endpoints = self._config.endpoints
        return FrontendSpec(
            incarnation=incarnation,
            control_endpoint=sockets.control_endpoint(self._config.runtime_dir),
            grpc_port=self._config.grpc_port,
            rest_port=self._config.rest_port,
            grpc_socket_path=self._config.grpc_socket_path if seat == SOCKET_SEAT else "",
            rest_timeout_s=self._config.rest_timeout_s,
            max_request_bytes=self._config.max_request_bytes,
            log_level=self._config.log_level,
            rest_cors=endpoints.rest_cors,
            grpc_tls=endpoints.grpc_tls,
            rest_tls=endpoints.rest_tls,
            grpc_arguments=endpoints.grpc_arguments,
            health=endpoints.health,
            reflection=endpoints.reflection,
            profiler=endpoints.profiler,
            metrics_path=endpoints.metrics_path,
            frontends=self._config.frontends,
            engine=self._frontends.engine,
        )

    def _frontend_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        sockets.envoy_admin(self._config.runtime_dir, incarnation).unlink(missing_ok=True)
        sockets.envoy_config(self._config.runtime_dir, incarnation).unlink(missing_ok=True)
        self._frontends.exited(incarnation, exit_)
        for worker in self._manager.serving():
            self._control.send(Peer.WORKER, worker, FrontendDied(incarnation))
        self._metrics.frontend_ended(incarnation)
        self._advance()

    # -- messages --------------------------------------------------------------------------------------------

    def _received(self, peer: Peer, incarnation: Incarnation, message: Message) -> None:
        match peer, message:
            case Peer.WORKER, WorkerHello() | WorkerProgress() | WorkerReady() | WorkerHeartbeat():
                self._worker_said(incarnation, message)
            case Peer.WORKER | Peer.FRONTEND, MetricsReport():
                self._metrics.reported(peer, incarnation, message)
            case Peer.FRONTEND, _ if incarnation in self._frontends.alive:
                self._frontend_said(incarnation, message)
            case Peer.WORKER, WarmupRecorded(token):
                client = self._recordings.ended(token)
                if client is not None:
                    self._control.send(Peer.CLIENT, client, message)
            case Peer.WORKER, Profiled():
                ended = self._profilings.ended(message)
                if ended is not None:
                    self._control.send(ended[0].peer, ended[0].incarnation, ended[1])
            case Peer.CLIENT, _:
                self._client_said(incarnation, message)
            case _:
                _ignored(peer, incarnation, message)

    def _client_said(self, client: Incarnation, message: Message) -> None:
        """The command line has a question."""
        match message:
            case ProfileOf():
                self._profile(Peer.CLIENT, client, message)
            case RecordWarmupOf():
                self._record_warmup(client, message)
            case HurtModel():
                self._control.send(Peer.CLIENT, client, self._chaos.hurt(message))
            case RestartOf():
                self._background(self._restart(client, message), "restart")
            case StatusRequest(token):
                self._control.send(Peer.CLIENT, client, StatusReply(token, self._status()))
            case _:
                _ignored(Peer.CLIENT, client, message)

    def _worker_said(
        self,
        incarnation: Incarnation,
        message: WorkerHello | WorkerProgress | WorkerReady | WorkerHeartbeat,
    ) -> None:
        known = self._manager.worker_message(incarnation, message, self._loop.time())
        if isinstance(message, WorkerReady):
            self._request_logs.ready(incarnation)
            self._device_watch.nudge()
            self._chaos.ready(incarnation)
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
        match message:
            case Quarantined():
                self._quarantines.add(message)
                self._frontends.tell(message)
            case FrontendBindFailed(text):
                self._fail(FailedPrecondition(text))
            case StatusRequest(token):
                self._control.send(Peer.FRONTEND, incarnation, StatusReply(token, self._status()))
            case MetricsRequest(token):
                page = self._metrics.page(
                    self._frontends.alive, self._frontends.restarts, self._processes.fork_server_pid
                )
                self._control.send(Peer.FRONTEND, incarnation, MetricsReply(token, page))
            case ProfileOf():
                self._profile(Peer.FRONTEND, incarnation, message)
            case EndProfile(session):
                for worker in self._profilings.workers(session):
                    self._control.send(Peer.WORKER, worker, message)
            case ReloadRequest(token, request):
                self._background(self._reload(incarnation, token, request), "reload")
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

    def _record_warmup(self, client: Incarnation, wanted: RecordWarmupOf) -> None:
        """Pass the order on to a worker that serves the model, if its operator allows recording."""
        token = wanted.order.token
        try:
            if not self._configuration.policy(wanted.model).record_warmup:
                raise FailedPrecondition(
                    f"recording is off for model {wanted.model}: set record_warmup = true for it in --pool_config_file"
                )
            worker = self._manager.ready_worker(wanted.model, wanted.version)
        except PoolError as error:
            answer = WarmupRecorded(token, error.status.code, error.message, 0)
            self._control.send(Peer.CLIENT, client, answer)
            return
        self._recordings.begin(token, client, worker)
        self._control.send(Peer.WORKER, worker, wanted.order)

    async def _restart(self, client: Incarnation, wanted: RestartOf) -> None:
        """Restart workers by hand, and say how that ended."""
        try:
            restarts = self._manager.restart(wanted.model, wanted.version, self._loop.time())
        except PoolError as error:
            self._control.send(Peer.CLIENT, client, Restarted(wanted.token, error.status.code, error.message))
            return
        self._advance()
        ended = self._manager.restarted
        await self._until(lambda: all(ended(each) is not None for each in restarts), wanted.timeout_s)
        self._control.send(Peer.CLIENT, client, restart_command.outcome(wanted, [(r.slot, ended(r)) for r in restarts]))

    def _profile(self, peer: Peer, asker: Incarnation, wanted: ProfileOf) -> None:
        """Have a worker that serves the model traced, where its file may go to the place that was asked for."""
        token = wanted.order.token
        try:
            order = self._profilings.order(peer, wanted)
            worker = self._manager.ready_worker(wanted.model, wanted.version)
        except PoolError as error:
            self._control.send(peer, asker, Profiled(token, error.status.code, error.message, "", False))
            return
        order = self._profilings.begin(Asker(peer, asker, token), worker, order)
        self._control.send(Peer.WORKER, worker, order)

    async def _reload(self, frontend: Incarnation, token: int, request: bytes) -> None:
        status = await self._configuration.reload(request)
        log.info("reload done %s", fields(status=status))
        self._control.send(Peer.FRONTEND, frontend, ReloadReply(token, status.code, status.message))

    def _status(self) -> bytes:
        frontends = {
            incarnation: (frontend.pid, frontend.stats) for incarnation, frontend in self._frontends.alive.items()
        }
        supervisor = {
            "serving": self._frontends.listening,
            "fork_server_pid": self._processes.fork_server_pid,
            "frontend_restarts": self._frontends.restarts,
            "allow_chaos": self._chaos.allowed,
            "configuration_errors": {
                flag: {"code": error.code.name, "message": error.message}
                for flag, error in self._configuration.errors.items()
            },
            "runtime_dir": str(self._config.runtime_dir),
            "crash_dir": str(self._crashes.directory),
            "crash_reports_lost": self._crashes.lost,
            **self._config.listening(),
        }
        return status.to_json(status.pool_status(self._manager, frontends, supervisor, self._loop.time()))


def _cpus(policy: ModelPolicy, command: Spawn) -> tuple[int, ...]:
    """Those that a worker may use, () for all."""
    cpus = policy.cpu_numbers()
    if policy.divide_cpus and command.parts > 1:
        return cpu_parts.part(cpus or os.sched_getaffinity(0), command.part, command.parts)
    return cpus


def _ignored(peer: Peer, incarnation: Incarnation, message: Message) -> None:
    log.warning(
        "control message ignored %s", fields(peer=peer, incarnation=incarnation, message=type(message).__name__)
    )


def _last_words(exit_: Exit) -> WorkerLoadFailed | WorkerBroken | None:
    """Why a worker says it could not load its model, or not go on; None when it said nothing of this kind."""
    if not exit_.recording.last_words:
        return None
    try:
        message = codec.decode(exit_.recording.last_words)
    except InvalidArgument as error:
        log.warning("last words ignored %s", fields(cause=exit_.cause, error=error.message))
        return None
    return message if isinstance(message, WorkerLoadFailed | WorkerBroken) else None


def _worker_died(death: AnnounceDeath, frontend: Incarnation) -> WorkerDied:
    """What one frontend is told of a death: its own requests among those that the worker was at."""
    executing, finished = (
        tuple(flight.request_id for flight in flights if flight.frontend == frontend)
        for flights in (death.recording.executing, death.recording.finished)
    )
    return WorkerDied(death.incarnation, death.cause, executing, finished)
