"""Predict on a fake model: the checks that the flags of a server turn on, and what both protocols have in common."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import Code, PoolError, Status
from modelpool.worker import reply_bytes
from modelpool.worker.model_spec import Identity
from modelpool.worker.predict import Predictor
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

STRINGS = np.array([b"a"], object)


class FakeModel:
    """`y` = `x` + `k`, `s` a string; `k` is 3 unless sent."""

    def __init__(self, method_name: str = "") -> None:
        made = meta_graph_pb2.SignatureDef(method_name=method_name)
        for name in ("x", "k"):
            made.inputs[name].name, made.inputs[name].dtype = f"{name}:0", types_pb2.DT_FLOAT
        made.defaults["k"].CopyFrom(tensors.encode(np.array(3, np.float32), types_pb2.DT_FLOAT))
        made.outputs["y"].name, made.outputs["y"].dtype = "y:0", types_pb2.DT_FLOAT
        made.outputs["s"].name, made.outputs["s"].dtype = "s:0", types_pb2.DT_STRING
        texts = meta_graph_pb2.SignatureDef()
        for name in ("a", "b"):
            texts.inputs[name].name, texts.inputs[name].dtype = f"{name}:0", types_pb2.DT_STRING
        texts.outputs["s"].CopyFrom(made.outputs["s"])
        self.signatures: Mapping[str, Any] = {"serving_default": made, "texts": texts}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        return [feeds["x:0"] + feeds["k:0"] if name == "y:0" else STRINGS for name in fetches]


def request(*numbers: float, outputs: Sequence[str] = ()) -> bytes:
    asked = predict_pb2.PredictRequest(output_filter=outputs)
    asked.inputs["x"].CopyFrom(tensors.encode(np.array(numbers, np.float32), types_pb2.DT_FLOAT))
    raw: bytes = asked.SerializeToString()
    return raw


def predictor(method_name: str = "", **options: bool) -> Predictor:
    return Predictor(FakeModel(method_name), Identity("m", 7), **options)


def refusal(call: Any, payload: bytes) -> Status:
    with pytest.raises(PoolError) as caught:
        call(payload)
    return caught.value.status


def test_tensor_content_spares_strings() -> None:
    response = predict_pb2.PredictResponse.FromString(predictor(tensor_content=True).grpc(request(1, 2)))
    assert response.outputs["y"].tensor_content == np.array([4, 5], np.float32).tobytes()
    assert not response.outputs["y"].float_val
    assert list(response.outputs["s"].string_val) == [b"a"]


def test_typed_fields_without_it() -> None:
    response = predict_pb2.PredictResponse.FromString(predictor().grpc(request(1, 2)))
    assert list(response.outputs["y"].float_val) == [4, 5]
    assert not response.outputs["y"].tensor_content


NOT_PREDICT = (
    "Expected prediction signature method_name to be one of {tensorflow/serving/predict, tensorflow/serving/classify, "
    "tensorflow/serving/regress}. Was: other"
)


def test_a_method_name_that_is_checked() -> None:
    """After the signature was found, before its inputs are looked at; over REST after the body was read."""
    strict = predictor("other", check_method_names=True)
    assert refusal(strict.grpc, b"") == Status(Code.INTERNAL, NOT_PREDICT)
    body = b'{"inputs": {"x": [1], "k": 1}}'
    assert refusal(strict.rest, body) == Status(Code.INTERNAL, NOT_PREDICT)
    assert refusal(strict.rest, b"{}").code is Code.INVALID_ARGUMENT
    assert json.loads(predictor("other").rest(body))["outputs"]["y"] == [2.0]


@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_method_names_that_predict_takes(method: str) -> None:
    strict = predictor(f"tensorflow/serving/{method}", check_method_names=True)
    assert strict.grpc(request(1))


def test_a_row_of_base64_does_not_fill_several_inputs() -> None:
    body = b'{"signature_name": "texts", "instances": [{"b64": "YQ=="}]}'
    assert refusal(predictor().rest, body) == Status(
        Code.INVALID_ARGUMENT,
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
    )


def test_a_response_larger_than_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The tensorflow.serving.PredictResponse is larger than the 50 bytes that a message may have"
    monkeypatch.setattr(reply_bytes, "MAX_MESSAGE_BYTES", 50)
    for numbers in (range(13), range(12)):  # by the arrays alone, and by the message
        found = refusal(predictor().grpc, request(*numbers, outputs=["y"]))
        assert found == Status(Code.RESOURCE_EXHAUSTED, text)


def test_a_dtype_that_is_not_the_signatures() -> None:
    """Found when it would run, so after the outputs; counted by the tensors' names, of which k:0 is the first."""
    asked = predict_pb2.PredictRequest.FromString(request(1))
    asked.inputs["x"].CopyFrom(tensors.encode(np.array([1]), types_pb2.DT_INT64))
    text = "Expects arg[1] to be float but int64 is provided"
    assert refusal(predictor().grpc, asked.SerializeToString()) == Status(Code.INVALID_ARGUMENT, text)
    asked.output_filter.append("nonesuch")
    assert refusal(predictor().grpc, asked.SerializeToString()).message.startswith("output tensor alias not found")


def test_a_signature_without_dtypes_takes_any() -> None:
    model = FakeModel()
    model.signatures["serving_default"].inputs["x"].dtype = types_pb2.DT_INVALID
    assert Predictor(model, Identity("m", 7)).grpc(request(1))
