"""Multi-inference: TensorFlow Serving's checks in their order with their texts, one run, and the tasks' order."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import Code, PoolError, Status
from modelpool.worker.model_spec import Identity
from modelpool.worker.multi_inference import MultiInference
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import inference_pb2

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
TENSORS = {"y:0": np.array([[2.5]], np.float32), "label:0": np.array([[b"a"]], object)}


def signature(input_name: str, **outputs: str) -> Any:
    made = meta_graph_pb2.SignatureDef()
    made.inputs["inputs"].name = input_name
    for alias, name in outputs.items():
        made.outputs[alias].name = name
    return made


class FakeModel:
    signatures: Mapping[str, Any] = {
        "serving_default": signature("in:0", outputs="y:0"),
        "classify": signature("in:0", scores="y:0", classes="label:0"),
        "other_input": signature("in2:0", outputs="y:0"),
    }

    def __init__(self) -> None:
        self.runs: list[tuple[list[str], list[str]]] = []

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.runs.append((list(feeds), list(fetches)))
        return [TENSORS[name] for name in fetches]


def request(*tasks: tuple[str, str, str], examples: int = 1) -> Any:
    """Tasks as (model, signature, method)."""
    made = inference_pb2.MultiInferenceRequest()
    for model, key, method in tasks:
        task = made.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = key
    for _ in range(examples):
        made.input.example_list.examples.add()
    return made


def test_one_run_and_results_in_order() -> None:
    model = FakeModel()
    asked = request(("m", "classify", CLASSIFY), ("m", "", REGRESS))
    raw = MultiInference(model, Identity("m", 7)).grpc(asked.SerializeToString())
    first, second = inference_pb2.MultiInferenceResponse.FromString(raw).results
    assert model.runs == [(["in:0"], ["label:0", "y:0"])], "one run, each output once"
    ((found,),) = [row.classes for row in first.classification_result.classifications]
    assert (found.label, found.score) == ("a", 2.5)
    assert [each.value for each in second.regression_result.regressions] == [2.5]
    assert [(r.model_spec.name, r.model_spec.signature_name, r.model_spec.version.value) for r in (first, second)] == [
        ("m", "classify", 7),
        ("m", "serving_default", 7),
    ]


INVALID = Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (request(), INVALID, "ModelSpec has no name specified."),
        (request(("", "nonesuch", "x")), INVALID, "Found ModelSpec with an empty model name."),
        (request(("m", "", REGRESS), ("", "", "x")), INVALID, "Found ModelSpec with an empty model name."),
        (
            request(("m", "", REGRESS), ("n", "", REGRESS)),
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            request(("m", "", REGRESS), ("m", "serving_default", "x")),
            INVALID,
            "Duplicate evaluation of signature: serving_default",
        ),
        (request(("m", "nonesuch", "x")), INVALID, "Requested signature not found in model graph: nonesuch"),
        (
            request(("m", "", "tensorflow/serving/predict")),
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            request(("m", "classify", REGRESS), examples=0),
            INVALID,
            "Expected one output Tensor.",
        ),
        (
            request(("m", "", REGRESS), ("m", "other_input", REGRESS), examples=0),
            INVALID,
            "Input tensor must be the same for all Signatures.",
        ),
        (request(("m", "", REGRESS), examples=0), INVALID, "Input is empty."),
        (
            request(("m", "classify", CLASSIFY), examples=2),
            INVALID,
            "Expected classes output batch size of 2. Got: 1",
        ),
    ],
)
def test_refusals(asked: Any, code: Code, text: str) -> None:
    with pytest.raises(PoolError) as caught:
        MultiInference(FakeModel(), Identity("m", 1)).respond(asked)
    assert caught.value.status == Status(code, text)


def test_with_the_check_the_signatures_method_name_must_be_the_tasks() -> None:
    strict = MultiInference(FakeModel(), Identity("m", 1), check_method_names=True)
    with pytest.raises(PoolError) as caught:
        strict.respond(request(("m", "", REGRESS)))
    text = "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
    assert caught.value.status == Status(Code.INVALID_ARGUMENT, text)
