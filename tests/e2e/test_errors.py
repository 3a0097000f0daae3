"""Wrong requests over gRPC get TF Serving's codes and texts, and the worker lives on."""

from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tests.e2e.pool import Pool, predict_request
from tests.e2e.tensor_proto import tensor

X = [1.0, 2.0, 5.0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INTERNAL = grpc.StatusCode.INTERNAL
MALFORMED = "Malformed request: "

pytestmark = pytest.mark.usefixtures("workers_live_on")


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
    assert text == f"Expects arg[0] to be float but {name} is provided"


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
    assert caught.value.code() is INTERNAL
    text = f"Failed to parse tensorflow.serving.PredictRequest of {len(GOOD_SPEC) + 5} bytes: "
    assert caught.value.details().startswith(text)


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
