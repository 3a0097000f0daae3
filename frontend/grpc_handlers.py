"""The RPCs of PredictionService and ModelService: bytes in, bytes or an error status out. In the event loop.

No inference request is parsed here. It knows neither gRPC libraries nor ports. All that asks a model goes through
`_model_call`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse
from modelpool.supervisor.wire.status import Code, PoolError, Status, StatusError

from . import model_metadata, model_spec, model_status
from .core import Core
from .grpc_calls import Call, Methods, Unary
from .model_spec import ModelSpec

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

Reload = Callable[[bytes], Awaitable[Status]]
ReadSpec = Callable[[bytes], ModelSpec | None]

# What is told of each finished call of a model: the RPC's name, the model as the client names it ("" for none), the
# status, and when the call began (CLOCK_MONOTONIC).
OnFinished = Callable[[str, str, Code, int], None]


def tell_nobody(api: str, model: str, code: Code, started_ns: int) -> None:
    """The OnFinished of a server that keeps no metrics."""


class ServingHandlers:
    """The two services. `reload` takes a serialized ReloadConfigRequest to the supervisor and says how it ended."""

    def __init__(self, core: Core, reload: Reload, on_finished: OnFinished = tell_nobody) -> None:
        self._core = core
        self._reload = reload
        self._on_finished = on_finished
        calls = {
            f"/{PREDICTION_SERVICE}/{api}": self._model_call(api, method, read)
            for api, method, read in (
                ("Predict", data.Method.PREDICT, model_spec.read),
                ("Classify", data.Method.CLASSIFY, model_spec.read),
                ("Regress", data.Method.REGRESS, model_spec.read),
                ("MultiInference", data.Method.MULTI_INFERENCE, model_spec.read_first_task),
                ("GetModelMetadata", data.Method.METADATA, model_metadata.read),
            )
        }
        self.methods = Methods(
            {
                **calls,
                f"/{MODEL_SERVICE}/GetModelStatus": self._model_status,
                f"/{MODEL_SERVICE}/HandleReloadConfigRequest": self._reload_config,
            }
        )

    def _model_call(self, api: str, method: data.Method, read: ReadSpec) -> Unary:
        """The one way of every call that a worker answers: forward, tell `on_finished`, answer or raise."""

        async def handle(request: bytes, call: Call) -> bytes:
            started_ns = time.monotonic_ns()
            deadline_ns = call.deadline_ns
            model = ""
            code = Code.INTERNAL
            try:
                spec = read(request)
                model = "" if spec is None else spec.name
                code, reply = await self._core.call(method, request, spec, deadline_ns)
            except PoolError as error:
                code = error.status.code
                raise
            except asyncio.CancelledError:
                # The client is gone, or its deadline has passed.
                late = deadline_ns != data.NO_DEADLINE_NS and time.monotonic_ns() >= deadline_ns
                code = Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
                raise
            finally:
                self._on_finished(api, model, code, started_ns)
            if code is not Code.OK:
                raise StatusError(Status(code, reply.decode("utf-8", "replace")))
            return reply

        return handle

    async def _model_status(self, request: bytes, call: Call) -> bytes:
        return model_status.grpc_reply(self._core.routes, model_spec.read(request))

    async def _reload_config(self, request: bytes, call: Call) -> bytes:
        status = await self._reload(request)
        if status.code is not Code.OK:
            raise StatusError(status)
        return _reload_reply(request)


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
