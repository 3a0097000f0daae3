"""All inference calls of one loaded model together, and a logged request's way to its call. Pure but for the model.

Main thread of the worker. Used by who serves the calls and by what replays PredictionLogs (warmup, golden).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensorflow_serving.apis import prediction_log_pb2

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Unimplemented

from . import classify, regress
from .examples import ExamplesCall
from .metadata import Metadata
from .model_spec import Identity
from .multi_inference import MultiInference
from .plan import Model, Plan, Planner
from .predict import Predictor


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of `model`."""

    model: Model
    predictor: Predictor
    classifier: ExamplesCall
    regressor: ExamplesCall
    multi_inference: MultiInference
    metadata: Metadata

    @classmethod
    def of(
        cls, model: Model, identity: Identity, *, check_method_names: bool = False, tensor_content: bool = False
    ) -> "Calls":
        """`check_method_names` and `tensor_content` as in WorkerSpec."""
        check = check_method_names
        return cls(
            model,
            Predictor(model, identity, check_method_names=check, tensor_content=tensor_content),
            ExamplesCall(model, identity, classify.READING, check_method_names=check),
            ExamplesCall(model, identity, regress.READING, check_method_names=check),
            MultiInference(model, identity, check_method_names=check),
            Metadata(model.signatures, identity),
        )

    def planners(self) -> dict[Method, Planner]:
        """What makes a Plan of the payload of each method. They raise PoolError."""
        return {
            Method.PREDICT: self.predictor.plan_payload,
            Method.REST_PREDICT: self.predictor.plan_body,
            Method.CLASSIFY: self.classifier.plan_payload,
            Method.REST_CLASSIFY: self.classifier.plan_body,
            Method.REGRESS: self.regressor.plan_payload,
            Method.REST_REGRESS: self.regressor.plan_body,
            Method.MULTI_INFERENCE: self.multi_inference.plan_payload,
            Method.METADATA: partial(_nothing_to_run, self.metadata.grpc),
            Method.REST_METADATA: partial(_nothing_to_run, self.metadata.rest),
        }

    def readers(self) -> dict[Method, Callable[[bytes], Any]]:
        """What makes a PredictionLog, of the request alone, of the payload of a method that has such a log.

        REST bodies become the requests that ask the same. They raise PoolError. Any thread.
        """
        requests = {
            Method.PREDICT: ("predict_log", self.predictor.request_of_payload),
            Method.REST_PREDICT: ("predict_log", self.predictor.request_of_body),
            Method.CLASSIFY: ("classify_log", self.classifier.request_of_payload),
            Method.REST_CLASSIFY: ("classify_log", self.classifier.request_of_body),
            Method.REGRESS: ("regress_log", self.regressor.request_of_payload),
            Method.REST_REGRESS: ("regress_log", self.regressor.request_of_body),
            Method.MULTI_INFERENCE: ("multi_inference_log", self.multi_inference.request_of_payload),
        }
        return {method: partial(_log, kind, read) for method, (kind, read) in requests.items()}

    def answer(self, log: Any, purpose: str) -> Any:
        """The response to the request of a PredictionLog, or None for a log of no kind. Raises PoolError.

        The model and version that the request names are ignored. `purpose` is for the text that refuses a log of a
        session run or a stream (saved_model_warmup.cc, RunWarmupRequest).
        """
        match log.WhichOneof("log_type"):
            case None:
                return None
            case "predict_log":
                return self.predictor.respond(log.predict_log.request)
            case "classify_log":
                return self.classifier.respond(log.classify_log.request)
            case "regress_log":
                return self.regressor.respond(log.regress_log.request)
            case "multi_inference_log":
                return self.multi_inference.respond(log.multi_inference_log.request)
            case kind:
                number = log.DESCRIPTOR.fields_by_name[kind].number
                raise Unimplemented(f"Unsupported log_type for {purpose}: {number}")


def _nothing_to_run(answer: Callable[[bytes], bytes], payload: bytes) -> Plan:
    return Plan(None, (), lambda _: answer(payload))


def _log(kind: str, read: Callable[[bytes], Any], payload: bytes) -> Any:
    log = prediction_log_pb2.PredictionLog()
    getattr(log, kind).request.CopyFrom(read(payload))
    return log
