"""The engine in Envoy's process: lets Envoy listen, sees that it does, drains it. In the event loop.

Envoy's main thread waits in `Gate.wait` until `start`; then it binds what its configuration says. It has no way to tell
of it, so the process looks at its own descriptors.
"""

import asyncio
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from modelpool.supervisor.wire import gathering
from modelpool.supervisor.wire.all_addresses import on_all_addresses
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.gathering import Gatherer
from modelpool.supervisor.wire.log import fields

from . import envoy_config, startup_pages, unix_socket
from .bind_error import BindFailed
from .callback import guarded
from .engine import AsgiApp
from .envoy_admin import EnvoyAdmin
from .grpc_asgi import GrpcApp
from .grpc_calls import Methods
from .grpc_direct import DirectGrpc
from .intake import Intake
from .rest_pyvoy import complete

log = logging.getLogger(__name__)

_LOOK_S = 0.01
# So long after it listens an Envoy has come to rest.
_STARTED_S = 2.0
# How long a client may stay connected that was told to go and has got all its answers.
_FAREWELL_S = 0.5


class Gate:
    """Where Envoy's main thread waits for the engine to open; made before the core's thread."""

    def __init__(self, admin: EnvoyAdmin) -> None:
        self._admin = admin
        self._opened = threading.Event()
        self._engine: EnvoyEngine | None = None

    def make_engine(self, spec: FrontendSpec, methods: Methods, rest: AsgiApp | None) -> "EnvoyEngine":
        """A `MakeEngine`; in the core's thread."""
        self._engine = EnvoyEngine(spec, methods, rest, self._admin, self._opened)
        return self._engine

    def wait(self) -> "EnvoyEngine":
        """In Envoy's main thread: the engine, as soon as it wants the ports."""
        self._opened.wait()
        assert self._engine is not None
        return self._engine


class EnvoyEngine:
    """An `Engine`. `grpc` and `rest` are the applications, which run in `loop`."""

    name = "envoy"

    def __init__(
        self,
        spec: FrontendSpec,
        methods: Methods,
        rest: AsgiApp | None,
        admin: EnvoyAdmin,
        opened: threading.Event,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        intake = Intake(spec.arriving_requests, spec.arriving_bytes)
        self.grpc = DirectGrpc(GrpcApp(methods, spec.max_request_bytes, spec.grpc_arguments, intake), methods.forwards)
        self.rest: AsgiApp = _nothing if rest is None else complete(rest)
        self._spec = spec
        self._admin = admin
        self._opened = opened
        self._owns_socket = False
        self._gatherer = Gatherer(gathering.FRONTEND, gathering.all_threads)

    def bind(self) -> None:
        """See that Envoy can have the ports and the socket: it ends without a word to us when it cannot."""
        for name, port in (("port: cannot listen on gRPC", self._spec.grpc_port), _rest_port(self._spec)):
            if port:
                _require_bindable(name, port)
        if self._spec.grpc_socket_path:
            unix_socket.claim(self._spec.grpc_socket_path)
            self._owns_socket = True

    async def start(self) -> None:
        self._opened.set()
        spec = self._spec
        places: tuple[int | str, ...] = (spec.grpc_port, spec.rest_port, spec.grpc_socket_path)
        wanted = {place for place in places if place}
        while wanted - listened_on():  # noqa: ASYNC110 - Envoy tells nobody
            await asyncio.sleep(_LOOK_S)
        self._gather()
        self.loop.call_later(_STARTED_S, self._started)

    @guarded
    def _gather(self) -> None:
        self._gatherer.look()
        self.loop.call_later(gathering.PERIOD_S, self._gather)

    @guarded
    def _started(self) -> None:
        threading.Thread(target=startup_pages.give_back, name="startup pages", daemon=True).start()

    async def leave(self) -> None:
        """Envoy closes HTTP/1 connections with their next reply and says GOAWAY on HTTP/2."""
        await self._ordered(self._admin.send_clients_away())

    async def stop(self, grace_s: float) -> None:
        self.grpc.drain()
        if self._opened.is_set():
            await self._ordered(self._drain(time.monotonic() + grace_s))
        self.remove_socket()

    async def _drain(self, ends_s: float) -> None:
        """Until every answer has left, and for a moment more until clients have taken leave, so that none asks a
        process that is gone.
        """
        await self._admin.stop_listening()
        while time.monotonic() < ends_s:
            gauges = await self._admin.gauges()
            if not any(gauges.values()):
                return
            if not any(count for name, count in gauges.items() if name != envoy_config.CONNECTED):
                ends_s = min(ends_s, time.monotonic() + _FAREWELL_S)
            await asyncio.sleep(_LOOK_S)

    @staticmethod
    async def _ordered(order: Coroutine[Any, Any, None]) -> None:
        try:
            await order
        except (OSError, TimeoutError) as error:
            log.error("Envoy does not take orders %s", fields(error=error))

    def remove_socket(self) -> None:
        if self._owns_socket:
            unix_socket.remove(self._spec.grpc_socket_path)


async def _nothing(scope: object, receive: object, send: object) -> None:
    """The REST API where there is no port for it: no listener leads here."""


def _rest_port(spec: FrontendSpec) -> tuple[str, int]:
    return "rest_api_port: cannot listen on REST", spec.rest_port


def _require_bindable(name: str, port: int) -> None:
    """Raises BindFailed when nobody could listen on `port` beside the other frontends."""
    try:
        on_all_addresses(partial(_bound, port=port)).close()
    except OSError as error:
        reason = "it is in use by another process" if error.errno == errno.EADDRINUSE else error.strerror
        raise BindFailed(f"{name} port {port}: {reason}") from error


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind((host, port))
    except OSError:
        probe.close()
        raise
    return probe


def listened_on() -> set[int | str]:
    """The TCP ports and the paths of unix sockets that this process listens on."""
    found: set[int | str] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as each:
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    address = each.getsockname()
                    found.add(address if isinstance(address, str) else address[1])
        except OSError:
            continue  # closed meanwhile, or of a kind that does not listen
    return found
