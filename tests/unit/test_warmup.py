"""Warmup: what is replayed, and what a model's signatures are fed."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import (
    Code,
    DataLoss,
    InvalidArgument,
    NotFound,
    PoolError,
    ResourceExhausted,
)
from modelpool.supervisor.wire import tensors
from modelpool.worker import warmup
from modelpool.worker.calls import Calls
from modelpool.worker.model_spec import Identity
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tests.unit.warmup_world import FakeModel, add_input, add_output, servable

FILE = "/m/1/assets.extra/tf_serving_warmup_requests"


def record(kind: str = "") -> Any:
    log = prediction_log_pb2.PredictionLog()
    if kind:
        getattr(log, kind).SetInParent()
    return log


def good_records() -> list[Any]:
    predict, regress, multi = record("predict_log"), record("regress_log"), record("multi_inference_log")
    x = tensors.encode(np.zeros(1, np.float32), types_pb2.DT_FLOAT)
    predict.predict_log.request.inputs["x"].CopyFrom(x)
    regress.regress_log.request.model_spec.signature_name = "examples"
    regress.regress_log.request.input.example_list.examples.add()
    task = multi.multi_inference_log.request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "other", "examples"
    multi.multi_inference_log.request.input.example_list.examples.add()
    return [predict, regress, multi, record()]


def warm_up(model: FakeModel, logs: Iterable[Any], iterations: int = 1) -> int:
    records = [log if isinstance(log, bytes) else log.SerializeToString() for log in logs]
    return warmup.warm_up(Calls.of(model, Identity("m", 1)), FILE, records, iterations)


def test_each_record_runs_as_often_as_asked() -> None:
    model = servable()
    assert warm_up(model, good_records(), iterations=3) == 4
    assert [fetches for _, fetches in model.runs] == [["y:0"]] * 3 + [["outputs:0"]] * 6


def test_no_records_are_fine() -> None:
    assert warm_up(servable(), []) == 0


@pytest.mark.parametrize(
    ("log", "code", "text"),
    [
        (record("session_run_log"), Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 5"),
        (record("predict_streamed_log"), Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 7"),
        (record("classify_log"), Code.INVALID_ARGUMENT, "No classification inputs found in SignatureDef: "),
        (record("regress_log"), Code.INVALID_ARGUMENT, "No regression inputs found in SignatureDef: "),
        (record("multi_inference_log"), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (b"\xff", Code.INVALID_ARGUMENT, rf"Failed to parse warmup record: b'\xff' from {FILE}"),
    ],
)
def test_a_record_that_fails(log: Any, code: Code, text: str) -> None:
    with pytest.raises(PoolError) as caught:
        warm_up(servable(), [*good_records(), log])
    assert caught.value.status.code is code
    assert caught.value.status.message.startswith(text)


def test_the_models_own_error_keeps_its_code() -> None:
    model = servable()
    model.error = ResourceExhausted("no memory")
    with pytest.raises(ResourceExhausted, match=r"^no memory$"):
        warm_up(model, good_records())


def test_at_most_1000_records() -> None:
    assert warm_up(servable(), [record()] * 1000) == 1000
    with pytest.raises(InvalidArgument) as caught:
        warm_up(servable(), [record()] * 1001)
    assert caught.value.message == f"Number of warmup records exceeds the maximum (1000) at {FILE}"


def test_files_that_cannot_be_read() -> None:
    def records(error: PoolError) -> Any:
        yield record().SerializeToString()
        raise error

    calls = Calls.of(servable(), Identity("m", 1))
    with pytest.raises(DataLoss) as caught:
        warmup.warm_up(calls, FILE, records(DataLoss("cut at 9")), 1)
    assert caught.value.message == "cut at 9. Please verify your warmup data is in TFRecord format."
    with pytest.raises(NotFound, match=r"^gone$"):
        warmup.warm_up(calls, FILE, records(NotFound("gone")), 1)


# -- made-up inputs ----------------------------------------------------------------------------------------------


def fed(signature: Any) -> Mapping[str, np.ndarray]:
    model = FakeModel({"serving_default": signature})
    assert warmup.auto_warm_up(model) == 1
    return model.runs[0][0]


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        (types_pb2.DT_FLOAT, [-1, 3], np.zeros((1, 3), np.float32)),
        (types_pb2.DT_INT64, [], np.zeros((), np.int64)),
        (types_pb2.DT_BOOL, [2, 0], np.zeros((2, 0), bool)),
        (types_pb2.DT_FLOAT, None, np.zeros(1, np.float32)),
        (types_pb2.DT_STRING, [-1, -1], np.array([[b""]], object)),
        (types_pb2.DT_QINT8, [2], np.zeros(2, tensors.DTYPES[types_pb2.DT_QINT8].numpy)),
    ],
)
def test_made_up_inputs(dtype: int, shape: list[int] | None, expected: np.ndarray) -> None:
    signature = meta_graph_pb2.SignatureDef()
    add_input(signature, "x", dtype, shape)
    made = fed(signature)["x:0"]
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    assert made.tolist() == expected.tolist()


def test_a_default_is_better_than_a_made_up_input() -> None:
    signature = meta_graph_pb2.SignatureDef()
    add_input(signature, "x", types_pb2.DT_FLOAT, [])
    signature.defaults["x"].CopyFrom(tensors.encode(np.float32(3.0), types_pb2.DT_FLOAT))
    assert fed(signature)["x:0"] == 3.0


def test_every_signature_but_tensorflows_own_runs_once(caplog: pytest.LogCaptureFixture) -> None:
    predict, broken, huge = (meta_graph_pb2.SignatureDef() for _ in range(3))
    add_output(predict, "z")
    add_output(predict, "a")
    add_input(broken, "r", types_pb2.DT_RESOURCE, [])
    add_input(huge, "h", types_pb2.DT_DOUBLE, [1 << 40])
    model = FakeModel({"b": predict, "a": predict, "broken": broken, "huge": huge, "__saved_model_init_op": predict})
    with caplog.at_level(logging.WARNING):
        assert warmup.auto_warm_up(model) == 2
    assert [fetches for _, fetches in model.runs] == [["a:0", "z:0"]] * 2, "as Predict without a filter fetches them"
    assert [each.getMessage() for each in caplog.records] == [
        "auto warmup run failed signature=broken error='INVALID_ARGUMENT: r: dtype resource is not supported'",
        "auto warmup run failed signature=huge error='INVALID_ARGUMENT: h: shape [1099511627776] takes more than "
        "268435456 bytes'",
    ]


def test_a_failing_run_is_no_error() -> None:
    model = servable()
    model.error = InvalidArgument("could not parse example")
    assert warmup.auto_warm_up(model) == 0
    assert len(model.runs) == 2
