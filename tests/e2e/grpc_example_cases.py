"""Rows of the table of gRPC cases: Classify, Regress and MultiInference. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.e2e.grpc_case import (
    CLASSIFIER,
    CLASSIFY,
    INVALID,
    MULTI,
    MULTI_INFERENCE,
    OK,
    REGRESS,
    REGRESSOR,
    UNIMPLEMENTED,
    UTIL,
    GrpcCase,
    spec_is,
)


def _fill(example: Any, features: Mapping[str, Sequence[Any]]) -> None:
    for name, numbers in features.items():
        feature = example.features.feature[name]
        if isinstance(numbers[0], bytes):
            feature.bytes_list.value.extend(numbers)
        elif isinstance(numbers[0], int):
            feature.int64_list.value.extend(numbers)
        else:
            feature.float_list.value.extend(numbers)


def example_input(*examples: Mapping[str, Sequence[Any]], context: Mapping[str, Sequence[Any]] | None = None) -> Any:
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


def examples_request(kind: Any, model: str, signature: str, message: Any) -> Any:
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.CopyFrom(message)
    return request


def multi(tasks: Sequence[tuple[str, str, str]], message: Any) -> Any:
    """Tasks as (model, method, signature)."""
    request = inference_pb2.MultiInferenceRequest()
    for model, method, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    request.input.CopyFrom(message)
    return request


ONE = example_input({"x": [1.0]})
WORDS = example_input({"x": [b"p"]}, {"x": [b"q"]})


def _classify(id_: str, signature: str, code: grpc.StatusCode, expected: Any, function: str, **how: Any) -> GrpcCase:
    message = how.get("message", ONE if how.get("model") == "half_plus_two" else WORDS)
    request = examples_request(
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


def classifies() -> list[GrpcCase]:
    pre, post = "PreProcessClassification", "PostProcessClassificationResult"
    half: dict[str, Any] = {"model": "half_plus_two"}
    two = example_input({"x": [1.0]}, {"x": [4.0]})
    context = example_input({"x": [1.0]}, {}, context={"x": [6.0]})
    empty, none = example_input(), classification_pb2.ClassificationRequest().input
    only_context = example_input(context={"x": [6.0]})
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
            "spec of the reply", "classify_x_to_y", OK, spec_is("half_plus_two", "classify_x_to_y", 123), post, **half
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
            message=example_input({"z": [1.0]}),
        ),
        _classify(
            "feature of a wrong type",
            "classify_x_to_y",
            INVALID,
            "Name: <unknown>, Key: x, Index: 0...",
            post,
            **half,
            message=example_input({"x": [1]}),
        ),
    ]
    for id_, message in {"no input": none, "no examples": empty, "context alone": only_context}.items():
        request = examples_request(
            classification_pb2.ClassificationRequest, "half_plus_two", "classify_x_to_y", message
        )
        cases.append(GrpcCase(f"classify {id_}", CLASSIFY, request, INVALID, "Input is empty.", convert))
    return cases


def _regress(id_: str, signature: str, code: grpc.StatusCode, expected: Any, function: str, **how: Any) -> GrpcCase:
    message = how.get("message", ONE if how.get("model") == "half_plus_two" else WORDS)
    request = examples_request(regression_pb2.RegressionRequest, how.get("model", "twisted"), signature, message)
    return GrpcCase(f"regress {id_}", REGRESS, request, code, expected, REGRESSOR + function)


def _regressions(*wanted: float) -> Callable[[Any], bool]:
    return lambda reply: [each.value for each in reply.result.regressions] == list(wanted)


def regresses() -> list[GrpcCase]:
    pre, post = "PreProcessRegression", "PostProcessRegressionResult"
    half: dict[str, Any] = {"model": "half_plus_two"}
    two = example_input({"x": [1.0]}, {"x": [4.0]})
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
            message=example_input({"x": [0.0], "x2": [2.0]}),
        ),
        _regress("vector", "regress", OK, lambda reply: len(reply.result.regressions) == 2, post),
        _regress(
            "spec of the reply", "regress_x_to_y", OK, spec_is("half_plus_two", "regress_x_to_y", 123), post, **half
        ),
        _regress(
            "with context",
            "regress_x_to_y",
            OK,
            _regressions(5.0),
            post,
            **half,
            message=example_input({}, context={"x": [6.0]}),
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
        _regress("no examples", "regress_x_to_y", INVALID, "Input is empty.", pre, **half, message=example_input()),
    ]


def _multi_case(id_: str, tasks: Sequence[tuple[str, str, str]], code: grpc.StatusCode, expected: Any) -> GrpcCase:
    source = MULTI_INFERENCE + "TensorFlowMultiInferenceRunner::Infer"
    return GrpcCase(f"multi {id_}", MULTI, multi(tasks, ONE), code, expected, source)


def multis() -> list[GrpcCase]:
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
