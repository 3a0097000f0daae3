"""The calls of one model together: a handler for each method, and logs of what was asked that can be asked again."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.data import Method
from modelpool.worker.calls import Calls
from modelpool.worker.model_spec import Identity
from tensorflow_serving.apis import inference_pb2

from tests.unit.signature_defs import texts_to_number


class FakeModel:
    """On strings: a regression of 2.5 for each by `regress`, as a score by `classify`, bare by `predict`."""

    def __init__(self) -> None:
        outputs = {"regress": "outputs", "classify": "scores", "predict": "y"}
        self.signatures: Mapping[str, Any] = {key: texts_to_number(output) for key, output in outputs.items()}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        return [np.full((len(feeds["in:0"]), 1), 2.5, np.float32) for _ in fetches]


def calls() -> Calls:
    return Calls.of(FakeModel(), Identity("m", 7))


def multi_inference() -> bytes:
    asked = inference_pb2.MultiInferenceRequest()
    for kind in ("regress", "classify"):
        task = asked.tasks.add(method_name=f"tensorflow/serving/{kind}")
        task.model_spec.name, task.model_spec.signature_name = "m", kind
    asked.input.example_list.examples.add()
    raw: bytes = asked.SerializeToString()
    return raw


EXAMPLES = b'{"signature_name": "%s", "examples": [{"x": "a"}, {}]}'
PAYLOADS = {
    Method.REST_PREDICT: (b'{"signature_name": "predict", "instances": ["a", "b"]}', "predict_log"),
    Method.REST_REGRESS: (EXAMPLES % b"regress", "regress_log"),
    Method.REST_CLASSIFY: (EXAMPLES % b"classify", "classify_log"),
    Method.MULTI_INFERENCE: (multi_inference(), "multi_inference_log"),
}


def test_every_method_has_a_planner() -> None:
    assert set(calls().planners()) == set(Method) - {Method.SEVERAL, Method.RETURN, Method.CANCEL}


@pytest.mark.parametrize("method", PAYLOADS, ids=lambda method: method.name)
def test_what_is_logged_can_be_asked_again(method: Method) -> None:
    payload, kind = PAYLOADS[method]
    served = calls()
    assert served.planners()[method](payload).answer(served.model)
    log = served.readers()[method](payload)
    assert log.WhichOneof("log_type") == kind
    assert not getattr(log, kind).HasField("response")
    answer = served.answer(log, "test")
    # And the request in the log is what a gRPC client would have sent.
    twin = Method[method.name.removeprefix("REST_")]
    raw = served.planners()[twin](getattr(log, kind).request.SerializeToString()).answer(served.model)
    assert type(answer).FromString(raw) == answer
    assert served.readers()[twin](getattr(log, kind).request.SerializeToString()) == log


def test_metadata_is_not_logged() -> None:
    assert not {Method.METADATA, Method.REST_METADATA} & set(calls().readers())
