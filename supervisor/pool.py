"""The running pool: carries events to the manager and its commands to processes and sockets. The event loop's root.

Decides nothing about models: `manager` does. What is decided here is the order of start and end of the pool itself.
"""

import asyncio
import logging
import random
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import deaths, memory_book, session_config, specs
from .arenas import Arenas
from .cgroup import MemoryGroups
from .chaos import Chaos, Hands
from .commands import AnnounceDeath, Kill, Publish, Report, Spawn, Stop
from .config import PoolConfig
from .configuration import Configuration, Seams
from .control import ControlSocket
from .cpu_watch import CpuWatch, Tenant
from .crashes import Crashes
from .device_watch import DeviceWatch
from .devices import Inventory, Nvml
from .exits import Exit
from .frontends import Frontends
from .limits import Limits
from .loading_progress import run_loading_progress
from .manager import Manager, ManagerOptions
from .memory_limit import Sample
from .model_config import ModelConfig
from .orders import Orders
from .places import Places
from .pool_config import PoolFile
from .pool_metrics import PoolMetrics
from .process import Processes, ProcessEvents
from .profilings import Profilings
from .reception import Reception
from .request_logs import RequestLogs
from .service_manager import ServiceManager
from .status_document import StatusDocument
from .tasks import Tasks
from .wire import sockets
from .wire.frontend_spec import FrontendSpec
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.messages import Message
from .wire.sockets import Peer
from .wire.status import StatusError
from .wire.worker_messages import FrontendDied, SetRequestLog, StopWorker
from .wire.worker_spec import WorkerSpec

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
        self._tasks = Tasks()
        cache_dir = Path(pool_file.source.cache_dir or config.default_cache_dir)
        fraction = session_config.gpu_memory_fraction(config.platform)
        runs_on_cpu = partial(session_config.runs_on_cpu, config.platform)
        self._places = Places(inventory, memory_book.read(cache_dir), fraction, runs_on_cpu)
        self._device_watch = DeviceWatch(nvml, self._places, cache_dir, self._advance)
        self._manager = Manager(_manager_options(config, self._places))
        self._processes = self._make_processes()
        self._control = ControlSocket(sockets.control_endpoint(config.runtime_dir), self._received)
        hands = Hands(self._processes.kill_worker, self._processes.stop_worker, self._tell_worker)
        self._chaos = Chaos(config.allow_chaos, self._manager, hands, self._host_memory_mb)
        self._request_logs = RequestLogs()
        self._metrics = PoolMetrics(self._manager)
        self._frontends = Frontends(
            config.frontends,
            config.engine,
            self._frontend_spec,
            processes=self._processes,
            control=self._control,
            board=self._manager.board,
        )
        seams = Seams(self._advance, self._tasks.background, self._tasks.until)
        self._configuration = Configuration(config, models, pool_file, self._manager, seams)
        self._orders = self._make_orders(seams)
        self._crashes = self._make_crashes()
        self._reception = self._make_reception()
        self._service = ServiceManager(config.service)
        self._timer: asyncio.TimerHandle | None = None
        self._ports_open = False
        self._draining = False
        self._signals = 0

    def _make_processes(self) -> Processes:
        return Processes(
            ProcessEvents(self._worker_spawned, self._worker_exited, self._frontend_exited, self._worker_memory),
            self._config.log_level,
            groups=MemoryGroups.find(self._config.name),
            arenas=self._make_arenas(),
        )

    def _make_arenas(self) -> Arenas:
        config = self._config
        of_each, of_all = config.shared_memory_bytes, config.shared_memory_total_bytes
        return Arenas(config.runtime_dir, of_each, of_all, config.frontends)

    def _make_orders(self, seams: Seams) -> Orders:
        profilings = Profilings(self._config.profiler_dir, socket.gethostname())
        return Orders(self._manager, self._configuration, self._chaos, profilings, send=self._control.send, seams=seams)

    def _make_crashes(self) -> Crashes:
        config = self._config
        pool_names = {"runtime_dir": str(config.runtime_dir), "grpc_port": config.grpc_port}
        return Crashes(config.crash_dir, self._tasks.background, pool_names)

    def _make_reception(self) -> Reception:
        document = StatusDocument(
            self._config,
            self._manager,
            self._processes,
            self._frontends,
            configuration=self._configuration,
            chaos=self._chaos,
            crashes=self._crashes,
        )
        return Reception(
            self._manager,
            self._control,
            self._processes,
            self._frontends,
            metrics=self._metrics,
            orders=self._orders,
            document=document,
            worker_ready=self._worker_ready,
            advance=self._advance,
            fail=self._tasks.fail,
        )

    # -- the whole life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal. Raises PoolError when the start fails. A second signal ends it without draining."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        try:
            self._loop.set_exception_handler(self._tasks.callback_failed)
            self._service.start()
            self._processes.start_fork_server()
            self._frontends.start()
            self._configuration.start()
            self._tasks.background(self._device_watch.run(), "devices")
            self._tasks.background(run_loading_progress(self._manager, self._loop.time), "loading progress")
            self._tasks.background(CpuWatch(self._tenants).run(), "CPUs")
            await self._tasks.ended
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
        self._tasks.end()
        self._tasks.changed()

    async def _leave(self) -> None:
        """Say not ready, and serve on for as long as load balancers need to notice. A second signal cuts it short."""
        if self._ports_open and self._config.lame_duck_s:
            log.info("leaving %s", fields(lame_duck_s=self._config.lame_duck_s))
            self._frontends.leave()
            await self._tasks.until(lambda: self._signals > 1, self._config.lame_duck_s)

    async def _drain(self) -> None:
        """Ordered end: frontends finish what is in flight and go, then the workers, which nobody asks any more."""
        self._draining = True
        self._configuration.stop()
        timeout_s = self._config.drain_timeout_s
        self._frontends.drain(timeout_s)
        await self._tasks.until(lambda: not self._frontends.alive or self._signals > 1, timeout_s + _EXIT_GRACE_S)
        self._manager.shut_down(self._loop.time())
        self._processes.end_spawning()
        self._advance()
        await self._tasks.until(lambda: self._manager.workers.all_gone or self._signals > 1, _EXIT_GRACE_S)
        if self._frontends.alive or not self._manager.workers.all_gone:
            log.error("not gone in time, killed now %s", fields(frontends=len(self._frontends.alive)))

    async def _close(self) -> None:
        """End whatever is left, however it came to this; nothing that dies now is replaced."""
        self._draining = True
        self._frontends.replace_none()
        self._manager.shut_down(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.cancel()
        await self._processes.close()
        self._control.close()
        self._service.close()

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
                    self._frontends.tell_each(partial(deaths.told_to, death=command))
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
        self._tasks.changed()

    def _open_ports(self) -> None:
        """Open the ports once every model has settled; or end the start, where that is what the operator wants."""
        if self._config.exit_on_startup_failure:
            failure = self._manager.startup_failure()
            if failure is not None:
                self._tasks.fail(StatusError(failure))
                return
        settled = self._manager.answering if self._config.exit_on_startup_failure else self._manager.settled
        if settled and self._frontends.up_to_date:  # so that the first request already finds its model
            self._ports_open = True
            self._frontends.open_ports()

    def _worker_spec(self, command: Spawn) -> WorkerSpec:
        model = command.slot.servable.name
        request_log = self._configuration.request_log(model)
        self._request_logs.started(command.incarnation, model, request_log)
        return specs.worker_spec(
            command,
            self._config,
            self._configuration.policy(model),
            request_log=request_log,
            load_priority=specs.load_priority(
                urgent=command.urgent,
                open_ports=self._ports_open,
                others_serve=bool(self._manager.workers.serving()),
            ),
            deadly_size_bytes=self._chaos.deadly_size_bytes(model),
        )

    def _tenants(self) -> dict[int, Tenant]:
        policy, workers = self._configuration.policy, self._manager.workers
        pressed = workers.pressed(self._loop.time())
        return {
            pid: Tenant(name, policy(name).cpu_weight, pressed=pid in pressed)
            for pid, name in workers.serving_pids().items()
        }

    def _host_memory_mb(self, model: str) -> float:
        return self._configuration.policy(model).host_memory_mb

    def _received(self, peer: Peer, incarnation: Incarnation, message: Message) -> None:
        self._reception.received(peer, incarnation, message)

    def _tell_worker(self, incarnation: Incarnation, message: Message) -> None:
        self._control.send(Peer.WORKER, incarnation, message)

    # -- workers ---------------------------------------------------------------------------------------------

    def _worker_spawned(self, incarnation: Incarnation, pid: int) -> None:
        self._manager.workers.spawned(incarnation, pid)

    def _worker_ready(self, incarnation: Incarnation) -> None:
        self._request_logs.ready(incarnation)
        self._device_watch.nudge()
        self._chaos.ready(incarnation)

    def _worker_memory(self, incarnation: Incarnation, sample: Sample) -> None:
        if self._manager.memory_used(incarnation, sample, self._loop.time()):
            self._advance()

    def _worker_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        # A worker that goes in good order takes its socket's file along; a killed one cannot.
        self._config.data_socket(incarnation).unlink(missing_ok=True)
        self._orders.worker_died(incarnation)
        self._request_logs.exited(incarnation)
        self._reception.worker_ended(incarnation)
        words = deaths.last_words(exit_)
        if words is not None:
            self._manager.worker_message(incarnation, words, self._loop.time())
        self._metrics.worker_ended(incarnation, exit_)
        self._manager.exited(incarnation, exit_, self._loop.time())
        self._device_watch.nudge()
        self._advance()

    # -- frontends -------------------------------------------------------------------------------------------

    def _frontend_spec(self, incarnation: Incarnation, seat: int) -> FrontendSpec:
        return specs.frontend_spec(incarnation, seat, self._config, self._frontends.engine)

    def _frontend_exited(self, incarnation: Incarnation, exit_: Exit) -> None:
        for path in sockets.envoy_files(self._config.runtime_dir, incarnation):
            path.unlink(missing_ok=True)
        self._frontends.exited(incarnation, exit_)
        for worker in self._manager.workers.serving():
            self._control.send(Peer.WORKER, worker, FrontendDied(incarnation))
        self._metrics.frontend_ended(incarnation)
        self._advance()


def _manager_options(config: PoolConfig, places: Places) -> ManagerOptions:
    return ManagerOptions(
        max_loading=config.max_loading,
        endpoint=lambda incarnation: sockets.data_endpoint(config.runtime_dir, incarnation),
        jitter=random.random,
        restart=config.restart,
        limits=Limits(load_s=config.load_timeout_s),
        places=places,
    )
