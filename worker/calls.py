"""All inference calls of one loaded model together, and a logged request's way to its call. Pure but for the model.

Main thread of the worker. What replays PredictionLogs (warmup, golden) uses it; so will whoever serves the calls.
"""

from dataclasses import dataclass
from typing import Any

from modelpool.supervisor.wire.status import Unimplemented

from .classify import Classifier
from .model_spec import Identity
from .multi_inference import MultiInference
from .predict import Model, Predictor
from .regress import Regressor


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of `model`."""

    model: Model
    predictor: Predictor
    classifier: Classifier
    regressor: Regressor
    multi_inference: MultiInference

    @classmethod
    def of(cls, model: Model, identity: Identity) -> "Calls":
        return cls(
            model,
            Predictor(model, identity),
            Classifier(model, identity),
            Regressor(model, identity),
            MultiInference(model, identity),
        )

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
