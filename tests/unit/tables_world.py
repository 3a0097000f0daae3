"""Messages of several Predict requests, and a worker's work on them with and without tables."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from modelpool.supervisor.wire import data, flight_recorder, tensors
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.worker.batching import AutoBatcher
from modelpool.worker.executor import Executor
from modelpool.worker.jobs import Job, Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.metrics import WorkerMetrics
from modelpool.worker.model_spec import Identity
from modelpool.worker.predict import Predictor
from modelpool.worker.request_queue import Request, RequestQueue
from modelpool.worker.waiting_tables import WaitingTables
from modelpool.worker.batched_work import Batched
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

POISON = -77.0  # a value that a run refuses
SPREAD = -78.0  # one of which the model makes outputs that are no rows
DTYPES = {"x": types_pb2.DT_FLOAT, "n": types_pb2.DT_INT32}
PEER = b"frontend-1"


class Rows:
    """`y` is 2 x, plus `n` where that is fed; `total` is each row's sum of x. The first dimension is that of rows."""

    def __init__(self, inputs: Sequence[str] = ("x",)) -> None:
        made = meta_graph_pb2.SignatureDef()
        for name in inputs:
            made.inputs[name].name, made.inputs[name].dtype = f"{name}:0", DTYPES[name]
        for name in ("total", "y"):
            made.outputs[name].name, made.outputs[name].dtype = f"{name}:0", types_pb2.DT_FLOAT
        self.signatures: Mapping[str, Any] = {"serving_default": made}
        self.runs: list[int] = []

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        x = feeds["x:0"]
        self.runs.append(len(x))
        if (x == POISON).any():
            raise InvalidArgument("poison")
        with np.errstate(all="ignore"):
            y = np.asarray(2 * x + feeds.get("n:0", 0), np.float32)
            total = x.reshape(len(x), -1).sum(axis=1, dtype=np.float32)
        if (x == SPREAD).any():
            y = np.repeat(y, 2, axis=0)
        outputs = {"y:0": y, "total:0": total}
        return [outputs[name] for name in fetches]


def payload(
    values: Sequence[float],
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = (),
    content: bool = True,
    signature: str = "",
) -> bytes:
    """A PredictRequest of [rows, 2] values."""
    asked = predict_pb2.PredictRequest(output_filter=outputs)
    asked.model_spec.name, asked.model_spec.signature_name = "m", signature
    for name in inputs:
        array = np.array(values).reshape(-1, 2).astype(tensors.DTYPES[DTYPES[name]].numpy)
        asked.inputs[name].CopyFrom(tensors.encode(array, DTYPES[name], as_content=content))
    return bytes(asked.SerializeToString(deterministic=True))


def message(requests: Mapping[int, bytes], *, deadline_ns: int = 0, alone: bool = False) -> bytes:
    """The body of a message of these requests, by id."""
    heads = {each: data.pack_request(each, deadline_ns, 1, Method.PREDICT, alone) for each in requests}
    return data.several_requests([(heads[each], body) for each, body in requests.items()])[1]


class World:
    """A queue, work and an executor; `answers` by request id: the code and the reply."""

    def __init__(
        self, model: Rows, *, tables: bool = True, limit: int = 32, most: int = 1000, again: bool = True
    ) -> None:
        fd = flight_recorder.create("test")
        self.fd = os.dup(fd)
        self.flights = flight_recorder.FlightRecorder(fd)
        self.model = model
        self.predictor = Predictor(model, Identity("m", 7))
        self.executor = Executor(model, {Method.PREDICT: self.predictor.plan_payload}, self.flights, again=again)
        self.limit = LearnedLimit()
        self.limit.rows = limit
        self.registry = Registry()
        self.metrics = WorkerMetrics(self.registry, "m", 7, "/m/7", "cpu#0")
        self.metrics.batches("auto")
        self.observed: list[tuple[Any, int]] = []
        batcher = AutoBatcher[Task](
            lambda family: self.limit, lambda family, rows, took_s: self.observed.append((family, rows))
        )
        self.tables = None
        if tables:
            self.tables = WaitingTables(self.predictor.forms, lambda family: self.limit, most, lambda: self.now_ns)
        self.work = Batched(self.executor, batcher, lambda plan: plan.signatures, tables=self.tables)
        self.queue = RequestQueue(1000)
        self.each = False
        self.answers: dict[int, tuple[int, bytes]] = {}
        self.now_ns = 10

    def put(self, raw: bytes) -> bool:
        """Whether it is taken as a table; else its requests are in the queue."""
        if self.work.put_table(raw, PEER, 1, self.now_ns):
            return True
        for (request_id, deadline_ns, sent_ns, method, alone), body in data.unpack_requests(raw):
            self.queue.put(Request(PEER, 1, request_id, deadline_ns, sent_ns, self.now_ns, method, alone, body))
        return False

    def next(self) -> Job | None:
        job = self.work.next(self.queue, 0, self.now_ns)
        for task in self.work.refused:
            self._answered(task)
        self.work.refused.clear()
        return job

    def execute(self, job: Job) -> None:
        self.executor.run(job)
        done = self.executor.finish(job, each=self.each)
        self.work.ran(job)
        self.metrics.batch(job)
        for task in done:
            self.metrics.finished(task)
            self._answered(task)
        if job.replies:
            self.metrics.finished_tables(job)
        for reply in job.replies:
            assert reply.peer == PEER
            replies = data.unpack_replies([data.SEVERAL_REPLIES, reply.body])
            assert len(replies) == reply.requests
            for request_id, code, _, body in replies:
                assert request_id not in self.answers
                self.answers[request_id] = (code, body)

    def _answered(self, task: Task) -> None:
        assert task.request.request_id not in self.answers
        self.answers[task.request.request_id] = (task.code, bytes(task.reply))

    def run_all(self) -> dict[int, tuple[int, bytes]]:
        while (job := self.next()) is not None or len(self.queue):
            if job is not None:
                self.execute(job)
        return self.answers

    def learn(self, *payloads: bytes) -> None:
        """See requests like these, until their form is known, and whether they may share a run."""
        for body in payloads * 3:
            self.queue.put(Request(PEER, 1, 1 << 40, 0, 1, 2, Method.PREDICT, False, body))
            self.run_all()
            self.answers.clear()
        self.model.runs.clear()
        self.observed.clear()

    def executing(self) -> list[int]:
        return [flight.request_id for flight in flight_recorder.read(self.fd).executing]

    def close(self) -> None:
        self.flights.close()
        os.close(self.fd)


@contextmanager
def world(model: Rows | None = None, **values: Any) -> Iterator[World]:
    made = World(model or Rows(), **values)
    yield made
    made.close()
