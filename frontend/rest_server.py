"""The REST engine: uvicorn on a socket of our own, serving an ASGI app. In the event loop.

Several frontends share the port by SO_REUSEPORT; that nobody else does is the supervisor's care, which holds it.
"""

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import Iterator
from functools import partial

import uvicorn

from modelpool.supervisor.wire.all_addresses import on_all_addresses
from modelpool.supervisor.wire.frontend_spec import Tls

from .bind_error import BindFailed
from .engine import AsgiApp
from .rest_protocol import Http1Protocol
from .tls import server_context

_BACKLOG = 2048
_KEEP_ALIVE_S = 120


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The frontend ignores signals; uvicorn would take them."""
        yield


class RestServer:
    """HTTP, or with `tls` HTTPS, on one port, on IPv6 and IPv4."""

    def __init__(self, app: AsgiApp, port: int, tls: Tls | None = None) -> None:
        self._port = port
        self._tls = tls
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            loop="none",
            http=Http1Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = _Server(config)

    def bind(self) -> None:
        """Take the port. Raises BindFailed, also for TLS that cannot be used."""
        if self._tls is not None:
            config = self._server.config
            config.load()
            config.ssl = server_context(self._tls, "rest_ssl_config_file")
        try:
            self._socket = on_all_addresses(partial(_listen, port=self._port))
        except OSError as error:
            reason = "it is in use by another process" if error.errno == errno.EADDRINUSE else error.strerror
            raise BindFailed(f"rest_api_port: cannot listen on REST port {self._port}: {reason}") from error

    def start(self) -> None:
        assert self._socket is not None, "bind first"
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="rest")

    async def stop(self, grace_s: float) -> None:
        """Stop accepting and let what is in flight finish within `grace_s`, rounded up to seconds."""
        if self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        self._server.should_exit = True
        await self._task


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
