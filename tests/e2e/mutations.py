"""Request bodies that were right once: a corpus and ways to spoil it, as hypothesis strategies. Pure."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

# Bytes that mean something to a protobuf parser: endless and huge varints, group tags, huge lengths, invalid UTF-8.
_PROTO_PIECES = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff" * 11,
    b"\x0b\x0b\x0b\x0b",
    b"\x0c",
    b"\x00",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x12\x02\x0a\x00",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
    b"\xc3\x28",
    b"\x08\x80\x80\x80\x80\x80\x80\x01",
)
# And to a JSON parser.
_JSON_PIECES = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"null", b"true", b"NaN", b"-Infinity", b"1e400", b"-0", b"1."),
    *(b"[[[[[[[[[[", b'{"b64": "', b'"instances": ', b'"inputs": ', b'"signature_name": ', b"\\ud800", b"\xff\xfe"),
    *(b"9223372036854775808", b"-9223372036854775809", b"0.1e-400", b"\xef\xbb\xbf", b"\x00", b"'", b"//", b"1" * 400),
)
_MAX_EDITS = 6


@dataclass(frozen=True, slots=True)
class Call:
    """One request: a gRPC method ("/package.Service/Method") or a REST path, and its body."""

    target: str
    body: bytes
    gzipped: bool = False

    @property
    def is_rest(self) -> bool:
        return self.target.startswith("/v1/")


@st.composite
def spoiled(draw: st.DrawFn, corpus: Sequence[Call]) -> Call:
    """A call of the corpus after one to six random edits of its bytes, now and then of its gzipped bytes."""
    call = draw(st.sampled_from(corpus))
    gzipped = call.is_rest and draw(st.integers(0, 9)) == 0
    body = gzip.compress(call.body, 1) if gzipped else call.body
    for _ in range(draw(st.integers(1, _MAX_EDITS))):
        body = draw(st.sampled_from(_EDITS))(draw, body, corpus)
    return Call(call.target, body, gzipped)


def _place(draw: st.DrawFn, body: bytes) -> int:
    return draw(st.integers(0, len(body)))


def _flip(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    if not body:
        return body
    at = draw(st.integers(0, len(body) - 1))
    return body[:at] + bytes([body[at] ^ 1 << draw(st.integers(0, 7))]) + body[at + 1 :]


def _delete(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    at = _place(draw, body)
    return body[:at] + body[at + draw(st.integers(1, 16)) :]


def _truncate(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    return body[: _place(draw, body)]


def _insert(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    at = _place(draw, body)
    piece = draw(st.sampled_from(_PROTO_PIECES + _JSON_PIECES) | st.binary(min_size=1, max_size=8))
    return body[:at] + piece + body[at:]


def _overwrite(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    at = _place(draw, body)
    piece = draw(st.sampled_from(_PROTO_PIECES + _JSON_PIECES) | st.binary(min_size=1, max_size=8))
    return body[:at] + piece + body[at + len(piece) :]


def _repeat(draw: st.DrawFn, body: bytes, _: Sequence[Call]) -> bytes:
    at = _place(draw, body)
    length = draw(st.integers(1, 64))
    return body[:at] + body[at : at + length] * draw(st.integers(2, 20)) + body[at + length :]


def _splice(draw: st.DrawFn, body: bytes, corpus: Sequence[Call]) -> bytes:
    other = draw(st.sampled_from(corpus)).body
    return body[: _place(draw, body)] + other[_place(draw, other) :]


_Edit = Callable[[st.DrawFn, bytes, Sequence[Call]], bytes]
_EDITS: tuple[_Edit, ...] = (_flip, _flip, _delete, _truncate, _insert, _overwrite, _repeat, _splice)


def rest_corpus() -> list[Call]:
    """Bodies of REST calls to the models of the tests, right ones of every kind."""
    row = {"instances": [1.0, 2.0, 5.0]}
    named = {"signature_name": "serving_default", "instances": [{"a": [1.0], "b": [2.0]}, {"a": [3.5], "b": [4e-3]}]}
    columns = {"inputs": {"a": [[1, 2], [3, 4]], "b": [[-1.5, 2.5], [1e30, 0]]}}
    strings = {"signature_name": "string", "instances": ["a", "\u00e4\u20ac", {"b64": "AAEC"}]}
    wholes = {"signature_name": "int64", "inputs": [[1, 2, 3], [-(2**63), 2**63 - 1, 0]]}
    booleans = {"signature_name": "bool", "instances": [[True, False], [False, True]]}
    examples = {"context": {"c": 1.5}, "examples": [{"x": 1.0, "s": ["p", {"b64": "AA=="}]}, {"x": [2.5], "n": 3}]}
    calls = [("half_plus_two", row), ("sum", named), ("sum", columns), *(("dtypes", b) for b in (strings, wholes))]
    calls += [("dtypes", booleans), ("half_plus_two", {"inputs": 3.0}), ("nonesuch", row)]
    corpus = [Call(f"/v1/models/{model}:predict", json.dumps(body).encode()) for model, body in calls]
    for verb in ("classify", "regress"):
        body = json.dumps(examples | {"signature_name": f"{verb}_x_to_y"}).encode()
        corpus.append(Call(f"/v1/models/half_plus_two:{verb}", body))
    return corpus


def grpc_corpus(samples: Sequence[tuple[str, Any]]) -> list[Call]:
    """Right requests of every method of PredictionService and of GetModelStatus.

    `samples`: signature of the model `dtypes` and a TensorProto for it.
    """
    requests: list[tuple[str, Any]] = []
    for signature, tensor in samples:
        predict = predict_pb2.PredictRequest()
        predict.model_spec.name, predict.model_spec.signature_name = "dtypes", signature
        predict.inputs["x"].CopyFrom(tensor)
        requests.append(("PredictionService/Predict", predict))
    filtered = predict_pb2.PredictRequest(output_filter=["total"])
    filtered.model_spec.name = "sum"
    filtered.model_spec.version.value = 1
    for name in ("a", "b"):
        filtered.inputs[name].CopyFrom(dict(samples)["float32"])
    requests.append(("PredictionService/Predict", filtered))
    classify = classification_pb2.ClassificationRequest()
    _fill_examples(classify, "classify")
    regress = regression_pb2.RegressionRequest()
    _fill_examples(regress, "regress")
    multi = inference_pb2.MultiInferenceRequest(input=classify.input)
    for verb in ("classify", "regress"):
        task = multi.tasks.add(method_name=f"tensorflow/serving/{verb}")
        task.model_spec.name, task.model_spec.signature_name = "half_plus_two", f"{verb}_x_to_y"
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "sum"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "sum"
    requests += [
        ("PredictionService/Classify", classify),
        ("PredictionService/Regress", regress),
        ("PredictionService/MultiInference", multi),
        ("PredictionService/GetModelMetadata", metadata),
        ("ModelService/GetModelStatus", status),
    ]
    return [Call(f"/tensorflow.serving.{method}", request.SerializeToString()) for method, request in requests]


def _fill_examples(request: Any, signature: str) -> None:
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", f"{signature}_x_to_y"
    examples = request.input.example_list_with_context
    examples.context.features.feature["c"].float_list.value.append(1.5)
    for number in (1.0, -2.5):
        features = examples.examples.add().features.feature
        features["x"].float_list.value.append(number)
        features["s"].bytes_list.value.extend([b"p", b"\x00\xff"])
        features["n"].int64_list.value.append(3)
