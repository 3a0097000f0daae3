"""One request executed: what the flight recorder says meanwhile, and what becomes of whatever goes wrong."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from modelpool.supervisor.wire import flight_recorder
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import Code, NotFound
from modelpool.worker.executor import Executor
from modelpool.worker.plan import Plan
from modelpool.worker.request_queue import Request


class Doubler:
    signatures: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.during: Callable[[], None] = lambda: None

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        self.during()
        return [feeds["x"] * 2 for _ in fetches]


class Bench:
    def __init__(self) -> None:
        fd = flight_recorder.create("test")
        self.fd = os.dup(fd)
        self.model = Doubler()
        planners = {Method.PREDICT: self.plan, Method.METADATA: lambda payload: Plan(None, (), lambda _: b"meta")}
        self.flights = flight_recorder.FlightRecorder(fd)
        self.executor = Executor(self.model, planners, self.flights)

    def plan(self, payload: bytes) -> Plan:
        self.model.during()
        return Plan({"x": np.frombuffer(payload, np.uint8)}, ["y"], lambda outputs: outputs[0].tobytes())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.flights.close()
    os.close(made.fd)


def request(payload: bytes, method: Method = Method.PREDICT, deadline_ns: int = 0) -> Request:
    return Request(b"frontend:3", 3, 9, deadline_ns, 1, 2, method, False, payload)


def test_an_answer(bench: Bench) -> None:
    answer = bench.executor.execute(request(b"\1\2\3"))
    assert (answer.code, answer.reply, answer.examples) == (Code.OK, b"\2\4\6", 3)
    assert 0 < answer.began_ns <= answer.run_ns <= answer.ran_ns <= answer.ended_ns
    assert answer.outputs[0].tolist() == [2, 4, 6]


def test_nothing_to_run(bench: Bench) -> None:
    answer = bench.executor.execute(request(b"", Method.METADATA))
    assert (answer.code, answer.reply, answer.ran_ns) == (Code.OK, b"meta", 0)


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [(NotFound("gone"), Code.NOT_FOUND, b"gone"), (ZeroDivisionError("oh"), Code.INTERNAL, b"ZeroDivisionError: oh")],
)
def test_what_goes_wrong_is_the_request_s_error(bench: Bench, error: Exception, code: Code, text: bytes) -> None:
    bench.model.during = raising(error)
    answer = bench.executor.execute(request(b"\1"))
    assert (answer.code, answer.reply, answer.plan) == (code, text, None)
    (flight,) = flight_recorder.read(bench.fd).finished
    assert flight.code == code


def test_other_methods_and_expired_ones_are_not_executed(bench: Bench) -> None:
    bench.model.during = raising(AssertionError("executed"))
    assert bench.executor.execute(request(b"", Method.CLASSIFY)).code is Code.UNIMPLEMENTED
    assert bench.executor.execute(request(b"", deadline_ns=1)).code is Code.DEADLINE_EXCEEDED


def test_the_recorder_has_it_while_it_is_parsed_and_run(bench: Bench) -> None:
    seen = []
    bench.model.during = lambda: seen.append(flight_recorder.read(bench.fd).executing)
    bench.executor.execute(request(b"\1\2"))
    assert [[(each.frontend, each.request_id, each.size_bytes) for each in flights] for flights in seen] == [
        [(3, 9, 2)],
        [(3, 9, 2)],
    ]
    assert flight_recorder.read(bench.fd).executing == ()
