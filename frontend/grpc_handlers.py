"""The RPCs of PredictionService and ModelService: bytes in, bytes or an error status out. In the event loop.

A generic handler without (de)serialisers, so that no inference request is parsed here. It knows gRPC's contexts and
codes, and neither ports nor credentials. All that asks a model goes through `_model_call`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse
from modelpool.supervisor.wire.status import Code, Internal, PoolError, Status, StatusError, truncated

from . import model_metadata, model_spec, model_status
from .core import Core
from .model_spec import ModelSpec

log = logging.getLogger(__name__)

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

_GRPC_CODES = {Code(code.value[0]): code for code in grpc.StatusCode}

Reload = Callable[[bytes], Awaitable[Status]]
ReadSpec = Callable[[bytes], ModelSpec | None]
Handle = Callable[[bytes, Any], Awaitable[bytes]]

# What is told of each finished call of a model: the RPC's name, the model as the client names it ("" for none), the
# status, and when the call began (CLOCK_MONOTONIC).
OnFinished = Callable[[str, str, Code, int], None]


def tell_nobody(api: str, model: str, code: Code, started_ns: int) -> None:
    """The OnFinished of a server that keeps no metrics."""


class ServingHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The two services; other methods are left to other handlers, and UNIMPLEMENTED without one.

    `reload` takes a serialized ReloadConfigRequest to the supervisor and says how it ended.
    """

    def __init__(self, core: Core, reload: Reload, on_finished: OnFinished = tell_nobody) -> None:
        self._core = core
        self._reload = reload
        self._on_finished = on_finished
        self._methods = {
            f"/{service}/{name}": grpc.unary_unary_rpc_method_handler(handle)
            for service, name, handle in (
                *(
                    (PREDICTION_SERVICE, api, self._model_call(api, method, read))
                    for api, method, read in (
                        ("Predict", data.Method.PREDICT, model_spec.read),
                        ("Classify", data.Method.CLASSIFY, model_spec.read),
                        ("Regress", data.Method.REGRESS, model_spec.read),
                        ("MultiInference", data.Method.MULTI_INFERENCE, model_spec.read_first_task),
                        ("GetModelMetadata", data.Method.METADATA, model_metadata.read),
                    )
                ),
                (MODEL_SERVICE, "GetModelStatus", self._model_status),
                (MODEL_SERVICE, "HandleReloadConfigRequest", self._reload_config),
            )
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)

    def _model_call(self, api: str, method: data.Method, read: ReadSpec) -> Handle:
        """The one way of every call that a worker answers: forward, tell `on_finished`, answer or abort."""

        async def handle(request: bytes, context: Any) -> bytes:
            started_ns = time.monotonic_ns()
            deadline_ns = _deadline_ns(context)
            model = ""
            code = Code.CANCELLED
            try:
                spec = read(request)
                model = "" if spec is None else spec.name
                code, reply = await self._core.call(method, request, spec, deadline_ns)
            except PoolError as error:
                code, reply = error.status.code, error.message.encode("utf-8", "replace")
            except asyncio.CancelledError:
                # grpcio cancels both when the client is gone and at the deadline.
                if deadline_ns != data.NO_DEADLINE_NS and time.monotonic_ns() >= deadline_ns:
                    code = Code.DEADLINE_EXCEEDED
                raise
            except Exception:
                log.exception("gRPC handler failed")
                code, reply = Code.INTERNAL, b"Internal error of the frontend, see its log"
            finally:
                self._on_finished(api, model, code, started_ns)
            if code is not Code.OK:
                await context.abort(_GRPC_CODES[code], truncated(reply.decode("utf-8", "replace")))
            return reply

        return handle

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
