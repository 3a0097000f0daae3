"""The table of gRPC cases: a request, the code and text or the reply that must come, and where TF Serving decides it.

Pure: requests are made here, `test_grpc_cases` sends them. Models are those of `shared_pool`; sources are files and
functions of TensorFlow Serving, below `tensorflow_serving/`, or of TensorFlow where they begin with `tensorflow/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.e2e.models import DTYPES
from tests.e2e.pool import predict_request
from tests.e2e.tensor_proto import array_of, tensor, values

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
INTERNAL = grpc.StatusCode.INTERNAL

PREDICT = "PredictionService/Predict"
CLASSIFY = "PredictionService/Classify"
REGRESS = "PredictionService/Regress"
MULTI = "PredictionService/MultiInference"
METADATA = "PredictionService/GetModelMetadata"
STATUS = "ModelService/GetModelStatus"
RELOAD = "ModelService/HandleReloadConfigRequest"

PREDICT_UTIL = "servables/tensorflow/predict_util.cc: "
LOOKUP = "model_servers/server_core.cc: ServableRequestFromModelSpec"
BASIC_MANAGER = "core/basic_manager.cc: GetUntypedServableHandle"
CLASSIFIER = "servables/tensorflow/classifier.cc: "
REGRESSOR = "servables/tensorflow/regressor.cc: "
MULTI_INFERENCE = "servables/tensorflow/multi_inference.cc: "
UTIL = "servables/tensorflow/util.cc: "
MODEL_METADATA = "servables/tensorflow/get_model_metadata_impl.cc: "
MODEL_STATUS = "model_servers/get_model_status_impl.cc: GetModelStatusImpl::GetModelStatusWithModelSpec"
PROTO_UTIL = "tensorflow/cc/saved_model/util.cc: GetInputValues"
TENSOR = "tensorflow/core/framework/tensor.cc: Tensor::FromProto"


@dataclass(frozen=True)
class GrpcCase:
    """`expected`: the whole text of a refusal, or its beginning where it ends in "...", or what the reply must pass."""

    id: str
    method: str
    request: Any
    code: grpc.StatusCode
    expected: str | Callable[[Any], bool]
    source: str


def _predict(
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


def _half(numbers: Any = (1.0, 2.0), **spec: Any) -> Any:
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


def _without_spec(request: Any) -> Any:
    request.ClearField("model_spec")
    return request


def _content(dims: Sequence[int], content: bytes, dtype: str = "float32") -> Any:
    proto = _shaped(dims, (), dtype)
    proto.tensor_content = content
    return proto


def _spec_is(name: str, signature: str, version: int) -> Callable[[Any], bool]:
    def check(reply: Any) -> bool:
        spec = reply.model_spec
        return (spec.name, spec.signature_name, spec.version.value, spec.version_label) == (
            name,
            signature,
            version,
            "",
        )

    return check


def _lookups() -> list[GrpcCase]:
    """Which model and version: the same for every call."""
    examples = _example_input({"x": [1.0]})
    calls: list[tuple[str, Callable[[str], Any]]] = [
        (PREDICT, lambda name: predict_request(name, {"x": tensor([1.0])})),
        (CLASSIFY, lambda name: _examples_request(classification_pb2.ClassificationRequest, name, "", examples)),
        (REGRESS, lambda name: _examples_request(regression_pb2.RegressionRequest, name, "", examples)),
        (MULTI, lambda name: _multi([(name, "classify", "classify_x_to_y")], examples)),
        (METADATA, lambda name: _metadata(name, "signature_def")),
    ]
    cases = []
    for method, make in calls:
        verb = method.partition("/")[2]
        cases += [
            GrpcCase(f"{verb} without a name", method, make(""), INVALID, "ModelSpec has no name specified.", LOOKUP),
            GrpcCase(
                f"{verb} of an unknown model",
                method,
                make("nonesuch"),
                NOT_FOUND,
                "Servable not found for request: Latest(nonesuch)",
                BASIC_MANAGER,
            ),
        ]
        request = make("half_plus_two")
        spec = request.tasks[0].model_spec if method == MULTI else request.model_spec
        spec.version.value = 7
        text = "Servable not found for request: Specific(half_plus_two, 7)"
        cases.append(GrpcCase(f"{verb} of an unknown version", method, request, NOT_FOUND, text, BASIC_MANAGER))
        request = make("half_plus_two")
        spec = request.tasks[0].model_spec if method == MULTI else request.model_spec
        spec.version_label = "canary"
        text = "Unrecognized servable version label: canary"
        cases.append(GrpcCase(f"{verb} by an unknown label", method, request, INVALID, text, LOOKUP))
        if method not in (MULTI, METADATA):
            text = "Missing ModelSpec"
            cases.append(GrpcCase(f"{verb} without a spec", method, _without_spec(make("m")), INVALID, text, LOOKUP))
    empty_label = _half()
    empty_label.model_spec.version_label = ""
    cases.append(_predict("by the label ''", empty_label, INVALID, "Unrecognized servable version label: ", LOOKUP))
    both = _half(version=7)
    both.model_spec.version_label = "canary"  # of a oneof the last one counts
    cases.append(_predict("by both", both, INVALID, "Unrecognized servable version label: canary", LOOKUP))
    return cases


def _predicts() -> list[GrpcCase]:
    pre, post = PREDICT_UTIL + "PreProcessPrediction", PREDICT_UTIL + "PostProcessPredictionResult"
    spec = UTIL + "MakeModelSpec"
    two = {"a": tensor([1.0, 2.0]), "b": tensor([3.0, 4.0])}
    return [
        _predict("one output", _half(), OK, _outputs(y=[2.5, 3.0]), post),
        _predict("two outputs", predict_request("sum", two), OK, _outputs(total=[4.0, 6.0], product=[3.0, 8.0]), post),
        _predict("one of two outputs", _filtered("product"), OK, _outputs(product=[2.0]), pre),
        _predict(
            "both outputs asked for", _filtered("total", "product"), OK, _outputs(total=[3.0], product=[2.0]), pre
        ),
        _predict(
            "newest version",
            predict_request("dense", {"inputs": _shaped([1, 15], [0.5] * 15)}),
            OK,
            _spec_is("dense", "serving_default", 2),
            LOOKUP,
        ),
        _predict(
            "by version",
            predict_request("dense", {"inputs": _shaped([1, 15], [0.5] * 15)}, version=1),
            OK,
            _spec_is("dense", "serving_default", 1),
            LOOKUP,
        ),
        _predict("spec of the reply", _half(), OK, _spec_is("half_plus_two", "serving_default", 123), spec),
        _predict(
            "named signature",
            predict_request("demo", {"b": tensor(b"s", "string")}, signature="test_assign"),
            OK,
            _spec_is("demo", "test_assign", 1),
            spec,
        ),
        _predict(
            "of a classify signature",
            predict_request("half_plus_two", {"inputs": tensor([b""], "string")}, signature="classify_x_to_y"),
            INVALID,
            "Name: <unknown>, Feature: x (data type: float) is required...",
            pre,
        ),
        _predict(
            "unknown signature",
            _half(signature="nonesuch"),
            PRECONDITION,
            'Serving signature key "nonesuch" not found.',
            pre,
        ),
        _predict(
            "no serving_default",
            predict_request("demo", {"a": tensor(b"", "string")}),
            PRECONDITION,
            'Serving signature key "serving_default" not found.',
            pre,
        ),
        _predict(
            "missing input",
            predict_request("sum", {"a": tensor([1.0])}),
            INVALID,
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {b}.",
            pre,
        ),
        _predict(
            "no input",
            predict_request("sum", {}),
            INVALID,
            "input size does not match signature: 0!=2 len({}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {a,b}.",
            pre,
        ),
        _predict(
            "extra input",
            predict_request("half_plus_two", {"x": tensor([1.0]), "z": tensor([1.0])}),
            INVALID,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
            "Missing but required: {}.",
            pre,
        ),
        _predict(
            "wrong input name",
            predict_request("half_plus_two", {"z": tensor([1.0])}),
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
            "Inputs expected to be in the set {x}.",
            PROTO_UTIL,
        ),
        _predict(
            "unknown output",
            _filtered("z"),
            INVALID,
            "output tensor alias not found in signature: z Outputs expected to be in the set {product,total}.",
            pre,
        ),
        _predict("output twice", _filtered("total", "total"), INVALID, "duplicate output tensor alias: total", pre),
        _predict(
            "default used",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="defaults"),
            OK,
            _outputs(y=[4.0, 5.0]),
            PROTO_UTIL,
        ),
        _predict(
            "default replaced",
            predict_request("twisted", {"x": tensor([1.0]), "k": tensor([5.0])}, signature="defaults"),
            OK,
            _outputs(y=[6.0]),
            PROTO_UTIL,
        ),
        _predict(
            "only the default's input",
            predict_request("twisted", {"k": tensor([5.0])}, signature="defaults"),
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value...",
            PROTO_UTIL,
        ),
        _predict(
            "extra input beside defaults",
            predict_request("twisted", {"x": tensor([1.0]), "z": tensor([5.0])}, signature="defaults"),
            INVALID,
            "Inputs contains invalid name...",
            PROTO_UTIL,
        ),
        _predict(
            "declared shape not checked",
            predict_request("half_plus_two", {"x": _shaped([1, 1, 3], [1, 2, 3])}),
            OK,
            _outputs(y=[2.5, 3.0, 3.5]),
            pre,
        ),
        _predict(
            "scalar output",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="scalar"),
            OK,
            lambda reply: not reply.outputs["y"].tensor_shape.dim and values(reply.outputs["y"]) == 3.0,
            post,
        ),
        _predict(
            "uneven outputs",
            predict_request("twisted", {"x": tensor([1.0, 2.0])}, signature="uneven"),
            OK,
            _outputs(all=[1.0, 2.0], half=[1.0]),
            post,
        ),
        _predict("an empty batch", predict_request("half_plus_two", {"x": _shaped([0])}), OK, _outputs(y=[]), post),
        _predict(
            "error of an op",
            predict_request("twisted", {"e": tensor([b"1.5", b"one"], "string")}, signature="number"),
            INVALID,
            "StringToNumberOp could not correctly convert string: one...",
            pre,
        ),
        _predict(
            "incompatible shapes",
            predict_request("sum", {"a": tensor([1.0, 2.0]), "b": tensor([1.0, 2.0, 3.0])}),
            INVALID,
            "Incompatible shapes: [2] vs. [3]...",
            pre,
        ),
        _predict(
            "matrix of a wrong width",
            predict_request("dense", {"inputs": _shaped([1, 2], [1, 2])}),
            INVALID,
            "Matrix size-incompatible: In[0]: [1,2], In[1]: [15,15]...",
            pre,
        ),
    ]


def _tensors() -> list[GrpcCase]:
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
        _predict(f"tensor: {id_}", predict_request("half_plus_two", {"x": proto}), INVALID, broken, TENSOR)
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
        _predict(f"tensor: {id_}", predict_request("half_plus_two", {"x": proto}), OK, _outputs(y=wanted), TENSOR)
        for id_, (proto, wanted) in good.items()
    ]
    run = "servables/tensorflow/predict_util.cc: RunPredict"
    for dtype in ("float64", "int32", "int64", "bool", "string", "float16", "complex64", "uint8"):
        sent = tensor([b"a"] if dtype == "string" else [1], dtype)
        cases.append(
            _predict(
                f"{dtype} for float", predict_request("half_plus_two", {"x": sent}), INVALID, "Expects arg...", run
            )
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


def _round_trips() -> list[GrpcCase]:
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
            cases.append(_predict(f"{dtype} {form}", request, OK, _comes_back(typed), source))
    return cases


def _comes_back(wanted: Any) -> Callable[[Any], bool]:
    return lambda reply: reply.outputs["y"] == wanted


# -- examples ----------------------------------------------------------------------------------------------------


def _fill(example: Any, features: Mapping[str, Sequence[Any]]) -> None:
    for name, numbers in features.items():
        feature = example.features.feature[name]
        if isinstance(numbers[0], bytes):
            feature.bytes_list.value.extend(numbers)
        elif isinstance(numbers[0], int):
            feature.int64_list.value.extend(numbers)
        else:
            feature.float_list.value.extend(numbers)


def _example_input(*examples: Mapping[str, Sequence[Any]], context: Mapping[str, Sequence[Any]] | None = None) -> Any:
    """A tensorflow.serving.Input: an ExampleList, or one with context."""
    message = classification_pb2.ClassificationRequest().input
    if context is None:
        listed = message.example_list
    else:
        listed = message.example_list_with_context
        _fill(listed.context, context)
    listed.SetInParent()
    for features in examples:
        _fill(listed.examples.add(), features)
    return message


def _examples_request(kind: Any, model: str, signature: str, message: Any) -> Any:
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.CopyFrom(message)
    return request


def _multi(tasks: Sequence[tuple[str, str, str]], message: Any) -> Any:
    """Tasks as (model, method, signature)."""
    request = inference_pb2.MultiInferenceRequest()
    for model, method, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    request.input.CopyFrom(message)
    return request


def _metadata(model: str, *fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


ONE = _example_input({"x": [1.0]})
WORDS = _example_input({"x": [b"p"]}, {"x": [b"q"]})


def _classify(id_: str, signature: str, code: grpc.StatusCode, expected: Any, function: str, **how: Any) -> GrpcCase:
    message = how.get("message", ONE if how.get("model") == "half_plus_two" else WORDS)
    request = _examples_request(
        classification_pb2.ClassificationRequest, how.get("model", "twisted"), signature, message
    )
    return GrpcCase(f"classify {id_}", CLASSIFY, request, code, expected, CLASSIFIER + function)


def _scores(*wanted: Sequence[float]) -> Callable[[Any], bool]:
    """A ClassificationResponse with these scores, without labels."""

    def check(reply: Any) -> bool:
        rows = [[(kind.label, kind.score) for kind in row.classes] for row in reply.result.classifications]
        return rows == [[("", score) for score in row] for row in wanted]

    return check


def _labels_and_lengths(reply: Any) -> bool:
    """Labels are the serialized example and "not " plus it; scores are its length and that below zero."""
    rows = reply.result.classifications
    return len(rows) == 2 and all(
        row.classes[0].score == -row.classes[1].score > 0 and row.classes[1].label == f"not {row.classes[0].label}"
        for row in rows
    )


def _classifies() -> list[GrpcCase]:
    pre, post = "PreProcessClassification", "PostProcessClassificationResult"
    half: dict[str, Any] = {"model": "half_plus_two"}
    two = _example_input({"x": [1.0]}, {"x": [4.0]})
    context = _example_input({"x": [1.0]}, {}, context={"x": [6.0]})
    empty, none = _example_input(), classification_pb2.ClassificationRequest().input
    only_context = _example_input(context={"x": [6.0]})
    convert = UTIL + "InputToSerializedExampleTensor"
    cases = [
        _classify("scores", "classify_x_to_y", OK, _scores([2.5], [4.0]), post, **half, message=two),
        _classify("labels and scores", "classify", OK, _labels_and_lengths, post),
        _classify(
            "labels only", "classify_labels", OK, lambda r: r.result.classifications[0].classes[0].score == 0, post
        ),
        _classify(
            "scores only",
            "classify_scores",
            OK,
            lambda r: [c.label for c in r.result.classifications[0].classes] == ["", ""],
            post,
        ),
        _classify(
            "spec of the reply", "classify_x_to_y", OK, _spec_is("half_plus_two", "classify_x_to_y", 123), post, **half
        ),
        _classify(
            "the example's value wins over the context's",
            "classify_x_to_y",
            OK,
            _scores([2.5], [5.0]),
            post,
            **half,
            message=context,
        ),
        _classify(
            "with a regress signature",
            "regress_x_to_y",
            INVALID,
            'Expected classification signature outputs to contain at least one of "classes" or "scores"...',
            pre,
            **half,
        ),
        _classify("unknown signature", "nonesuch", INVALID, "No signature was found with the name: nonesuch", pre),
        _classify("no serving_default", "", INVALID, "No signature was found with the name: serving_default", pre),
        _classify("two inputs", "classify_two_inputs", INVALID, "Expected one input Tensor.", pre),
        _classify(
            "three outputs", "classify_three_outputs", INVALID, "Expected one or two output Tensors, found 3", pre
        ),
        _classify(
            "other input key", "classify_input_key", INVALID, "No classification inputs found in SignatureDef: ...", pre
        ),
        _classify(
            "other output keys",
            "classify_output_keys",
            INVALID,
            'Expected classification signature outputs to contain at least one of "classes" or "scores"...',
            pre,
        ),
        _classify(
            "labels of integers",
            "classify_int_labels",
            INVALID,
            "Expected classes Tensor of DT_STRING. Got: DT_INT32",
            post,
        ),
        _classify(
            "scores of doubles", "classify_double", INVALID, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE", post
        ),
        _classify(
            "scores of rank 1",
            "classify_rank",
            INVALID,
            "Expected Tensor shape: [batch_size num_classes] but got [4]",
            post,
        ),
        _classify(
            "labels of rank 1",
            "classify_label_rank",
            INVALID,
            "Expected Tensor shape: [batch_size num_classes] but got [2]",
            post,
        ),
        _classify(
            "another batch size", "classify_batch", INVALID, "Expected scores output batch size of 2. Got: 1", post
        ),
        _classify(
            "unequal widths",
            "classify_widths",
            INVALID,
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
            post,
        ),
        _classify(
            "missing feature",
            "classify_x_to_y",
            INVALID,
            "Name: <unknown>, Feature: x (data type: float)...",
            post,
            **half,
            message=_example_input({"z": [1.0]}),
        ),
        _classify(
            "feature of a wrong type",
            "classify_x_to_y",
            INVALID,
            "Name: <unknown>, Key: x, Index: 0...",
            post,
            **half,
            message=_example_input({"x": [1]}),
        ),
    ]
    for id_, message in {"no input": none, "no examples": empty, "context alone": only_context}.items():
        request = _examples_request(
            classification_pb2.ClassificationRequest, "half_plus_two", "classify_x_to_y", message
        )
        cases.append(GrpcCase(f"classify {id_}", CLASSIFY, request, INVALID, "Input is empty.", convert))
    return cases


def _regress(id_: str, signature: str, code: grpc.StatusCode, expected: Any, function: str, **how: Any) -> GrpcCase:
    message = how.get("message", ONE if how.get("model") == "half_plus_two" else WORDS)
    request = _examples_request(regression_pb2.RegressionRequest, how.get("model", "twisted"), signature, message)
    return GrpcCase(f"regress {id_}", REGRESS, request, code, expected, REGRESSOR + function)


def _regressions(*wanted: float) -> Callable[[Any], bool]:
    return lambda reply: [each.value for each in reply.result.regressions] == list(wanted)


def _regresses() -> list[GrpcCase]:
    pre, post = "PreProcessRegression", "PostProcessRegressionResult"
    half: dict[str, Any] = {"model": "half_plus_two"}
    two = _example_input({"x": [1.0]}, {"x": [4.0]})
    shape = "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]"
    return [
        _regress("column", "regress_x_to_y", OK, _regressions(2.5, 4.0), post, **half, message=two),
        _regress("another output", "regress_x_to_y2", OK, _regressions(3.5), post, **half),
        _regress(
            "another feature",
            "regress_x2_to_y3",
            OK,
            _regressions(4.0),
            post,
            **half,
            message=_example_input({"x": [0.0], "x2": [2.0]}),
        ),
        _regress("vector", "regress", OK, lambda reply: len(reply.result.regressions) == 2, post),
        _regress(
            "spec of the reply", "regress_x_to_y", OK, _spec_is("half_plus_two", "regress_x_to_y", 123), post, **half
        ),
        _regress(
            "with context",
            "regress_x_to_y",
            OK,
            _regressions(5.0),
            post,
            **half,
            message=_example_input({}, context={"x": [6.0]}),
        ),
        _regress("unknown signature", "nonesuch", INVALID, "No signature was found with the name: nonesuch", pre),
        _regress("two inputs", "regress_two_inputs", INVALID, "Expected one input Tensor.", pre),
        _regress("two outputs", "regress_two_outputs", INVALID, "Expected one output Tensor.", pre),
        _regress(
            "other input key", "regress_input_key", INVALID, "No regression inputs found in SignatureDef: ...", pre
        ),
        _regress(
            "other output key", "regress_output_key", INVALID, "No regression outputs found in SignatureDef: ...", pre
        ),
        _regress(
            "with a classify signature",
            "classify_x_to_y",
            INVALID,
            "No regression outputs found in SignatureDef: ...",
            pre,
            **half,
        ),
        _regress("two columns", "regress_two_columns", INVALID, shape, post),
        _regress("integers", "regress_int", INVALID, "Expected output Tensor of DT_FLOAT.  Got: DT_INT32", post),
        _regress(
            "another batch size",
            "regress_batch",
            INVALID,
            "Input batch size did not match output batch size: 2 vs. 1",
            post,
        ),
        _regress("no examples", "regress_x_to_y", INVALID, "Input is empty.", pre, **half, message=_example_input()),
    ]


def _multi_case(id_: str, tasks: Sequence[tuple[str, str, str]], code: grpc.StatusCode, expected: Any) -> GrpcCase:
    source = MULTI_INFERENCE + "TensorFlowMultiInferenceRunner::Infer"
    return GrpcCase(f"multi {id_}", MULTI, _multi(tasks, ONE), code, expected, source)


def _multis() -> list[GrpcCase]:
    h = "half_plus_two"
    classify, regress = (h, "classify", "classify_x_to_y"), (h, "regress", "regress_x_to_y2")

    def both(reply: Any) -> bool:
        first, second = reply.results
        return (
            first.classification_result.classifications[0].classes[0].score == 2.5
            and second.regression_result.regressions[0].value == 3.5
            and [each.model_spec.signature_name for each in reply.results] == ["classify_x_to_y", "regress_x_to_y2"]
        )

    return [
        _multi_case("classify and regress", [classify, regress], OK, both),
        _multi_case(
            "regress alone", [regress], OK, lambda r: r.results[0].regression_result.regressions[0].value == 3.5
        ),
        _multi_case("no tasks", [], INVALID, "ModelSpec has no name specified."),
        _multi_case(
            "a task without a name",
            [regress, ("", *classify[1:])],
            INVALID,
            "Found ModelSpec with an empty model name.",
        ),
        _multi_case(
            "two models",
            [regress, ("dense", *classify[1:])],
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        _multi_case(
            "twice the same", [regress, regress], INVALID, "Duplicate evaluation of signature: regress_x_to_y2"
        ),
        _multi_case(
            "unknown signature",
            [(h, "regress", "nonesuch")],
            INVALID,
            "Requested signature not found in model graph: nonesuch",
        ),
        _multi_case(
            "predict",
            [(h, "predict", "serving_default")],
            UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        _multi_case(
            "the wrong method",
            [(h, "regress", "classify_x_to_y")],
            INVALID,
            "No regression outputs found in SignatureDef: ...",
        ),
    ]


# -- the rest ----------------------------------------------------------------------------------------------------


def _signature_names(*wanted: str) -> Callable[[Any], bool]:
    def check(reply: Any) -> bool:
        (key,) = reply.metadata
        found = get_model_metadata_pb2.SignatureDefMap()
        return key == "signature_def" and reply.metadata[key].Unpack(found) and set(wanted) == set(found.signature_def)

    return check


def _metadatas() -> list[GrpcCase]:
    valid, get = MODEL_METADATA + "ValidateGetModelMetadataRequest", MODEL_METADATA + "GetModelMetadataImpl"
    unsupported = "Metadata field weights is not supported"
    half = ("serving_default", *(f"regress_{each}" for each in ("x_to_y", "x_to_y2", "x2_to_y3")))
    half += ("classify_x_to_y", "classify_x2_to_y3")
    nothing = "GetModelMetadataRequest must specify at least one metadata_field"
    init = ("__saved_model_init_op", "test_concat", "test_assign")
    rows: list[tuple[str, Any, grpc.StatusCode, Any, str]] = [
        ("signatures", _metadata("half_plus_two", "signature_def"), OK, _signature_names(*half), get),
        ("field twice", _metadata("half_plus_two", *["signature_def"] * 2), OK, _signature_names(*half), get),
        ("of a TF2 model", _metadata("demo", "signature_def"), OK, _signature_names(*init), get),
        ("spec of the reply", _metadata("sum", "signature_def"), OK, _spec_is("sum", "", 1), get),
        ("no field", _metadata("half_plus_two"), INVALID, nothing, valid),
        ("no field of an unknown model", _metadata("nonesuch"), INVALID, nothing, valid),
        ("unknown field", _metadata("half_plus_two", "weights"), INVALID, unsupported, valid),
        ("unknown field among known", _metadata("sum", "signature_def", "weights"), INVALID, unsupported, valid),
        ("no spec", _without_spec(_metadata("m", "signature_def")), INVALID, "Missing ModelSpec", LOOKUP),
    ]
    return [GrpcCase(f"metadata {row[0]}", METADATA, *row[1:]) for row in rows]


def _statuses() -> list[GrpcCase]:
    def request(name: str, version: int | None = None, label: str = "") -> Any:
        message = get_model_status_pb2.GetModelStatusRequest()
        message.model_spec.name = name
        if version is not None:
            message.model_spec.version.value = version
        if label:
            message.model_spec.version_label = label
        return message

    def states(*wanted: tuple[int, int]) -> Callable[[Any], bool]:
        return lambda reply: [(each.version, each.state) for each in reply.model_version_status] == list(wanted)

    missing = "Could not find any versions of model nonesuch"
    unknown_version = "Could not find version 7 of model half_plus_two"
    bare = get_model_status_pb2.GetModelStatusRequest()
    rows: list[tuple[str, Any, grpc.StatusCode, Any]] = [
        ("one version", request("half_plus_two"), OK, states((123, 30))),
        ("all versions, newest first", request("dense"), OK, states((2, 30), (1, 30))),
        ("one of the versions", request("dense", 1), OK, states((1, 30))),
        ("a label is ignored", request("dense", label="canary"), OK, states((2, 30), (1, 30))),
        (
            "fine is OK and no text",
            request("sum"),
            OK,
            lambda reply: reply.model_version_status[0].status.error_code == 0,
        ),
        ("unknown model", request("nonesuch"), NOT_FOUND, missing),
        ("unknown version", request("half_plus_two", 7), NOT_FOUND, unknown_version),
        ("no spec", bare, INVALID, "Missing ModelSpec"),
    ]
    cases = [GrpcCase(f"status {row[0]}", STATUS, *row[1:], MODEL_STATUS) for row in rows]
    text = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    source = "model_servers/model_service_impl.cc: ModelServiceImpl::HandleReloadConfigRequest"
    empty = model_management_pb2.ReloadConfigRequest()
    cases.append(GrpcCase("reload without a list", RELOAD, empty, INVALID, text, source))
    custom = model_management_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    cases.append(GrpcCase("reload of a custom config", RELOAD, custom, INVALID, text, source))
    return cases


def _unknown_methods() -> list[GrpcCase]:
    registered = "model_servers/server.cc: Server::BuildAndStart (which services are registered)"
    request = predict_pb2.PredictRequest()
    methods = ("PredictionService/Predicts", "SessionService/SessionRun", "Nonesuch/Predict")
    return [GrpcCase(f"no such method {each}", each, request, UNIMPLEMENTED, "...", registered) for each in methods]


GRPC_CASES: tuple[GrpcCase, ...] = (
    *_lookups(),
    *_predicts(),
    *_tensors(),
    *_round_trips(),
    *_classifies(),
    *_regresses(),
    *_multis(),
    *_metadatas(),
    *_statuses(),
    *_unknown_methods(),
)
