"""Rows of the table of gRPC cases: Predict, and what a TensorProto may be. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np

from tests.e2e.grpc_case import (
    INVALID,
    LOOKUP,
    OK,
    PRECONDITION,
    PREDICT,
    PREDICT_UTIL,
    PROTO_UTIL,
    TENSOR,
    UTIL,
    GrpcCase,
    spec_is,
)
from tests.e2e.plain_models import DTYPES
from tests.e2e.pool import predict_request
from tests.e2e.tensor_proto import array_of, tensor, values


def predict(
    id_: str,
    request: Any,
    code: grpc.StatusCode,
    expected: str | Callable[[Any], bool],
    source: str,
) -> GrpcCase:
    return GrpcCase(f"predict {id_}", PREDICT, request, code, expected, source)


def _outputs(**wanted: Any) -> Callable[[Any], bool]:
    """A PredictResponse with exactly these outputs, each a flat list of its values."""
    return lambda reply: {name: np.ravel(values(proto)).tolist() for name, proto in reply.outputs.items()} == wanted


def half(numbers: Any = (1.0, 2.0), **spec: Any) -> Any:
    return predict_request("half_plus_two", {"x": tensor(list(numbers))}, **spec)


def _filtered(*names: str) -> Any:
    request = predict_request("sum", {"a": tensor([1.0]), "b": tensor([2.0])})
    request.output_filter.extend(names)
    return request


def _shaped(dims: Sequence[int], numbers: Sequence[float] = (), dtype: str = "float32") -> Any:
    proto = tensor(list(numbers), dtype)
    del proto.tensor_shape.dim[:]
    for dim in dims:
        proto.tensor_shape.dim.add().size = dim
    return proto


def _content(dims: Sequence[int], content: bytes, dtype: str = "float32") -> Any:
    proto = _shaped(dims, (), dtype)
    proto.tensor_content = content
    return proto


def predicts() -> list[GrpcCase]:
    pre, post = PREDICT_UTIL + "PreProcessPrediction", PREDICT_UTIL + "PostProcessPredictionResult"
    spec = UTIL + "MakeModelSpec"
    two = {"a": tensor([1.0, 2.0]), "b": tensor([3.0, 4.0])}
    return [
        predict("one output", half(), OK, _outputs(y=[2.5, 3.0]), post),
        predict("two outputs", predict_request("sum", two), OK, _outputs(total=[4.0, 6.0], product=[3.0, 8.0]), post),
        predict("one of two outputs", _filtered("product"), OK, _outputs(product=[2.0]), pre),
        predict("both outputs asked for", _filtered("total", "product"), OK, _outputs(total=[3.0], product=[2.0]), pre),
        predict(
            "newest version",
            predict_request("dense", {"inputs": _shaped([1, 15], [0.5] * 15)}),
            OK,
            spec_is("dense", "serving_default", 2),
            LOOKUP,
        ),
        predict(
            "by version",
            predict_request("dense", {"inputs": _shaped([1, 15], [0.5] * 15)}, version=1),
            OK,
            spec_is("dense", "serving_default", 1),
            LOOKUP,
        ),
        predict("spec of the reply", half(), OK, spec_is("half_plus_two", "serving_default", 123), spec),
        predict(
            "named signature",
            predict_request("demo", {"b": tensor(b"s", "string")}, signature="test_assign"),
            OK,
            spec_is("demo", "test_assign", 1),
            spec,
        ),
        predict(
            "of a classify signature",
            predict_request("half_plus_two", {"inputs": tensor([b""], "string")}, signature="classify_x_to_y"),
            INVALID,
            "Name: <unknown>, Feature: x (data type: float) is required...",
            pre,
        ),
        predict(
            "unknown signature",
            half(signature="nonesuch"),
            PRECONDITION,
            'Serving signature key "nonesuch" not found.',
            pre,
        ),
        predict(
            "no serving_default",
            predict_request("demo", {"a": tensor(b"", "string")}),
            PRECONDITION,
            'Serving signature key "serving_default" not found.',
            pre,
        ),
        predict(
            "missing input",
            predict_request("sum", {"a": tensor([1.0])}),
            INVALID,
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {b}.",
            pre,
        ),
        predict(
            "no input",
            predict_request("sum", {}),
            INVALID,
            "input size does not match signature: 0!=2 len({}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {a,b}.",
            pre,
        ),
        predict(
            "extra input",
            predict_request("half_plus_two", {"x": tensor([1.0]), "z": tensor([1.0])}),
            INVALID,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
            "Missing but required: {}.",
            pre,
        ),
        predict(
            "wrong input name",
            predict_request("half_plus_two", {"z": tensor([1.0])}),
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
            "Inputs expected to be in the set {x}.",
            PROTO_UTIL,
        ),
        predict(
            "unknown output",
            _filtered("z"),
            INVALID,
            "output tensor alias not found in signature: z Outputs expected to be in the set {product,total}.",
            pre,
        ),
        predict("output twice", _filtered("total", "total"), INVALID, "duplicate output tensor alias: total", pre),
        predict(
            "default used",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="defaults"),
            OK,
            _outputs(y=[4.0, 5.0]),
            PROTO_UTIL,
        ),
        predict(
            "default replaced",
            predict_request("twisted", {"x": tensor([1.0]), "k": tensor([5.0])}, signature="defaults"),
            OK,
            _outputs(y=[6.0]),
            PROTO_UTIL,
        ),
        predict(
            "only the default's input",
            predict_request("twisted", {"k": tensor([5.0])}, signature="defaults"),
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value...",
            PROTO_UTIL,
        ),
        predict(
            "extra input beside defaults",
            predict_request("twisted", {"x": tensor([1.0]), "z": tensor([5.0])}, signature="defaults"),
            INVALID,
            "Inputs contains invalid name...",
            PROTO_UTIL,
        ),
        predict(
            "declared shape not checked",
            predict_request("half_plus_two", {"x": _shaped([1, 1, 3], [1, 2, 3])}),
            OK,
            _outputs(y=[2.5, 3.0, 3.5]),
            pre,
        ),
        predict(
            "scalar output",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="scalar"),
            OK,
            lambda reply: not reply.outputs["y"].tensor_shape.dim and values(reply.outputs["y"]) == 3.0,
            post,
        ),
        predict(
            "uneven outputs",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="uneven"),
            OK,
            _outputs(all=[1.0, 2.0], half=[1.0]),
            post,
        ),
        predict("an empty batch", predict_request("half_plus_two", {"x": _shaped([0])}), OK, _outputs(y=[]), post),
        predict(
            "error of an op",
            predict_request("twisted", {"e": tensor([b"1.5", b"one"], "string")}, signature="number"),
            INVALID,
            "StringToNumberOp could not correctly convert string: one...",
            pre,
        ),
        predict(
            "incompatible shapes",
            predict_request("sum", {"a": tensor([1.0, 2.0]), "b": tensor([1.0, 2.0, 3.0])}),
            INVALID,
            "Incompatible shapes: [2] vs. [3]...",
            pre,
        ),
        predict(
            "matrix of a wrong width",
            predict_request("dense", {"inputs": _shaped([1, 2], [1, 2])}),
            INVALID,
            "Matrix size-incompatible: In[0]: [1,2], In[1]: [15,15]...",
            pre,
        ),
    ]


def tensors() -> list[GrpcCase]:
    """What a TensorProto may be: Tensor::FromProto."""
    broken = "tensor parsing error: x..."
    bad = {
        "unknown dtype": _dtype(_shaped([1], [1.0]), 0),
        "dtype of no type": _dtype(_shaped([1], [1.0]), 77),
        "resource": _dtype(_shaped([1], [1.0]), 20),
        "variant": _dtype(_shaped([1], [1.0]), 21),
        "reference": _dtype(_shaped([1], [1.0]), 101),
        "negative dimension": _shaped([-1], [1.0]),
        "negative among others": _shaped([2, -3], [1.0]),
        "unknown rank": _unknown_rank(),
        "too many elements": _shaped([1 << 40], [1.0]),
        "product overflow": _shaped([1 << 31, 1 << 31, 1 << 31], [1.0]),
        "overflow before a zero": _shaped([1 << 62, 4, 0], [1.0]),
        "content too short": _content([2], b"\0\0\0\0"),
        "content too long": _content([1], b"\0" * 5),
        "string content too short": _content([3], b"\1a", "string"),
        "string content with a broken length": _content([1], b"\xff\xff\xff\xff\xff\xff", "string"),
        "rank of 300": _shaped([1] * 300, [1.0]),
    }
    cases = [
        predict(f"tensor: {id_}", predict_request("half_plus_two", {"x": proto}), INVALID, broken, TENSOR)
        for id_, proto in bad.items()
    ]
    good: dict[str, tuple[Any, list[float]]] = {
        "last value repeated": (_shaped([3], [1.0, 2.0]), [2.5, 3.0, 3.0]),
        "zeros for nothing": (_shaped([2]), [2.0, 2.0]),
        "longer list cut": (_shaped([1], [1.0, 2.0, 3.0]), [2.5]),
        "scalar": (_shaped([], [4.0]), [4.0]),
        "content": (_content([2], b"\0\0\x80\x3f\0\0\0\x40"), [2.5, 3.0]),
        "content before the list": (_both_forms(), [2.5]),
        "no elements in three dimensions": (_shaped([2, 0, 3]), []),
        "named dimensions": (_named_dimension(), [2.5]),
    }
    cases += [
        predict(f"tensor: {id_}", predict_request("half_plus_two", {"x": proto}), OK, _outputs(y=wanted), TENSOR)
        for id_, (proto, wanted) in good.items()
    ]
    run = "servables/tensorflow/predict_util.cc: RunPredict"
    for dtype in ("float64", "int32", "int64", "bool", "string", "float16", "complex64", "uint8"):
        sent = tensor([b"a"] if dtype == "string" else [1], dtype)
        cases.append(
            predict(f"{dtype} for float", predict_request("half_plus_two", {"x": sent}), INVALID, "Expects arg...", run)
        )
    return cases


def _dtype(proto: Any, number: int) -> Any:
    proto.dtype = number
    return proto


def _unknown_rank() -> Any:
    proto = _shaped([1], [1.0])
    proto.tensor_shape.unknown_rank = True
    return proto


def _both_forms() -> Any:
    proto = _content([1], b"\0\0\x80\x3f")
    proto.float_val.append(8.0)
    return proto


def _named_dimension() -> Any:
    proto = _shaped([1], [1.0])
    proto.tensor_shape.dim[0].name = "batch"
    return proto


def round_trips() -> list[GrpcCase]:
    """Every dtype, sent in its typed field and, for numbers, as tensor_content; it comes back in its typed field."""
    cases = []
    for dtype in DTYPES:
        sample = array_of([[b"", b"\0\xff"]] if dtype == "string" else [[0, 1], [1, 0]], dtype)
        typed = tensor(sample, dtype)
        source = "servables/tensorflow/predict_util.cc: PostProcessPredictionResult (Tensor::AsProtoField)"
        forms = (
            {"typed": typed} if dtype == "string" else {"typed": typed, "content": tensor(sample, dtype, content=True)}
        )
        for form, proto in forms.items():
            request = predict_request("dtypes", {"x": proto}, signature=dtype)
            cases.append(predict(f"{dtype} {form}", request, OK, _comes_back(typed), source))
    return cases


def _comes_back(wanted: Any) -> Callable[[Any], bool]:
    return lambda reply: reply.outputs["y"] == wanted
