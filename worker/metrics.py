"""What a worker counts of its requests: stages, results, runs of the model. Main thread; the control thread reports it.

A request costs a few dict lookups and adds here. TF Serving's metrics among these are recorded where it records them:
`RecordRuntimeLatency` and `RecordRequestExampleCount` (servables/tensorflow/util.cc) after a run that went well,
`model_warmup_latency` (saved_model_warmup_util.cc) at the end of the warmup.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.data import Method, RequestHeader
from modelpool.supervisor.wire.metrics import Counter, Histogram, Registry
from modelpool.supervisor.wire.status import Code, Status

if TYPE_CHECKING:
    import numpy as np

    from .predict import Model

_RUNTIME = "TF1"
_APIS = {
    Method.PREDICT: "Predict",
    Method.REST_PREDICT: "Predict",
    Method.CLASSIFY: "Classify",
    Method.REST_CLASSIFY: "Classify",
    Method.REGRESS: "Regress",
    Method.REST_REGRESS: "Regress",
    Method.MULTI_INFERENCE: "MultiInference",
}


class TimedModel:
    """A model that remembers when it ran for the present request. Times are CLOCK_MONOTONIC; 0: it has not run."""

    def __init__(self, model: "Model") -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """A new request begins."""
        self.started_ns = 0
        self.ended_ns = 0
        self.run_ns = 0
        self.rows = 0

    @property
    def signatures(self) -> Mapping[str, Any]:
        return self._model.signatures

    def run(self, feeds: "Mapping[str, np.ndarray]", fetches: Sequence[str]) -> "list[np.ndarray]":
        """As `Model.run`."""
        began_ns = time.monotonic_ns()
        try:
            return self._model.run(feeds, fetches)
        finally:
            self.ended_ns = time.monotonic_ns()
            self.started_ns = self.started_ns or began_ns
            self.run_ns += self.ended_ns - began_ns
            first = next(iter(feeds.values()), None)
            self.rows = len(first) if first is not None and first.ndim else 0


class _OfMethod:
    """The metrics of one method, and by result."""

    __slots__ = ("_count", "_results", "deserialize", "execute", "queue", "runtime", "serialize")

    def __init__(self, registry: Registry, model: str, version: str, method: Method) -> None:
        def stage(name: str) -> Histogram:
            return registry.histogram(families.STAGE_SECONDS, model, version, method.name.lower(), name)

        self.queue, self.deserialize = stage("queue"), stage("deserialize")
        self.execute, self.serialize = stage("execute"), stage("serialize")
        self._results: dict[Code, Counter] = {}
        api = _APIS.get(method)
        self.runtime = registry.histogram(families.RUNTIME_LATENCY, model, api, _RUNTIME) if api else None
        self._count = partial(registry.counter, families.WORKER_REQUESTS, model, version, method.name.lower())

    def result(self, code: Code) -> Counter:
        counter = self._results.get(code)
        if counter is None:
            counter = self._results[code] = self._count(code.name)
        return counter


class WorkerMetrics:
    """The metrics of one worker's model. `begin` and `finished` surround each request."""

    def __init__(self, registry: Registry, name: str, version: int, path: str) -> None:
        self._registry = registry
        self._name = name
        self._version = str(version)
        self._path = path
        self._model: TimedModel | None = None
        self._methods: dict[Method, _OfMethod] = {}

    def timed(self, model: "Model") -> TimedModel:
        """The model to serve with instead of `model`."""
        self._model = TimedModel(model)
        return self._model

    def begin(self) -> None:
        if self._model is not None:
            self._model.reset()

    def finished(self, header: RequestHeader, code: Code, received_ns: int) -> None:
        """A request was answered now; it was taken out of the queue at `received_ns`."""
        now_ns = time.monotonic_ns()
        known = self._methods.get(header.method)
        if known is None:
            known = _OfMethod(self._registry, self._name, self._version, header.method)
            self._methods[header.method] = known
        known.result(code).add()
        known.queue.observe((received_ns - header.sent_ns) / 1e9)
        model = self._model
        if model is None or not model.started_ns:
            return
        known.deserialize.observe((model.started_ns - received_ns) / 1e9)
        known.execute.observe(model.run_ns / 1e9)
        if code is not Code.OK:
            return
        known.serialize.observe((now_ns - model.ended_ns) / 1e9)
        if known.runtime is not None:
            known.runtime.observe(model.run_ns // 1000)
        if header.method is Method.MULTI_INFERENCE:
            self._registry.histogram(families.REQUEST_EXAMPLE_COUNTS, self._name).observe(model.rows)
            self._registry.counter(families.REQUEST_EXAMPLE_COUNT_TOTAL, self._name).add(model.rows)

    def warmed_up(self, status: Status, records: int, took_s: float) -> None:
        """The warmup by the model's file has ended."""
        labels = (self._path, str(status))
        self._registry.histogram(families.MODEL_WARMUP_LATENCY, *labels).observe(int(took_s * 1e6))
        self._registry.counter(families.MODEL_WARMUP_RECORDS_READ, *labels).add(records)

    def request_logged(self, code: Code) -> None:
        """A request was handed to the request log, or could not be."""
        self._registry.counter(families.REQUEST_LOG_COUNT, self._name, code.name).add()
