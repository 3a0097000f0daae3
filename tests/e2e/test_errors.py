"""Wrong requests get TF Serving's codes and texts, over gRPC and REST, and the worker lives on."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tests.e2e.pool import Pool, Reply, predict_request
from tests.e2e.tensor_proto import tensor, values

X = [1.0, 2.0, 5.0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INTERNAL = grpc.StatusCode.INTERNAL
MALFORMED = "Malformed request: "
MODELS = {"half_plus_two": 123, "dense": 2, "demo": 1, "sum": 1}


@pytest.fixture(autouse=True)
def worker_lives_on(shared_pool: Pool) -> Iterator[None]:
    """After each test the same processes answer as before it, and rightly."""
    before = [shared_pool.worker(name, version)["pid"] for name, version in MODELS.items()]
    yield
    assert [shared_pool.worker(name, version)["pid"] for name, version in MODELS.items()] == before
    reply = shared_pool.predict(predict_request("half_plus_two", {"x": tensor(X)}))
    assert values(reply.outputs["y"]) == [2.5, 3.0, 4.5]


def refused(pool: Pool, request: Any) -> tuple[grpc.StatusCode, str]:
    """Code and text of the refusal of a request."""
    with pytest.raises(grpc.RpcError) as caught:
        pool.predict(request)
    return caught.value.code(), caught.value.details()


@dataclass(frozen=True)
class Wrong:
    """A wrong gRPC request to a model and what must come back."""

    id: str
    code: grpc.StatusCode
    text: str
    model: str = "half_plus_two"
    inputs: dict[str, Any] = field(default_factory=lambda: {"x": tensor(X)})
    spec: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


WRONG = [
    Wrong("no name", INVALID, "ModelSpec has no name specified.", model=""),
    Wrong("unknown model", NOT_FOUND, "Servable not found for request: Latest(nonesuch)", model="nonesuch"),
    Wrong(
        "unknown model and version",
        NOT_FOUND,
        "Servable not found for request: Specific(nonesuch, 7)",
        model="nonesuch",
        spec={"version": 7},
    ),
    Wrong(
        "unknown version",
        NOT_FOUND,
        "Servable not found for request: Specific(half_plus_two, 7)",
        spec={"version": 7},
    ),
    Wrong("unknown label", INVALID, "Unrecognized servable version label: canary", spec={"label": "canary"}),
    Wrong(
        "unknown signature",
        FAILED_PRECONDITION,
        'Serving signature key "nonesuch" not found.',
        spec={"signature": "nonesuch"},
    ),
    Wrong(
        "no serving_default",
        FAILED_PRECONDITION,
        'Serving signature key "serving_default" not found.',
        model="demo",
        inputs={"a": tensor(b"", "string")},
    ),
    Wrong(
        "missing input",
        INVALID,
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
        model="sum",
        inputs={"a": tensor(X)},
    ),
    Wrong(
        "no input",
        INVALID,
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        inputs={},
    ),
    Wrong(
        "superfluous input",
        INVALID,
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
        inputs={"x": tensor(X), "z": tensor(X)},
    ),
    Wrong(
        "unknown output",
        INVALID,
        "output tensor alias not found in signature: z Outputs expected to be in the set {product,total}.",
        model="sum",
        inputs={"a": tensor(X), "b": tensor(X)},
        outputs=("z",),
    ),
    Wrong("output twice", INVALID, "duplicate output tensor alias: y", outputs=("y", "y")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.id)
def test_predict_over_grpc(shared_pool: Pool, wrong: Wrong) -> None:
    request = predict_request(wrong.model, wrong.inputs, **wrong.spec)
    request.output_filter.extend(wrong.outputs)
    assert refused(shared_pool, request) == (wrong.code, wrong.text)


def test_wrong_input_name_over_grpc(shared_pool: Pool) -> None:
    assert refused(shared_pool, predict_request("half_plus_two", {"z": tensor(X)})) == (
        INVALID,
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
        "Inputs expected to be in the set {x}.",
    )


def test_no_model_spec_over_grpc(shared_pool: Pool) -> None:
    request = predict_request("", {"x": tensor(X)})
    request.ClearField("model_spec")
    assert refused(shared_pool, request) == (INVALID, "Missing ModelSpec")


@pytest.mark.parametrize(
    ("dtype", "name"), [("int32", "int32"), ("float64", "double"), ("string", "string"), ("bool", "bool")]
)
def test_wrong_dtype_over_grpc(shared_pool: Pool, dtype: str, name: str) -> None:
    sent = tensor([b"a"] if dtype == "string" else [1], dtype)
    code, text = refused(shared_pool, predict_request("half_plus_two", {"x": sent}))
    assert code is INVALID
    assert text.splitlines()[0] == f"Type mismatch: actual {name} vs. expect float"


@pytest.mark.parametrize(
    ("enum", "name"), [(0, "invalid"), (20, "resource"), (21, "variant"), (9999, "unknown dtype enum (9999)")]
)
def test_impossible_dtype_over_grpc(shared_pool: Pool, enum: int, name: str) -> None:
    sent = tensor(X)
    sent.dtype = enum
    text = f"tensor parsing error: x: dtype {name} is not supported"
    assert refused(shared_pool, predict_request("half_plus_two", {"x": sent})) == (INVALID, text)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([-1], "shape [-1] has a negative dimension"),
        ([-3, 2], "shape [-3, 2] has a negative dimension"),
        ([2**62, 2**62], f"shape [{2**62}, {2**62}] has too many elements"),
        ([2**40], f"{2**40} elements from a list of 3 are more than {2**31 - 1} bytes"),
    ],
)
def test_impossible_shape_over_grpc(shared_pool: Pool, sizes: list[int], reason: str) -> None:
    sent = tensor(X)
    del sent.tensor_shape.dim[:]
    for size in sizes:
        sent.tensor_shape.dim.add(size=size)
    text = f"tensor parsing error: x: {reason}"
    assert refused(shared_pool, predict_request("half_plus_two", {"x": sent})) == (INVALID, text)


def test_content_that_does_not_fit_its_shape_over_grpc(shared_pool: Pool) -> None:
    sent = tensor(X, content=True)
    sent.tensor_shape.dim[0].size = 4
    text = "tensor parsing error: x: tensor_content has 12 bytes, the shape wants 16"
    assert refused(shared_pool, predict_request("half_plus_two", {"x": sent})) == (INVALID, text)


def test_wrong_shape_over_grpc(shared_pool: Pool) -> None:
    code, text = refused(shared_pool, predict_request("dense", {"inputs": tensor([[1.0] * 7])}))
    assert code is INVALID
    assert text.splitlines()[0] == "Matrix size-incompatible: In[0]: [1,7], In[1]: [15,15]"
    code, text = refused(shared_pool, predict_request("sum", {"a": tensor([1.0, 2.0]), "b": tensor(X)}))
    assert code is INVALID
    assert text.splitlines()[0] == "Incompatible shapes: [2] vs. [3]"


GOOD_SPEC = predict_request("half_plus_two", {}).SerializeToString()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff\xff\xff", "truncated at byte 3"),
        (b"\x0a\xff\xff\xff\x7f", "truncated at byte 5"),
        (b"\x0a\x02half", "invalid field before byte 5"),
        (b"\x12\x7f", "truncated at byte 2"),
        (GOOD_SPEC + b"\x12\x7fcut short", f"truncated at byte {len(GOOD_SPEC) + 2}"),
    ],
)
def test_malformed_protobuf(shared_pool: Pool, body: bytes, reason: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared_pool.call_raw("Predict", body)
    assert (caught.value.code(), caught.value.details()) == (INTERNAL, f"{MALFORMED}{reason}")


def test_malformed_tensor_within_a_good_request(shared_pool: Pool) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared_pool.call_raw("Predict", GOOD_SPEC + b"\x12\x03\x0a\x7fx")
    assert (caught.value.code(), caught.value.details()) == (INTERNAL, "WHAT")


def test_very_many_fields(shared_pool: Pool) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared_pool.call_raw("Predict", GOOD_SPEC + b"\x10\x00" * 400_000)
    text = "Request with too many fields: expected at most 4096 at its top level and in its model_spec"
    assert (caught.value.code(), caught.value.details()) == (INVALID, text)


def test_unknown_method(shared_pool: Pool) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared_pool.call_raw("Nonesuch", b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_too_big_over_grpc(shared_pool: Pool) -> None:
    request = predict_request("half_plus_two", {"x": tensor([1.0] * 500_000)})
    code, text = refused(shared_pool, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.endswith(f"Received message larger than max ({request.ByteSize()} vs. 1000000)")


def test_too_big_over_rest(shared_pool: Pool) -> None:
    body = '{"instances": [' + ",".join(["1.0"] * 500_000) + "]}"
    reply = shared_pool.post("/v1/models/half_plus_two:predict", body)
    text = f"Request body is too large: {len(body)} bytes, the limit max_request_bytes is 1000000"
    assert (reply.status, reply.error) == (413, text)


def test_status_errors(shared_pool: Pool) -> None:
    for name, version, text in [
        ("nonesuch", None, "Could not find any versions of model nonesuch"),
        ("half_plus_two", 7, "Could not find version 7 of model half_plus_two"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            shared_pool.model_status(name, version)
        assert (caught.value.code(), caught.value.details()) == (NOT_FOUND, text)
        path = f"/v1/models/{name}" + (f"/versions/{version}" if version else "")
        reply = shared_pool.get(path)
        assert (reply.status, reply.error) == (404, text)
    missing = shared_pool.get("/v1/models")
    assert (missing.status, missing.error) == (400, "Missing model name in request.")


# -- REST --------------------------------------------------------------------------------------------------------

HALF, SUM = "/v1/models/half_plus_two:predict", "/v1/models/sum:predict"

REST = {
    "unknown model": (
        "/v1/models/nonesuch:predict",
        '{"instances": [1.0]}',
        404,
        "Servable not found for request: Latest(nonesuch)",
    ),
    "unknown version": (
        "/v1/models/half_plus_two/versions/7:predict",
        '{"instances": [1.0]}',
        404,
        "Servable not found for request: Specific(half_plus_two, 7)",
    ),
    "unknown label": (
        "/v1/models/half_plus_two/labels/canary:predict",
        '{"instances": [1.0]}',
        400,
        "Unrecognized servable version label: canary",
    ),
    "unknown signature": (
        HALF,
        '{"signature_name": "nonesuch", "instances": [1.0]}',
        400,
        'Serving signature name: "nonesuch" not found in signature def',
    ),
    "unknown verb": ("/v1/models/half_plus_two:guess", "{}", 400, MALFORMED + "POST /v1/models/half_plus_two:guess"),
    "query": (HALF + "?x", '{"instances": [1.0]}', 400, MALFORMED + "POST " + HALF + "?x"),
    "no name": ("/v1/models/:predict", "{}", 400, MALFORMED + "POST /v1/models/:predict"),
    "empty body": (HALF, "", 400, "JSON Parse error: The document is empty"),
    "neither": (HALF, "{}", 400, "Missing 'inputs' or 'instances' key"),
    "plain for many": (
        SUM,
        '{"instances": [1.0]}',
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "plain columns for many": (
        SUM,
        '{"inputs": [1.0]}',
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "missing column": (SUM, '{"inputs": {"a": [1.0]}}', 400, "Missing named input: b in 'inputs' object."),
}


@pytest.mark.parametrize(("path", "body", "status", "text"), REST.values(), ids=REST.keys())
def test_predict_over_rest(shared_pool: Pool, path: str, body: str, status: int, text: str) -> None:
    reply = shared_pool.post(path, body)
    assert (reply.status, reply.error) == (status, text)
    assert reply.content_type == "application/json"


WRONG_JSON = {
    "both": (
        HALF,
        '{"instances": [1.0], "inputs": [1.0]}',
        'JSON Value: {\n    "instances": [\n        1.0\n    ],\n    "inputs": [\n        1.0\n    ]\n} Not formatted '
        "correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    "instances no list": (
        HALF,
        '{"instances": 1.0}',
        "JSON Value: {\n    \"instances\": 1.0\n} Expecting 'instances' to be an list/array",
    ),
    "no instances": (
        HALF,
        '{"instances": []}',
        "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
    ),
    "not JSON": (HALF, "{", "JSON Parse error: Missing a name for object member. at offset: 1"),
    "trailing comma": (HALF, '{"instances": [1.0,]}', "JSON Parse error: Invalid value. at offset: 19"),
    "single quotes": (
        HALF,
        "{'instances': [1.0]}",
        "JSON Parse error: Missing a name for object member. at offset: 1",
    ),
    "no object": (HALF, "[1.0]", "JSON Value: [\n    1.0\n] Is not object"),
    "signature no string": (
        HALF,
        '{"signature_name": 1, "instances": [1.0]}',
        'JSON Value: {\n    "signature_name": 1,\n    "instances": [\n        1.0\n    ]\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    "string for float": (HALF, '{"inputs": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float'),
    "null for float": (HALF, '{"inputs": [null]}', "JSON Value: null Type: Null is not of expected type: float"),
    "true for float": (HALF, '{"inputs": [true]}', "JSON Value: true Type: True is not of expected type: float"),
    "string for float in a row": (
        HALF,
        '{"instances": [1.0, "a"]}',
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    "ragged": (
        HALF,
        '{"inputs": [[1.0, 2.0], [1.0]]}',
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "too deep": (HALF, '{"inputs": [1.0, [2.0]]}', "Encountered list at unexpected level: 1 expected < 1"),
    "not deep enough": (
        HALF,
        '{"inputs": [[1.0], 2.0]}',
        "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "object in plain list": (
        HALF,
        '{"instances": [1.0, {"x": 2.0}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    "list among objects": (
        HALF,
        '{"instances": [{"x": 2.0}, 1.0]}',
        "Expecting object but got list at item 1 of input list",
    ),
    "key missing in a row": (
        SUM,
        '{"instances": [{"a": 1.0}]}',
        "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1.0\n} keys must be equal to: a,b",
    ),
    "key too many in a row": (
        SUM,
        '{"instances": [{"a": 1.0, "b": 1.0, "c": 1.0}]}',
        "Failed to process element: 0 key: c of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: c",
    ),
    "shapes differ": (
        HALF,
        '{"instances": [[1.0, 2.0], [1.0]]}',
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting tensor size: 2 but got: 1",
    ),
    "wrong shape": (
        "/v1/models/dense:predict",
        '{"instances": [[1.0, 2.0]]}',
        "Matrix size-incompatible: In[0]: [1,2], In[1]: [15,15]",
    ),
    "bad base64": (
        "/v1/models/demo:predict",
        '{"signature_name": "test_assign", "inputs": {"b": {"b64": "!!!"}}}',
        "Unable to base64 decode",
    ),
}


@pytest.mark.parametrize(("path", "body", "text"), WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_wrong_json(shared_pool: Pool, path: str, body: str, text: str) -> None:
    reply = shared_pool.post(path, body)
    # After a line break an operation of TensorFlow names its node, which differs from one build of the model to another.
    assert (reply.status, reply.error.partition("\n\t [[")[0]) == (400, text)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_wrong_http_method(shared_pool: Pool, method: str) -> None:
    reply = shared_pool.http(method, "/v1/models/half_plus_two", b"{}")
    assert (reply.status, reply.error) == (400, f"{MALFORMED}{method} /v1/models/half_plus_two")


def test_path_outside_the_api(shared_pool: Pool) -> None:
    reply = shared_pool.get("/nonesuch")
    assert (reply.status, reply.content_type) == (404, "text/html; charset=utf-8")
    assert "The requested URL /nonesuch was not found on this server." in reply.text


def test_gzip_that_is_none(shared_pool: Pool) -> None:
    def post(body: bytes) -> Reply:
        return shared_pool.http("POST", HALF, body, {"Content-Encoding": "gzip"})

    good = gzip.compress(b'{"instances": [1.0]}')
    assert post(good).json == {"predictions": [2.5]}
    for body, reason in (
        (b"no gzip", "Error -3 while decompressing data: incorrect header check"),
        (good[:-9], "the stream is cut short"),
    ):
        reply = post(body)
        assert (reply.status, reply.error) == (400, f"Request body is not valid gzip: {reason}")


def test_any_bytes_as_a_body(shared_pool: Pool) -> None:
    for body, text in (
        (b"\x00", "JSON Parse error: The document is empty. at offset: 0"),
        (b"\xff\xfe", "JSON Parse error: Invalid value. at offset: 0"),
        (b'"\xff"', 'JSON Value: "\ufffd" Is not object'),
        (b"{" * 10_000, "JSON Parse error: Missing a name for object member. at offset: 1"),
        (b"[" * 100_000, "JSON Parse error: Invalid value. at offset: 100000"),
        (b'{"instances": [' + b"[" * 50_000, "JSON Parse error: Invalid value. at offset: 50015"),
    ):
        reply = shared_pool.post(HALF, body)
        assert (reply.status, reply.error) == (400, text), body[:20]
