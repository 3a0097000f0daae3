"""What of live traffic becomes warmup records: the sample, its bounds, and the orders that are refused."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import threading
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.worker_messages import RecordWarmup, WarmupRecorded
from modelpool.supervisor.wire.status import (
    Code,
    InvalidArgument,
    Status,
)
from modelpool.supervisor.wire import tensors
from modelpool.worker.calls import Calls
from modelpool.worker.model_spec import Identity
from modelpool.worker.warmup_recorder import Reservoir, Sample, WarmupRecorder
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tests.unit.warmup_world import servable


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
