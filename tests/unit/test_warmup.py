"""Warmup: what is replayed, what a model's signatures are fed, and what of live traffic becomes warmup records."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.worker_messages import RecordWarmup, WarmupRecorded
from modelpool.supervisor.wire.status import (
    Code,
    DataLoss,
    InvalidArgument,
    NotFound,
    PoolError,
    ResourceExhausted,
    Status,
)
from modelpool.supervisor.wire import tensors
from modelpool.worker import warmup
from modelpool.worker.calls import Calls
from modelpool.worker.model_spec import Identity
from modelpool.worker.warmup_recorder import Reservoir, Sample, WarmupRecorder
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

FILE = "/m/1/assets.extra/tf_serving_warmup_requests"


def add_input(signature: Any, alias: str, dtype: int, shape: Sequence[int] | None) -> None:
    info = signature.inputs[alias]
    info.name, info.dtype = f"{alias}:0", dtype
    info.tensor_shape.unknown_rank = shape is None
    for size in shape or ():
        info.tensor_shape.dim.add().size = size


def add_output(signature: Any, alias: str, dtype: int = types_pb2.DT_FLOAT) -> None:
    signature.outputs[alias].name, signature.outputs[alias].dtype = f"{alias}:0", dtype


class FakeModel:
    """Each output is one zero; keeps what each run was fed and asked for."""

    def __init__(self, signatures: Mapping[str, Any]) -> None:
        self.signatures = signatures
        self.runs: list[tuple[Mapping[str, np.ndarray], list[str]]] = []
        self.error: PoolError | None = None

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.runs.append((feeds, list(fetches)))
        if self.error is not None:
            raise self.error
        return [np.zeros(1, np.float32) for _ in fetches]


def servable() -> FakeModel:
    """serving_default: x to y; examples: inputs to outputs."""
    predict, examples = meta_graph_pb2.SignatureDef(), meta_graph_pb2.SignatureDef()
    add_input(predict, "x", types_pb2.DT_FLOAT, [-1])
    add_output(predict, "y")
    add_input(examples, "inputs", types_pb2.DT_STRING, [-1])
    add_output(examples, "outputs")
    return FakeModel({"serving_default": predict, "examples": examples})


# -- replay ------------------------------------------------------------------------------------------------------


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


# -- recording ---------------------------------------------------------------------------------------------------


def test_the_sample_is_even() -> None:
    seen: Counter[bytes] = Counter()
    random = Random(5)
    for _ in range(2000):
        reservoir = Reservoir(5, 1000, random)
        for index in range(20):
            reservoir.offer(Sample(Method.PREDICT, b"%d" % index))
        assert len(reservoir.samples) == 5
        seen.update(sample.payload for sample in reservoir.samples)
    assert len(seen) == 20
    assert all(abs(count - 500) < 100 for count in seen.values()), seen


def test_the_sample_is_bounded_in_bytes() -> None:
    reservoir = Reservoir(100, 1000, Random(5))
    for _ in range(50):
        reservoir.offer(Sample(Method.PREDICT, b"x" * 10))
    for size in (400, 1001, 400, 400, 900, 400):
        reservoir.offer(Sample(Method.PREDICT, b"x" * size))
        assert sum(len(sample.payload) for sample in reservoir.samples) <= 1000
    assert reservoir.samples
    assert all(len(sample.payload) <= 1000 for sample in reservoir.samples)


class Desk:
    """A recorder with a clock by hand, and what it wrote and said."""

    def __init__(self) -> None:
        self.now = 100.0
        self.said: list[WarmupRecorded] = []
        self.written: dict[str, list[Any]] = {}
        self.error: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        readers = Calls.of(servable(), Identity("m", 7)).readers()
        self.recorder = WarmupRecorder(self.said.append, self.write, readers, random=Random(5), clock=lambda: self.now)

    def write(self, path: str, records: Iterable[bytes]) -> int:
        assert self.may_write.wait(10)
        if self.error is not None:
            raise self.error
        self.written[path] = [prediction_log_pb2.PredictionLog.FromString(raw).predict_log.request for raw in records]
        return len(self.written[path])

    def start(self, token: int = 1, count: int = 3, seconds: float = 10.0, path: str = "/w/file") -> None:
        self.recorder.start(RecordWarmup(token, count, seconds, path))

    def offer(self, *numbers: float) -> None:
        for number in numbers:
            asked = predict_pb2.PredictRequest()
            asked.model_spec.name, asked.model_spec.version_label = "m", "stable"
            asked.inputs["x"].CopyFrom(tensors.encode(np.array([number], np.float32), types_pb2.DT_FLOAT))
            self.recorder.offer(Method.PREDICT, asked.SerializeToString())

    def pass_time(self, seconds: float) -> None:
        """And let the writer end, if there is one."""
        self.now += seconds
        self.recorder.finish_due()

    def wait_written(self) -> None:
        self.recorder.close(10)


def test_a_recording() -> None:
    desk = Desk()
    assert desk.recorder.recording is None
    assert desk.recorder.ends_s == float("inf")
    desk.start()
    assert desk.recorder.recording is not None
    assert desk.recorder.ends_s == 110.0
    desk.offer(1.0, 2.0)
    desk.pass_time(9.9)
    assert desk.recorder.recording is not None
    desk.pass_time(0.1)
    assert desk.recorder.recording is None, "from now on nothing is offered"
    desk.wait_written()
    assert desk.said == [WarmupRecorded(1, Code.OK, "", 2)]
    first, second = desk.written["/w/file"]
    assert [each.inputs["x"].float_val[0] for each in (first, second)] == [1.0, 2.0]
    assert first.model_spec.version_label == "stable", "as the client sent it"


def test_rest_requests_are_recorded_as_predict_requests() -> None:
    desk = Desk()
    desk.start()
    desk.recorder.offer(Method.REST_PREDICT, b'{"instances": [1.5, 2.5]}')
    desk.pass_time(10)
    desk.wait_written()
    (asked,) = desk.written["/w/file"]
    assert (asked.model_spec.name, asked.model_spec.signature_name) == ("m", "serving_default")
    assert list(asked.inputs["x"].float_val) == [1.5, 2.5]


def test_at_most_count_requests() -> None:
    desk = Desk()
    desk.start(count=3)
    desk.offer(*range(50))
    desk.pass_time(10)
    desk.wait_written()
    assert desk.said == [WarmupRecorded(1, Code.OK, "", 3)]


def test_one_recording_at_a_time_until_it_is_written() -> None:
    desk = Desk()
    desk.may_write.clear()
    desk.start(1)
    desk.start(2)
    desk.offer(1.0)
    desk.pass_time(10)
    desk.start(3)
    busy = "A warmup recording of this model is under way already"
    assert desk.said == [WarmupRecorded(token, Code.FAILED_PRECONDITION, busy, 0) for token in (2, 3)]
    desk.may_write.set()
    desk.wait_written()
    desk.start(4)
    desk.offer(1.0)
    desk.pass_time(10)
    desk.wait_written()
    assert [(each.token, each.code) for each in desk.said[2:]] == [(1, Code.OK), (4, Code.OK)]


@pytest.mark.parametrize(
    ("count", "seconds", "path", "text"),
    [
        (0, 1.0, "/w", "count: expected 1 to 1000, got 0"),
        (1001, 1.0, "/w", "count: expected 1 to 1000, got 1001"),
        (1, 0.0, "/w", "seconds: expected more than 0, got 0"),
        (1, float("nan"), "/w", "seconds: expected more than 0, got nan"),
        (1, float("inf"), "/w", "seconds: expected more than 0, got inf"),
        (1, 1.0, "w", "path: expected an absolute path, got 'w'"),
    ],
)
def test_orders_that_are_refused(count: int, seconds: float, path: str, text: str) -> None:
    desk = Desk()
    desk.start(1, count, seconds, path)
    assert desk.said == [WarmupRecorded(1, Code.INVALID_ARGUMENT, text, 0)]
    assert desk.recorder.recording is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("bad path"), Status(Code.INVALID_ARGUMENT, "bad path")),
        (RuntimeError("a bug"), Status(Code.INTERNAL, "RuntimeError: a bug")),
    ],
)
def test_a_file_that_cannot_be_written(error: Exception, status: Status) -> None:
    desk = Desk()
    desk.error = error
    desk.start()
    desk.offer(1.0)
    desk.pass_time(10)
    desk.wait_written()
    assert desk.said == [WarmupRecorded(1, status.code, status.message, 0)]


def test_no_traffic_writes_nothing() -> None:
    desk = Desk()
    desk.start()
    desk.pass_time(10)
    desk.wait_written()
    text = "No request was answered within 10 s; nothing was written"
    assert desk.said == [WarmupRecorded(1, Code.FAILED_PRECONDITION, text, 0)]
    assert desk.written == {}


def test_a_recording_that_nobody_waits_for_makes_room_for_the_next() -> None:
    desk = Desk()
    desk.start(1)
    desk.recorder.drop(2)
    assert desk.recorder.recording is not None, "another one's"
    desk.recorder.drop(1)
    desk.start(3)
    desk.offer(1.0)
    desk.pass_time(10)
    desk.recorder.drop(3)
    desk.wait_written()
    assert desk.said == [WarmupRecorded(3, Code.OK, "", 1)]


def test_a_worker_that_stops_says_so() -> None:
    desk = Desk()
    desk.start()
    desk.offer(1.0)
    desk.recorder.close(10)
    text = "The worker was stopped before the recording had ended; nothing was written"
    assert desk.said == [WarmupRecorded(1, Code.UNAVAILABLE, text, 0)]
    desk.pass_time(100)
    assert len(desk.said) == 1
