"""The gRPC engine on grpcio: ends the protocol, forwards the bytes of each request to the core. In the event loop.

A generic handler without (de)serialisers, so that no request for a model is parsed here. Other methods are
UNIMPLEMENTED.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.messages import FrontendSpec
from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse
from modelpool.supervisor.wire.status import Code, Internal, PoolError, Status, StatusError, truncated

from . import model_spec, model_status, unix_socket
from .bind_error import BindFailed
from .core import Core

log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = (1 << 31) - 1
_GRPC_CODES = {Code(code.value[0]): code for code in grpc.StatusCode}

Reload = Callable[[bytes], Awaitable[Status]]


class GrpcServer:
    """PredictionService and ModelService on a TCP port (0: none) and a unix socket ("": none).

    `reload` takes a serialized ReloadConfigRequest to the supervisor and says how it ended.
    """

    def __init__(self, core: Core, reload: Reload, spec: FrontendSpec) -> None:
        self._port = spec.grpc_port
        self._socket_path = spec.grpc_socket_path
        self._owns_socket = False
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(spec.max_request_bytes, _MAX_MESSAGE_BYTES)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((_Handlers(core, reload),))

    def bind(self) -> None:
        """Take the port and the socket, exclusively. Raises BindFailed."""
        if self._port:
            # The IPv6 wildcard takes IPv4 too; grpcio falls back to 0.0.0.0 where there is no IPv6.
            self._add(f"[::]:{self._port}", f"port: cannot listen on gRPC port {self._port}")
        if self._socket_path:
            unix_socket.claim(self._socket_path)
            self._add(f"unix:{self._socket_path}", f"grpc_socket_path: cannot listen on {self._socket_path!r}")
            self._owns_socket = True

    def _add(self, address: str, failure: str) -> None:
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BindFailed(f"{failure}: is it in use by another process? ({error})") from error

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let what is in flight finish within `grace_s`, and remove the socket file."""
        await self._server.stop(grace_s)
        self.remove_socket()

    def remove_socket(self) -> None:
        if self._owns_socket:
            unix_socket.remove(self._socket_path)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, core: Core, reload: Reload) -> None:
        self._core = core
        self._reload = reload
        self._methods = {
            "/tensorflow.serving.PredictionService/Predict": grpc.unary_unary_rpc_method_handler(self._predict),
            "/tensorflow.serving.ModelService/GetModelStatus": grpc.unary_unary_rpc_method_handler(self._model_status),
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest": grpc.unary_unary_rpc_method_handler(
                self._reload_config
            ),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)

    async def _predict(self, request: bytes, context: Any) -> bytes:
        try:
            spec = model_spec.read(request)
            code, reply = await self._core.call(data.Method.PREDICT, request, spec, _deadline_ns(context))
        except PoolError as error:
            await _abort(context, error)
        except Exception:
            log.exception("gRPC handler failed")
            await _abort(context, Internal("Internal error of the frontend, see its log"))
        if code is not Code.OK:
            await context.abort(_GRPC_CODES[code], truncated(reply.decode("utf-8", "replace")))
        return reply

    async def _model_status(self, request: bytes, context: Any) -> bytes:
        try:
            return model_status.grpc_reply(self._core.routes, model_spec.read(request))
        except PoolError as error:
            await _abort(context, error)

    async def _reload_config(self, request: bytes, context: Any) -> bytes:
        try:
            status = await self._reload(request)
            if status.code is not Code.OK:
                raise StatusError(status)
            return _reload_reply(request)
        except PoolError as error:
            await _abort(context, error)
        except Exception:
            log.exception("gRPC handler failed")
            await _abort(context, Internal("Internal error of the frontend, see its log"))


def _reload_reply(request: bytes) -> bytes:
    """The ReloadConfigResponse of a reload that went well.

    TF Serving reports an increase of 0 for a metric that it does not know, and none of its metrics is kept here.
    """
    response = ReloadConfigResponse()
    response.status.SetInParent()
    for name in dict.fromkeys(ReloadConfigRequest.FromString(request).metric_names):
        response.metric.add(name=name, int64_value_increase=0)
    reply: bytes = response.SerializeToString()
    return reply


def _deadline_ns(context: Any) -> int:
    remaining_s: float | None = context.time_remaining()
    return data.NO_DEADLINE_NS if remaining_s is None else time.monotonic_ns() + int(remaining_s * 1e9)


async def _abort(context: Any, error: PoolError) -> NoReturn:
    await context.abort(_GRPC_CODES[error.status.code], truncated(error.message))
    raise AssertionError("grpcio's abort always raises")
