"""One life of a frontend: what each control message means, and when the process ends. In the event loop.

It puts core, control socket and an engine together and decides nothing about a single request.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine
from functools import partial
from typing import Any

import zmq

from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.frontend_messages import (
    DrainFrontend,
    FrontendBindFailed,
    FrontendHello,
    FrontendListening,
    FrontendStats,
    LameDuck,
    OpenPorts,
    Pulse,
    Quarantined,
    RoutesAck,
    WorkerDied,
    WorkerLoads,
)
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import Message
from modelpool.supervisor.wire.route_table import RouteTable, WorkerRoute
from modelpool.supervisor.wire.status import PoolError

from . import metrics
from .asgi import Metrics, RestApp, RestOptions
from .bind_error import BindFailed
from .callback import CallbackFailed, guarded
from .control import Control
from .core import Core
from .crash_witness import CrashWitness
from .engine import MakeEngine
from .grpc_services import GrpcServices
from .health_pages import HealthPages
from .in_flight import Bounds
from .intake import Intake
from .metrics import RequestMetrics
from .poison_files import PoisonFiles
from .profiler import ProfilerHandlers
from .shared_payloads import OnMessage, SharedLink, SharedMemory
from .worker_link import WorkerLink

log = logging.getLogger(__name__)

_STATS_INTERVAL_S = 1.0
_ROUTES_RETRY_S = 1.0


class Session:
    """`run` once. `lifeline_fd` becomes readable at its end only: then the supervisor is dead."""

    def __init__(self, spec: FrontendSpec, lifeline_fd: int, make_engine: MakeEngine) -> None:
        self._loop = asyncio.get_running_loop()
        self._spec = spec
        self._lifeline_fd = lifeline_fd
        self._exit_code: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._control = Control(self._context, spec, self._handle_message)
        name = sockets.identity(sockets.Peer.FRONTEND, spec.incarnation)
        self._metrics = RequestMetrics(lambda name: bool(self._core.routes.versions(name)), on=bool(spec.metrics_path))
        self._memory = SharedMemory(sockets.folder(spec.control_endpoint), spec.incarnation)

        def connect(route: WorkerRoute, on_message: OnMessage) -> SharedLink:
            link = partial(WorkerLink, self._context, route.endpoint, name, sockets.DATA_HWM)
            return SharedLink(self._memory, route.incarnation, link, on_message)

        self._core = Core(
            connect,
            self._control.release,
            CrashWitness(self._metrics, self._control.report_poison, PoisonFiles()),
            Bounds(frontends=spec.frontends),
        )
        self._services = GrpcServices(
            self._core,
            self._control.reload,
            spec,
            ProfilerHandlers(lambda: self._core.routes.table, self._control.profile, self._control.end_profile),
            partial(self._metrics.finished, metrics.GRPC),
        )
        self._pages = HealthPages(lambda: self._core.routes.table, lambda: self._control.silent_s)
        self._engine = make_engine(spec, self._services.methods, self._rest_app())

    def _rest_app(self) -> RestApp | None:
        spec = self._spec
        if not spec.rest_port:
            return None
        counting = Metrics(spec.metrics_path, self._metrics_page, partial(self._metrics.finished, metrics.REST))
        options = RestOptions(spec.rest_timeout_s, spec.max_request_bytes, spec.rest_cors)
        intake = Intake(spec.arriving_requests, spec.arriving_bytes)
        return RestApp(self._core, self._control.pool_status, options, counting, self._pages, intake=intake)

    async def run(self) -> int:
        """Serve until drained; the process's exit code."""
        self._loop.set_exception_handler(self._handle_loop_error)
        self._loop.add_reader(self._lifeline_fd, self._check_lifeline)
        self._control.send(FrontendHello(os.getpid()))
        self._send_stats()
        code = await self._exit_code
        self._core.close()
        self._control.close()
        self._context.term()
        return code

    # -- control messages ----------------------------------------------------------------------------------------

    def _handle_message(self, message: Message) -> None:
        match message:
            case RouteTable():
                self._handle_routes(message)
            case WorkerDied():
                self._memory.take_back(message.incarnation)
                self._core.bury(message)
                self._services.routes_changed()
            case WorkerLoads():
                self._core.balance.told(message)
            case Quarantined():
                self._core.quarantine.add(message)
            case Pulse():
                pass  # that it came is all it says
            case OpenPorts() if not self._opened:
                self._opened = True
                self._start_task(self._open_ports())
            case LameDuck():
                self._leave()
            case DrainFrontend():
                self._start_task(self._drain(message.timeout_s))
            case _:
                log.warning("ignored a control message %s", fields(message=type(message).__name__))

    def _handle_routes(self, table: RouteTable) -> None:
        try:
            swapped = self._core.swap_routes(table)
        except PoolError as error:
            # Without acknowledgement the supervisor keeps what it would replace.
            log.error("routes not taken, trying again %s", fields(epoch=table.epoch, error=error.message))
            self._loop.call_later(_ROUTES_RETRY_S, self._try_routes_again, table)
            return
        if not swapped:
            log.warning("ignored an old route table %s", fields(epoch=table.epoch))
            return
        self._control.send(RoutesAck(table.epoch))
        self._core.release_idle()
        self._services.routes_changed()

    @guarded
    def _try_routes_again(self, table: RouteTable) -> None:
        """A newer table may have come meanwhile; then there is nothing to do."""
        if table.epoch > self._core.routes.table.epoch:
            self._handle_routes(table)

    async def _open_ports(self) -> None:
        try:
            self._engine.bind()
        except BindFailed as error:
            log.error("not listening %s", fields(error=error.message))
            self._engine.remove_socket()
            self._control.send(FrontendBindFailed(error.message))
            self._end(1)
            return
        await self._engine.start()
        spec = self._spec
        places = fields(grpc_port=spec.grpc_port, rest_port=spec.rest_port, grpc_socket_path=spec.grpc_socket_path)
        log.info("listening engine=%s %s", self._engine.name, places)
        self._control.send(FrontendListening())

    def _leave(self) -> None:
        """Not ready any more: whoever balances the load is to send its clients elsewhere."""
        self._pages.leaving = True
        self._services.leave()
        self._start_task(self._engine.leave())

    async def _drain(self, timeout_s: float) -> None:
        log.info("draining %s", fields(timeout_s=timeout_s))
        self._leave()
        self._control.drain()
        self._services.drain()
        await self._engine.stop(timeout_s)
        self._end(0)

    @guarded
    def _send_stats(self) -> None:
        self._control.send(FrontendStats(self._core.in_flight(), self._core.answered))
        self._report_metrics()
        self._memory.trim()
        self._loop.call_later(_STATS_INTERVAL_S, self._send_stats)

    def _report_metrics(self) -> None:
        samples = self._metrics.changed(self._core.in_flight_bytes, self._core.held)
        if not self._control.report_metrics(samples):
            self._metrics.lost(samples)

    async def _metrics_page(self) -> bytes:
        """The page of all metrics, this frontend's newest among them. Raises Unavailable."""
        self._report_metrics()
        return await self._control.metrics_page()

    # -- the end -------------------------------------------------------------------------------------------------

    @guarded
    def _check_lifeline(self) -> None:
        if os.read(self._lifeline_fd, 4096):
            return
        log.error("the supervisor is gone, exiting")
        self._engine.remove_socket()
        os._exit(1)

    def _handle_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A failure of one of our callbacks ends the process; the rest (a client gone at a bad moment) is logged."""
        error = context.get("exception")
        if not isinstance(error, CallbackFailed):
            loop.default_exception_handler(context)
            return
        log.error("frontend failed", exc_info=error)
        self._end(1)

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        """The root of a task: what nobody foresaw ends the process, and the supervisor starts another."""
        try:
            await work
        except Exception:
            log.exception("frontend failed")
            self._end(1)

    def _end(self, code: int) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(code)
