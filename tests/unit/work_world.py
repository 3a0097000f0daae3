"""A queue, work, and a real executor on a model that can be told to fail, with a clock that the test owns."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modelpool.supervisor.wire import flight_recorder
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import AutoBatcher, Batcher
from modelpool.worker.executor import Executor
from modelpool.worker.jobs import Job, Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.plan import Plan
from modelpool.worker.request_queue import Request, RequestQueue
from modelpool.worker.work import Work

BAD, POISON = 200, 201  # a value that the plan refuses, and one that a run does
MORE = 202  # a value of which the model makes two rows


class Squares:
    """y = x * x, and the row's number of columns, of a matrix; refuses to run with POISON in it."""

    signatures: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.during: Callable[[], None] = lambda: None

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        x = feeds["x"]
        self.during()
        self.runs.append(len(x))
        if (x == POISON).any():
            raise InvalidArgument("poison")
        squares = x.astype(np.int64) ** 2
        return [np.repeat(squares, 1 + (x == MORE).any(axis=1), axis=0) for _ in fetches]


def plan(payload: bytes) -> Plan:
    """The first byte is the number of columns, the rest the values."""
    values = np.frombuffer(payload, np.uint8)[1:].reshape(-1, payload[0])
    if (values == BAD).any():
        raise InvalidArgument("bad")
    return Plan({"x": values}, ["y"], lambda outputs: outputs[0].astype("<i8").tobytes(), ("s",))


class Bench:
    """A queue and what works on it; `answers` by request id."""

    def __init__(self, work: Callable[[Executor], Work], *, again: bool = True) -> None:
        fd = flight_recorder.create("test")
        self.fd = os.dup(fd)
        self.model = Squares()
        self.flights = flight_recorder.FlightRecorder(fd)
        planners = {Method.PREDICT: plan, Method.METADATA: lambda payload: Plan(None, (), lambda _: b"meta")}
        self.executor = Executor(self.model, planners, self.flights, again=again)
        self.work = work(self.executor)
        self.queue = RequestQueue(1000)
        self.answers: dict[int, Task] = {}
        self.now_ns = 0

    def ask(self, request_id: int, payload: bytes, *, alone: bool = False, deadline_ns: int = 0) -> None:
        method = Method.PREDICT if payload else Method.METADATA
        self.queue.put(Request(b"p", 1, request_id, deadline_ns, 1, 2, method, alone, payload))

    def next(self, running: int = 0) -> Job | None:
        job = self.work.next(self.queue, running, self.now_ns)
        for task in self.work.refused:
            self.answers[task.request.request_id] = task
        self.work.refused.clear()
        return job

    def execute(self, job: Job) -> None:
        self.executor.run(job)
        for task in self.executor.finish(job):
            assert task.request.request_id not in self.answers
            self.answers[task.request.request_id] = task
        self.work.ran(job)

    def run_all(self) -> None:
        while True:
            job = self.next()
            if job is not None:
                self.execute(job)
            elif not len(self.queue):
                due_ns = self.work.due_ns(0)
                if due_ns is None:
                    return
                self.now_ns = max(self.now_ns, due_ns)

    def executing(self) -> list[int]:
        return [flight.request_id for flight in flight_recorder.read(self.fd).executing]

    def close(self) -> None:
        self.flights.close()
        os.close(self.fd)


def batched(**values: Any) -> Callable[[Executor], Work]:
    pads = values.get("pad_variable_length_inputs", False)
    return lambda executor: Batched(
        executor, Batcher(Batching(**values)), lambda planned: planned.signatures, pads=pads
    )


def auto(executor: Executor) -> Work:
    limit = LearnedLimit()
    batcher = AutoBatcher[Task](lambda family: limit, lambda family, rows, took_s: limit.observe(rows, took_s))
    return Batched(executor, batcher, lambda planned: planned.signatures)
