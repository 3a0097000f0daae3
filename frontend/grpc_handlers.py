"""The RPCs of PredictionService and ModelService: bytes in, bytes or an error status out. In the event loop.

No inference request is parsed here. It knows neither gRPC libraries nor ports. All that asks a model goes through
`forward`.
"""

from collections.abc import Awaitable, Callable

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse
from modelpool.supervisor.wire.status import Code, Status, StatusError

from . import model_metadata, model_spec, model_status
from .core import Core
from .forward import Forward, OnFinished
from .grpc_calls import Call, Methods, Unary

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

Reload = Callable[[bytes], Awaitable[Status]]


def tell_nobody(api: str, model: str, code: Code, started_ns: int) -> None:
    """The OnFinished of a server that keeps no metrics."""


class ServingHandlers:
    """The two services. `reload` takes a serialized ReloadConfigRequest to the supervisor and says how it ended."""

    def __init__(self, core: Core, reload: Reload, on_finished: OnFinished = tell_nobody) -> None:
        self._core = core
        self._reload = reload
        forwards = {
            f"/{PREDICTION_SERVICE}/{api}": Forward(core, api, method, read, on_finished)
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
                **{path: _unary(forward) for path, forward in forwards.items()},
                f"/{MODEL_SERVICE}/GetModelStatus": self._model_status,
                f"/{MODEL_SERVICE}/HandleReloadConfigRequest": self._reload_config,
            },
            forwards=forwards,
        )

    async def _model_status(self, request: bytes, call: Call) -> bytes:
        return model_status.grpc_reply(self._core.routes, model_spec.read(request))

    async def _reload_config(self, request: bytes, call: Call) -> bytes:
        status = await self._reload(request)
        if status.code is not Code.OK:
            raise StatusError(status)
        return _reload_reply(request)


def _unary(forward: Forward) -> Unary:
    async def handle(request: Payload, call: Call) -> bytes:
        return await forward.call(request, call.deadline_ns)

    return handle


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
