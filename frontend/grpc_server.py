"""The gRPC engine on grpcio: the server with its ports and its credentials. In the event loop.

What the RPCs do is in `grpc_services`; here they are put on grpcio as generic handlers without (de)serialisers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.status import Code, Internal, PoolError, truncated

from . import grpc_tls, unix_socket
from .bind_error import BindFailed
from .callback import guarded
from .grpc_arguments import server_options
from .grpc_calls import BUG, Methods, Stream, Unary, retry_metadata

log = logging.getLogger(__name__)

_GRPC_CODES = {Code(code.value[0]): code for code in grpc.StatusCode}


class GrpcServer:
    """Serves on a TCP port (0: none) and a unix socket ("": none), on both with TLS when the spec has it."""

    def __init__(self, methods: Methods, spec: FrontendSpec) -> None:
        self._port = spec.grpc_port
        self._socket_path = spec.grpc_socket_path
        self._tls = spec.grpc_tls
        self._owns_socket = False
        self._stopping = False
        self._server = grpc.aio.server(options=server_options(spec.max_request_bytes, spec.grpc_arguments))
        self._server.add_generic_rpc_handlers((_Handlers(methods),))

    def bind(self) -> None:
        """Take the port, which other frontends share, and the socket. Raises BindFailed."""
        credentials = None if self._tls is None else grpc_tls.credentials(self._tls)
        if self._port:
            # The IPv6 wildcard takes IPv4 too; grpcio falls back to 0.0.0.0 where there is no IPv6.
            self._add(f"[::]:{self._port}", credentials, f"port: cannot listen on gRPC port {self._port}")
        if self._socket_path:
            unix_socket.claim(self._socket_path)
            failure = f"grpc_socket_path: cannot listen on {self._socket_path!r}"
            self._add(f"unix:{self._socket_path}", credentials, failure)
            self._owns_socket = True

    def _add(self, address: str, credentials: grpc.ServerCredentials | None, failure: str) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            other = "" if credentials is None else ", or does gRPC refuse what ssl_config_file holds"
            raise BindFailed(f"{failure}: is it in use by another process{other}? ({error})") from error

    async def start(self) -> None:
        await self._server.start()
        asyncio.ensure_future(self._server.wait_for_termination()).add_done_callback(self._ended)

    @guarded
    def _ended(self, termination: "asyncio.Future[object]") -> None:
        """grpc.aio gives its server up for what its loop did not foresee, such as a path that is no UTF-8. It says so
        to nobody else, and a process whose port is closed serves nobody: so it ends, and is replaced.
        """
        if not self._stopping and not termination.cancelled():
            raise RuntimeError("grpc.aio has ended its server") from termination.exception()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let what is in flight finish within `grace_s`, and remove the socket file."""
        self._stopping = True
        await self._server.stop(grace_s)
        self.remove_socket()

    def remove_socket(self) -> None:
        if self._owns_socket:
            unix_socket.remove(self._socket_path)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods as grpcio calls them; it answers UNIMPLEMENTED for others by itself."""

    def __init__(self, methods: Methods) -> None:
        self._handlers = {
            **{path: grpc.unary_unary_rpc_method_handler(_unary(handle)) for path, handle in methods.unary.items()},
            **{
                path: grpc.stream_stream_rpc_method_handler(_stream(handle)) for path, handle in methods.streams.items()
            },
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


class _Call:
    """A call of `grpc_calls` over a context of grpcio."""

    __slots__ = ("_context", "deadline_ns")

    def __init__(self, context: Any) -> None:
        self._context = context
        remaining_s: float | None = context.time_remaining()
        self.deadline_ns = data.NO_DEADLINE_NS if remaining_s is None else time.monotonic_ns() + int(remaining_s * 1e9)

    def metadata(self, key: str) -> str | None:
        for name, value in self._context.invocation_metadata() or ():
            if name == key:
                return value if isinstance(value, str) else value.decode("utf-8", "replace")
        return None


def _unary(handle: Unary) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def call(request: bytes, context: Any) -> bytes:
        try:
            return await handle(request, _Call(context))
        except PoolError as error:
            await _abort(context, error)
        except Exception:
            log.exception("gRPC handler failed")
            await _abort(context, Internal(BUG))

    return call


def _stream(handle: Stream) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
    async def call(requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            async for reply in handle(requests, _Call(context)):
                await context.write(reply)
        except PoolError as error:
            await _abort(context, error)
        except Exception:
            log.exception("gRPC handler failed")
            await _abort(context, Internal(BUG))

    return call


async def _abort(context: Any, error: PoolError) -> NoReturn:
    await context.abort(_GRPC_CODES[error.status.code], truncated(error.message), retry_metadata(error))
    raise AssertionError("grpcio's abort always raises")
