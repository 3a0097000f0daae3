"""Regress: TensorFlow Serving's checks in their order with their texts, and the reply's values."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import Code, PoolError, Status
from modelpool.worker import regress as regression
from modelpool.worker.examples import ExamplesCall, signature_text
from modelpool.worker.model_spec import Identity
from tensorflow_serving.apis import regression_pb2

from tests.unit import signature_defs


class FakeModel:
    """Has one signature and answers one array."""

    def __init__(self, signature: Any, answer: np.ndarray) -> None:
        self.signatures = {"serving_default": signature}
        self._answer = answer

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        assert list(feeds) == ["inputs:0"]
        assert fetches == ["outputs:0"]
        return [self._answer]


def signature(inputs: Sequence[str] = ("inputs",), outputs: Sequence[str] = ("outputs",)) -> Any:
    return signature_defs.named(inputs, outputs)


def request(count: int = 2, key: str = "") -> Any:
    made = regression_pb2.RegressionRequest()
    made.model_spec.signature_name = key
    for _ in range(count):
        made.input.example_list.examples.add()
    return made


def regress(answer: np.ndarray, asked: Any, made: Any = None) -> Any:
    regressor = ExamplesCall(FakeModel(made or signature(), answer), Identity("m", 7), regression.READING)
    return regression_pb2.RegressionResponse.FromString(regressor.grpc(asked.SerializeToString()))


def refusal(answer: np.ndarray, asked: Any, made: Any = None) -> Status:
    with pytest.raises(PoolError) as caught:
        regress(answer, asked, made)
    return caught.value.status


GOOD = np.array([1.5, -2.0], np.float32)


@pytest.mark.parametrize("answer", [GOOD, GOOD[:, None]])
def test_values(answer: np.ndarray) -> None:
    response = regress(answer, request())
    assert [each.value for each in response.result.regressions] == [1.5, -2.0]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("m", "serving_default", 7)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (signature(inputs=("inputs", "more")), "Expected one input Tensor."),
        (signature(inputs=(), outputs=()), "Expected one input Tensor."),
        (signature(outputs=()), "Expected one output Tensor."),
        (signature(inputs=("x",), outputs=("a", "b")), "Expected one output Tensor."),
        (
            signature(inputs=("x",)),
            f"No regression inputs found in SignatureDef: {signature_text(signature(inputs=('x',)))}",
        ),
        (
            signature(outputs=("y",)),
            f"No regression outputs found in SignatureDef: {signature_text(signature(outputs=('y',)))}",
        ),
    ],
)
def test_a_signature_that_does_not_regress(made: Any, text: str) -> None:
    """Found before the input is looked at."""
    assert refusal(GOOD, request(0), made) == Status(Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            np.zeros((2, 2), np.float32),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        (
            np.zeros((), np.float32),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []",
        ),
        (np.zeros(3, np.int64), "Input batch size did not match output batch size: 2 vs. 3"),
        (np.zeros(2, np.int64), "Expected output Tensor of DT_FLOAT.  Got: DT_INT64"),
        (np.array([b"a", b"b"], object), "Expected output Tensor of DT_FLOAT.  Got: DT_STRING"),
    ],
)
def test_outputs_that_are_no_regressions(answer: np.ndarray, text: str) -> None:
    assert refusal(answer, request()) == Status(Code.INVALID_ARGUMENT, text)


def test_no_such_signature() -> None:
    assert refusal(GOOD, request(key="k")) == Status(Code.INVALID_ARGUMENT, "No signature was found with the name: k")


def test_empty_input() -> None:
    assert refusal(GOOD, request(0)) == Status(Code.INVALID_ARGUMENT, "Input is empty.")


def test_a_method_name_that_is_checked() -> None:
    made = signature(inputs=())
    strict = ExamplesCall(FakeModel(made, GOOD), Identity("m", 7), regression.READING, check_method_names=True)
    with pytest.raises(PoolError) as caught:
        strict.respond(request())
    text = "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
    assert caught.value.status == Status(Code.INVALID_ARGUMENT, text)


def test_over_rest() -> None:
    call = ExamplesCall(FakeModel(signature(), GOOD), Identity("m", 7), regression.READING)
    assert call.rest(b'{"examples": [{}, {}]}').decode() == '{\n    "results": [1.5, -2.0]\n}'
