"""PredictionLogs of what was asked and answered, those of JSON answers without another run of the model."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Internal
from modelpool.worker.calls import Calls
from modelpool.worker.logged_requests import REST_METHODS, Answered, LogMaker
from modelpool.worker.model_spec import Identity
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, prediction_log_pb2, regression_pb2

from tests.unit.signature_defs import texts_to_number

EXAMPLES = b'{"signature_name": "%s", "examples": [{"x": "a"}, {}]}'


class CountingModel:
    """On strings: 1.0 for each in its first run, 2.0 in its second; predicted, as a regression and as a score."""

    def __init__(self) -> None:
        self.runs = 0
        outputs = {"regress": "outputs", "classify": "scores", "serving_default": "y"}
        self.signatures: Mapping[str, Any] = {key: texts_to_number(output) for key, output in outputs.items()}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.runs += 1
        return [np.full((len(feeds["in:0"]), 1), self.runs, np.float32) for _ in fetches]


class Desk:
    def __init__(self) -> None:
        identity = Identity("m", 7)
        self.inner = CountingModel()
        self.calls = Calls.of(self.inner, identity)
        self.maker = LogMaker(self.calls.readers(), self.inner.signatures, identity, ("serve", "gpu"))

    def logged(self, method: Method, payload: bytes) -> Any:
        """The log of a request that is answered as a worker does it."""
        plan = self.calls.planners()[method](payload)
        assert plan.feeds is not None
        outputs = self.inner.run(plan.feeds, plan.fetches)
        kept = dict(zip(plan.fetches, outputs, strict=True)) if method in REST_METHODS else {}
        answered = Answered(method, payload, plan.finish(outputs), kept)
        return prediction_log_pb2.PredictionLog.FromString(self.maker.make(answered, 0.5))


def metadata(log: Any) -> tuple[str, int, str]:
    spec = log.log_metadata.model_spec
    assert list(log.log_metadata.saved_model_tags) == ["serve", "gpu"]
    assert log.log_metadata.sampling_config.sampling_rate == 0.5
    return spec.name, spec.version.value, spec.signature_name


def test_predict_over_rest() -> None:
    desk = Desk()
    log = desk.logged(Method.REST_PREDICT, b'{"instances": ["a", "b"]}')
    assert metadata(log) == ("m", 7, "serving_default")
    assert list(log.predict_log.request.inputs["inputs"].string_val) == [b"a", b"b"]
    assert list(log.predict_log.response.outputs["y"].float_val) == [1.0, 1.0]
    assert log.predict_log.response.model_spec.version.value == 7
    assert desk.inner.runs == 1


def test_classify_and_regress_over_rest() -> None:
    desk = Desk()
    regress = desk.logged(Method.REST_REGRESS, EXAMPLES % b"regress")
    classify = desk.logged(Method.REST_CLASSIFY, EXAMPLES % b"classify")
    assert (metadata(regress), metadata(classify)) == (("m", 7, "regress"), ("m", 7, "classify"))
    assert len(regress.regress_log.request.input.example_list.examples) == 2
    assert [each.value for each in regress.regress_log.response.result.regressions] == [1.0, 1.0]
    rows = classify.classify_log.response.result.classifications
    assert [[each.score for each in row.classes] for row in rows] == [[2.0], [2.0]]
    assert desk.inner.runs == 2


@pytest.mark.parametrize(
    ("method", "kind", "request_type", "signature"),
    [
        (Method.CLASSIFY, "classify_log", classification_pb2.ClassificationRequest, "classify"),
        (Method.REGRESS, "regress_log", regression_pb2.RegressionRequest, "regress"),
    ],
)
def test_examples_over_grpc(method: Method, kind: str, request_type: Any, signature: str) -> None:
    desk = Desk()
    asked = request_type()
    asked.model_spec.name, asked.model_spec.version_label, asked.model_spec.signature_name = "m", "stable", signature
    asked.input.example_list.examples.add()
    log = desk.logged(method, asked.SerializeToString())
    assert metadata(log) == ("m", 7, signature), "as resolved"
    assert getattr(log, kind).request == asked, "as it was sent"
    assert getattr(log, kind).response.model_spec.version.value == 7
    assert desk.inner.runs == 1


def test_predict_over_grpc_is_logged_as_it_was_answered() -> None:
    desk = Desk()
    asked = predict_pb2.PredictRequest()
    asked.inputs["inputs"].dtype = types_pb2.DT_STRING
    asked.inputs["inputs"].string_val.append(b"a")
    asked.inputs["inputs"].tensor_shape.dim.add(size=1)
    reply = predict_pb2.PredictResponse.FromString(desk.calls.predictor.grpc(asked.SerializeToString()))
    reply.model_spec.signature_name = "what the reply says"
    raw = desk.maker.make(Answered(Method.PREDICT, asked.SerializeToString(), reply.SerializeToString(), {}), 0.5)
    log = prediction_log_pb2.PredictionLog.FromString(raw)
    assert (log.predict_log.request, log.predict_log.response) == (asked, reply)
    assert metadata(log) == ("m", 7, "what the reply says")


def test_multi_inference_has_no_one_signature() -> None:
    desk = Desk()
    asked = inference_pb2.MultiInferenceRequest()
    task = asked.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "m", "regress"
    asked.input.example_list.examples.add()
    log = desk.logged(Method.MULTI_INFERENCE, asked.SerializeToString())
    assert metadata(log) == ("m", 7, "")
    assert log.multi_inference_log.request == asked
    assert len(log.multi_inference_log.response.results) == 1


def test_without_the_outputs_of_the_run_there_is_no_record() -> None:
    desk = Desk()
    payload = b'{"instances": ["a"]}'
    with pytest.raises(Internal, match="no outputs y:0"):
        desk.maker.make(Answered(Method.REST_PREDICT, payload, b"{}", {}), 1.0)


def test_size() -> None:
    arrays = {"y:0": np.ones(4, np.float32)}
    assert Answered(Method.REST_PREDICT, b"12", b"345", arrays).size_bytes == 21
