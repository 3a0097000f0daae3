"""Golden requests: what counts as the same answer, and what is said of the first difference."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from modelpool.supervisor.wire.status import Code, DataLoss, PoolError, ResourceExhausted, Status
from modelpool.supervisor.wire import tensors
from modelpool.worker import golden, prediction_logs
from modelpool.worker.calls import Calls
from modelpool.worker.golden import Tolerance, array_difference
from modelpool.worker.model_spec import Identity
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

NAN, INF = float("nan"), float("inf")
LOOSE = Tolerance(relative=0.1, absolute=0.01)
FILE = "/m/1/assets.extra/golden_requests"


def difference(dtype: str, got: Any, want: Any, tolerance: Tolerance = LOOSE) -> str | None:
    enum = types_pb2.DataType.Value(f"DT_{dtype.upper()}")
    stored = tensors.DTYPES[enum].stored
    found = array_difference('output "y"', np.array(got, stored), np.array(want, stored), enum, tolerance)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("dtype", "got", "want"),
    [
        ("float", [1.0, 2.0], [1.0, 2.0]),
        ("float", 1.1, 1.0),
        ("float", [0.009], [0.0]),
        ("float", [-1.1], [-1.0]),
        ("float", [NAN, INF, -INF], [NAN, INF, -INF]),
        ("float", [], []),
        ("half", [1.05], [1.0]),
        ("bfloat16", [1.05], [1.0]),
        ("float8_e5m2", [1.0], [1.0]),
        ("double", [1e300], [1.05e300]),
        ("complex64", [1 + 1.01j], [1 + 1j]),
        ("complex64", [complex(NAN, 0)], [complex(0, NAN)]),
        ("int64", [2**63 - 1], [2**63 - 1]),
        ("string", [b"a"], [b"a"]),
        ("bool", [True], [True]),
        ("qint8", [-3], [-3]),
    ],
)
def test_the_same(dtype: str, got: Any, want: Any) -> None:
    assert difference(dtype, got, want) is None


@pytest.mark.parametrize(
    ("dtype", "got", "want", "text"),
    [
        ("float", 1.5, 1.0, 'output "y": got 1.5, want 1.0'),
        ("float", [1.0, 1.5, 9.0], [1.0, 1.0, 1.0], 'output "y"[1]: got 1.5, want 1.0'),
        ("float", [[0.0, 0.0], [0.0, 0.5]], np.zeros((2, 2)), 'output "y"[1,1]: got 0.5, want 0.0'),
        ("float", [1e30], [INF], 'output "y"[0]: got 1e+30, want inf'),
        ("float", [INF], [1e30], 'output "y"[0]: got inf, want 1e+30'),
        ("float", [INF], [-INF], 'output "y"[0]: got inf, want -inf'),
        ("float", [NAN], [1.0], 'output "y"[0]: got nan, want 1.0'),
        ("float", [1.0], [NAN], 'output "y"[0]: got 1.0, want nan'),
        ("bfloat16", [1.5], [1.0], 'output "y"[0]: got 1.5, want 1'),
        ("complex64", [1 + 2j], [1 + 1j], 'output "y"[0]: got (1+2j), want (1+1j)'),
        ("int64", [2**63 - 1], [2**63 - 2], 'output "y"[0]: got 9223372036854775807, want 9223372036854775806'),
        ("int32", [101], [100], 'output "y"[0]: got 101, want 100'),
        ("string", [b"a"], [b"b"], "output \"y\"[0]: got b'a', want b'b'"),
        ("bool", [True], [False], 'output "y"[0]: got True, want False'),
        ("qint8", [-3], [3], 'output "y"[0]: got -3, want 3'),
        ("float", [[1.0]], [1.0], 'output "y" shape: got [1,1], want [1]'),
        ("float", [], [[]], 'output "y" shape: got [0], want [1,0]'),
    ],
)
def test_not_the_same(dtype: str, got: Any, want: Any, text: str) -> None:
    assert difference(dtype, got, want) == text


def test_the_tolerance_is_of_the_wanted_value() -> None:
    only_relative = Tolerance(relative=0.1, absolute=0.0)
    assert difference("double", 1.0, 1.11, only_relative) is None
    assert difference("double", 1.11, 1.0, only_relative) is not None


def test_decoded_quantized_arrays_are_records() -> None:
    enum = types_pb2.DT_QINT8
    record = tensors.decode("y", tensors.encode(np.array([1], np.int8), enum))
    assert array_difference("y", record, record, enum, LOOSE) is None


def test_a_low_precision_type_has_no_exact_neighbours() -> None:
    got, want = ml_dtypes.bfloat16(1.0078125), ml_dtypes.bfloat16(1.0)
    assert difference("bfloat16", [got], [want], Tolerance(0.0, 0.0)) == 'output "y"[0]: got 1.00781, want 1'


# -- files -------------------------------------------------------------------------------------------------------


class FakeModel:
    """serving_default: y = 2 x and n = 1; regress: y as regressions. Out of memory where x is negative."""

    def __init__(self) -> None:
        predict, regress = meta_graph_pb2.SignatureDef(), meta_graph_pb2.SignatureDef()
        predict.inputs["x"].name = "x:0"
        predict.outputs["y"].name, predict.outputs["y"].dtype = "y:0", types_pb2.DT_FLOAT
        predict.outputs["n"].name, predict.outputs["n"].dtype = "n:0", types_pb2.DT_INT32
        regress.inputs["inputs"].name = "e:0"
        regress.outputs["outputs"].name = "r:0"
        self.signatures = {"serving_default": predict, "regress": regress}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        x = feeds.get("x:0", np.zeros(1, np.float32))
        if (x < 0).any():
            raise ResourceExhausted("no memory")
        answers = {"y:0": 2 * x, "n:0": np.array(1, np.int32), "r:0": np.array([7.0], np.float32)}
        return [answers[name] for name in fetches]


def predict_log(x: float, **outputs: np.ndarray) -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tensors.encode(np.array([x], np.float32), types_pb2.DT_FLOAT))
    enums = {"float32": types_pb2.DT_FLOAT, "int32": types_pb2.DT_INT32, "float64": types_pb2.DT_DOUBLE}
    for alias, array in outputs.items():
        log.predict_log.response.outputs[alias].CopyFrom(tensors.encode(array, enums[array.dtype.name]))
    return log


def regress_log(*values: float) -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.signature_name = "regress"
    log.regress_log.request.input.example_list.examples.add()
    log.regress_log.response.result.SetInParent()
    for value in values:
        log.regress_log.response.result.regressions.add().value = value
    return log


def multi_log(*results: Sequence[float] | None, method: str = "regression_result") -> Any:
    """One regress task; the results that are expected of it. Of None nothing is."""
    log = prediction_log_pb2.PredictionLog()
    asked = log.multi_inference_log.request
    task = asked.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "m", "regress"
    asked.input.example_list.examples.add()
    log.multi_inference_log.response.SetInParent()
    for values in results:
        result = log.multi_inference_log.response.results.add()
        if values is None:
            continue
        getattr(result, method).SetInParent()
        for value in values:
            result.regression_result.regressions.add().value = value
    return log


def check(*logs: Any) -> int:
    calls = Calls.of(FakeModel(), Identity("m", 1))
    records = [log if isinstance(log, bytes) else log.SerializeToString() for log in logs]
    return golden.check(calls, FILE, records, LOOSE)


def refusal(*logs: Any) -> Status:
    with pytest.raises(PoolError) as caught:
        check(*logs)
    return caught.value.status


Y2, N1 = np.array([2.0], np.float32), np.array(1, np.int32)


def test_expected_answers() -> None:
    assert check() == 0
    assert check(predict_log(1.0, y=Y2, n=N1), regress_log(7.0), prediction_log_pb2.PredictionLog()) == 3


def test_only_expected_outputs_are_compared() -> None:
    assert check(predict_log(1.0, n=N1), predict_log(1.0)) == 2


def test_multi_inference_is_compared_task_by_task() -> None:
    assert check(multi_log([7.0]), multi_log(None)) == 2


def broken_tensor_log() -> Any:
    log = predict_log(1.0, y=Y2)
    log.predict_log.response.outputs["y"].tensor_content = b"123"
    return log


def streamed_log() -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.predict_streamed_log.SetInParent()
    return log


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (predict_log(1.0, y=Y2 + 1, n=N1 + 1), 'output "n": got 1, want 2'),
        (predict_log(1.0, y=Y2 + 1, n=N1), 'output "y"[0]: got 2.0, want 3.0'),
        (predict_log(1.0, z=Y2), 'output "z": got no such output, want one'),
        (predict_log(1.0, y=Y2.astype(np.float64)), 'output "y": got float, want double'),
        (regress_log(7.0, 8.0), "regressions: got 1, want 2"),
        (regress_log(8.0), "regressions[0].value: got 7.0, want 8.0"),
        (multi_log([8.0]), "results[0].regressions[0].value: got 7.0, want 8.0"),
        (multi_log([]), "results[0].regressions: got 1, want 0"),
        (multi_log(), "results: got 1, want 0"),
        (multi_log([7.0], [7.0]), "results: got 1, want 2"),
        (
            multi_log([], method="classification_result"),
            "results[0]: got regression_result, want classification_result",
        ),
        (streamed_log(), "Unsupported log_type for golden requests: 7"),
        (
            broken_tensor_log(),
            'output "y": the expected response is broken: tensor parsing error: y: tensor_content has 3 bytes, '
            "the shape wants 4",
        ),
    ],
)
def test_the_first_difference_is_told(log: Any, text: str) -> None:
    assert refusal(predict_log(1.0, y=Y2), log, regress_log()) == Status(
        Code.FAILED_PRECONDITION, f"Golden request 2 of {FILE}: {text}"
    )


def test_a_request_that_is_not_answered_keeps_its_code() -> None:
    assert refusal(predict_log(-1.0)) == Status(Code.RESOURCE_EXHAUSTED, f"Golden request 1 of {FILE}: no memory")


def test_a_record_that_is_none() -> None:
    assert refusal(b"\xff\xff") == Status(
        Code.INVALID_ARGUMENT, rf"Failed to parse golden record: b'\xff\xff' from {FILE}"
    )


def test_too_many() -> None:
    assert refusal(*[b""] * 1001) == Status(
        Code.INVALID_ARGUMENT, f"Number of golden records exceeds the maximum (1000) at {FILE}"
    )


def test_a_cut_file() -> None:
    def records() -> Any:
        yield predict_log(1.0, y=Y2).SerializeToString()
        raise DataLoss("truncated record at 99")

    with pytest.raises(PoolError) as caught:
        golden.check(Calls.of(FakeModel(), Identity("m", 1)), FILE, records(), LOOSE)
    assert caught.value.status == Status(
        Code.DATA_LOSS, "truncated record at 99. Please verify your golden requests are in TFRecord format."
    )


def test_only_where_there_surely_is_no_file_nothing_is_to_be_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = prediction_logs.GOLDEN
    path = kind.path(str(tmp_path))
    assert not prediction_logs.exists(kind, path)
    folder = tmp_path / "assets.extra"
    folder.touch()
    assert not prediction_logs.exists(kind, path)
    folder.unlink()
    folder.symlink_to("assets.extra")
    with pytest.raises(PoolError) as error:
        prediction_logs.exists(kind, path)
    text = f"Could not look for golden requests at {path}: "
    assert error.value.status == Status(Code.UNAVAILABLE, f"{text}Too many levels of symbolic links")
    folder.unlink()
    folder.mkdir()
    (folder / "golden_requests").symlink_to("nowhere")
    assert prediction_logs.exists(kind, path)

    def denied(_: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "lstat", denied)
    with pytest.raises(PoolError) as error:
        prediction_logs.exists(kind, path)
    assert error.value.status == Status(Code.PERMISSION_DENIED, f"{text}Permission denied")
