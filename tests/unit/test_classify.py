"""Classify: TensorFlow Serving's checks in their order with their texts, and the reply's labels and scores."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import Code, PoolError, Status
from modelpool.worker import classify as classification
from modelpool.worker.examples import ExamplesCall, signature_text
from modelpool.worker.model_spec import Identity
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import classification_pb2

from tests.unit import signature_defs

LABELS = np.array([[b"a", b"b"], [b"c", b"d"]], object)
SCORES = np.array([[0.5, 0.25], [1.0, 0.0]], np.float32)


class FakeModel:
    """Answers each fetched tensor from a table, and remembers what it was fed."""

    def __init__(self, signatures: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        self.signatures = signatures
        self.fed: Mapping[str, np.ndarray] = {}
        self._tensors = tensors

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.fed = feeds
        return [self._tensors[name] for name in fetches]


def signature(inputs: Sequence[str] = ("inputs",), outputs: Sequence[str] = ("classes", "scores")) -> Any:
    return signature_defs.named(inputs, outputs)


def model(outputs: Sequence[str] = ("classes", "scores"), **tensors: np.ndarray) -> FakeModel:
    table = {"classes": LABELS, "scores": SCORES, **tensors}
    return FakeModel({"serving_default": signature(outputs=outputs)}, {f"{k}:0": v for k, v in table.items()})


def example(**features: float) -> Any:
    made = example_pb2.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def request(count: int = 2, key: str = "") -> Any:
    made = classification_pb2.ClassificationRequest()
    made.model_spec.name = "as the client says"
    made.model_spec.signature_name = key
    for index in range(count):
        made.input.example_list.examples.append(example(x=float(index)))
    return made


def classify(fake: FakeModel, asked: Any) -> Any:
    raw = ExamplesCall(fake, Identity("m", 7), classification.READING).grpc(asked.SerializeToString())
    return classification_pb2.ClassificationResponse.FromString(raw)


def refusal(fake: FakeModel, asked: Any) -> Status:
    with pytest.raises(PoolError) as caught:
        classify(fake, asked)
    return caught.value.status


def rows(response: Any) -> list[list[tuple[str, float]]]:
    return [[(each.label, each.score) for each in row.classes] for row in response.result.classifications]


def test_labels_and_scores() -> None:
    response = classify(model(), request())
    assert rows(response) == [[("a", 0.5), ("b", 0.25)], [("c", 1.0), ("d", 0.0)]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("m", "serving_default", 7)


def test_scores_alone_have_empty_labels() -> None:
    assert rows(classify(model(["scores"]), request())) == [[("", 0.5), ("", 0.25)], [("", 1.0), ("", 0.0)]]


def test_classes_alone_have_score_zero() -> None:
    assert rows(classify(model(["classes"]), request())) == [[("a", 0.0), ("b", 0.0)], [("c", 0.0), ("d", 0.0)]]


def test_no_classes_at_all() -> None:
    assert rows(classify(model(["scores"], scores=np.zeros((2, 0), np.float32)), request())) == [[], []]


def test_the_model_is_fed_serialized_examples() -> None:
    fake = model()
    classify(fake, request())
    assert list(fake.fed) == ["inputs:0"]
    assert fake.fed["inputs:0"].shape == (2,)
    assert fake.fed["inputs:0"].tolist() == [example(x=0.0).SerializeToString(), example(x=1.0).SerializeToString()]


def test_an_examples_own_value_wins_over_the_contexts() -> None:
    fake = model()
    asked = classification_pb2.ClassificationRequest()
    listed = asked.input.example_list_with_context
    listed.context.CopyFrom(example(x=1.0, y=2.0))
    listed.examples.extend([example(x=5.0), example()])
    classify(fake, asked)
    merged = [example_pb2.Example.FromString(raw).features.feature for raw in fake.fed["inputs:0"]]
    assert [{name: each[name].float_list.value[0] for name in each} for each in merged] == [
        {"x": 5.0, "y": 2.0},
        {"x": 1.0, "y": 2.0},
    ]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (signature(inputs=()), "Expected one input Tensor."),
        (signature(inputs=("inputs", "more")), "Expected one input Tensor."),
        (signature(inputs=("a", "b"), outputs=()), "Expected one input Tensor."),
        (signature(outputs=()), "Expected one or two output Tensors, found 0"),
        (signature(outputs=("classes", "scores", "more")), "Expected one or two output Tensors, found 3"),
        (
            signature(inputs=("x",)),
            f"No classification inputs found in SignatureDef: {signature_text(signature(inputs=('x',)))}",
        ),
        (
            signature(outputs=("y",)),
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature_text(signature(outputs=('y',)))}",
        ),
    ],
)
def test_a_signature_that_does_not_classify(made: Any, text: str) -> None:
    """Found before the input is looked at."""
    assert refusal(FakeModel({"serving_default": made}, {}), request(0)) == Status(Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"classes": LABELS[0]}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"classes": SCORES}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ({"classes": LABELS[:1]}, "Expected classes output batch size of 2. Got: 1"),
        ({"scores": SCORES[:, :, None]}, "Expected Tensor shape: [batch_size num_classes] but got [2,2,1]"),
        ({"scores": SCORES.astype(np.float64)}, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ({"scores": SCORES[:1]}, "Expected scores output batch size of 2. Got: 1"),
        ({"scores": SCORES[:, :1]}, "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
        ({"classes": LABELS[0], "scores": SCORES[0]}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"classes": SCORES[:1]}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
    ],
)
def test_outputs_that_are_no_classes(tensors: dict[str, np.ndarray], text: str) -> None:
    assert refusal(model(**tensors), request()) == Status(Code.INVALID_ARGUMENT, text)


def test_no_such_signature() -> None:
    assert refusal(model(), request(key="k")) == Status(
        Code.INVALID_ARGUMENT, "No signature was found with the name: k"
    )


def test_empty_input() -> None:
    assert refusal(model(), request(0)) == Status(Code.INVALID_ARGUMENT, "Input is empty.")
    asked = classification_pb2.ClassificationRequest()
    asked.input.example_list_with_context.context.CopyFrom(example(x=1.0))
    assert refusal(model(), asked) == Status(Code.INVALID_ARGUMENT, "Input is empty.")


def test_a_long_context_for_many_examples() -> None:
    """2 MB of request, of which 2 GiB would be made."""
    asked = classification_pb2.ClassificationRequest()
    listed = asked.input.example_list_with_context
    listed.context.features.feature["x"].bytes_list.value.append(b"x" * 2**20)
    listed.examples.extend([example()] * 2**11)
    assert refusal(model(), asked) == Status(
        Code.INVALID_ARGUMENT,
        f"A context of {listed.context.ByteSize()} bytes for each of 2048 examples is more than {2**31 - 1} bytes",
    )


def test_a_label_that_no_reply_can_carry() -> None:
    labels = np.array([[b"\xff"], [b"b"]], object)
    status = refusal(model(["classes"], classes=labels), request())
    assert status == Status(Code.INTERNAL, r"Expected class labels in UTF-8. Got: b'\xff'")


def test_bytes_that_are_no_request() -> None:
    with pytest.raises(PoolError) as caught:
        ExamplesCall(model(), Identity("m", 1), classification.READING).grpc(b"\xff")
    assert caught.value.code is Code.INTERNAL
    assert caught.value.message.startswith("Failed to parse tensorflow.serving.ClassificationRequest of 1 bytes: ")


def test_a_method_name_that_is_checked() -> None:
    """Before anything else of the signature; predict, which TF2 exports always say, does not do."""
    made = signature(inputs=())
    made.method_name = "tensorflow/serving/predict"
    fake = FakeModel({"serving_default": made}, {})
    strict = ExamplesCall(fake, Identity("m", 1), classification.READING, check_method_names=True)
    with pytest.raises(PoolError) as caught:
        strict.respond(request())
    assert caught.value.status == Status(
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    fake = model()
    fake.signatures["serving_default"].method_name = "tensorflow/serving/classify"
    strict = ExamplesCall(fake, Identity("m", 1), classification.READING, check_method_names=True)
    assert rows(strict.respond(request())) == [[("a", 0.5), ("b", 0.25)], [("c", 1.0), ("d", 0.0)]]


def test_over_rest() -> None:
    call = ExamplesCall(model(), Identity("m", 1), classification.READING)
    text = call.rest(b'{"examples": [{"x": 0.5}, {"x": 1.5}]}').decode()
    assert text == '{\n    "results": [[["a", 0.5], ["b", 0.25]], [["c", 1.0], ["d", 0.0]]\n    ]\n}'
    with pytest.raises(PoolError) as caught:
        call.rest(b'{"signature_name": "k", "examples": [{}]}')
    assert caught.value.status == Status(Code.INVALID_ARGUMENT, "No signature was found with the name: k")


def test_a_signature_in_error_texts_is_sorted_and_ascii() -> None:
    made = signature(inputs=("b", "\u00e9", "a"), outputs=())
    assert signature_text(made).splitlines() == [
        *("inputs {", '  key: "a"', "  value {", '    name: "a:0"', "  }", "}"),
        *("inputs {", '  key: "b"', "  value {", '    name: "b:0"', "  }", "}"),
        *("inputs {", '  key: "\\303\\251"', "  value {", '    name: "\\303\\251:0"', "  }", "}"),
    ]
