"""What a worker counts of its requests: stages, results, runs of the model. Main thread; the control thread reports it.

A request costs a dict lookup, an add and an append here. TF Serving's metrics among these are of the same moments:
`RecordRuntimeLatency` and `RecordRequestExampleCount` (servables/tensorflow/util.cc) after a run that went well,
`model_warmup_latency` (saved_model_warmup_util.cc) at the end of the warmup.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Counter, Histogram, Registry
from modelpool.supervisor.wire.status import Code, Status

from .executor import Job, Task

_RUNTIME = "TF1"
# Counting many at once takes a fifth of the time; an idle worker has counted all.
_SETTLE_EVERY = 256
_APIS = {
    Method.PREDICT: "Predict",
    Method.REST_PREDICT: "Predict",
    Method.CLASSIFY: "Classify",
    Method.REST_CLASSIFY: "Classify",
    Method.REGRESS: "Regress",
    Method.REST_REGRESS: "Regress",
    Method.MULTI_INFERENCE: "MultiInference",
}


class _OfMethod:
    """The metrics of one method, and by result."""

    __slots__ = ("_count", "_results", "deserialize", "execute", "queue", "runtime", "serialize", "waiting")

    def __init__(self, registry: Registry, model: str, version: str, method: Method) -> None:
        def stage(name: str) -> Histogram:
            return registry.histogram(families.STAGE_SECONDS, model, version, method.name.lower(), name)

        self.queue, self.deserialize = stage("queue"), stage("deserialize")
        self.execute, self.serialize = stage("execute"), stage("serialize")
        self._results: dict[Code, Counter] = {}
        self.waiting: list[Task] = []
        api = _APIS.get(method)
        self.runtime = registry.histogram(families.RUNTIME_LATENCY, model, api, _RUNTIME) if api else None
        self._count = partial(registry.counter, families.WORKER_REQUESTS, model, version, method.name.lower())

    def count(self, tasks: Sequence[Task]) -> None:
        """The stages of these requests. Of one that failed in the run or behind it, those before."""
        _merge(self.queue, np.array([(t.began_ns or t.request.received_ns) - t.request.sent_ns for t in tasks]) / 1e9)
        ran = [task for task in tasks if task.ran_ns]
        if not ran:
            return
        _merge(self.deserialize, np.array([task.planned_ns - task.began_ns for task in ran]) / 1e9)
        _merge(self.execute, np.array([task.ran_ns - task.run_ns for task in ran]) / 1e9)
        good = [task for task in ran if task.code is Code.OK]
        if good:
            _merge(self.serialize, np.array([task.ended_ns - task.finish_ns for task in good]) / 1e9)
            if self.runtime is not None:
                _merge(self.runtime, np.array([task.ran_ns - task.run_ns for task in good]) // 1000)

    def result(self, code: Code) -> Counter:
        counter = self._results.get(code)
        if counter is None:
            counter = self._results[code] = self._count(code.name)
        return counter


def _merge(histogram: Histogram, values: Any) -> None:
    places = np.searchsorted(histogram.family.bounds, values)
    histogram.merge(float(values.sum()), np.bincount(places, minlength=len(histogram.family.bounds) + 1).tolist())


class _Batches:
    """The metrics of batches, TF Serving's and ours."""

    def __init__(self, registry: Registry, model: str, version: str, thread_pool_name: str) -> None:
        self._registry = registry
        self._queuing = registry.histogram(families.QUEUING_LATENCY, thread_pool_name)
        self._input = registry.histogram(families.INPUT_BATCH_SIZE)
        self._processed = registry.histogram(families.PROCESSED_BATCH_SIZE)
        self._runs = registry.counter(families.WRAPPED_RUN_COUNT)
        self._rows = registry.histogram(families.BATCH_ROWS, model, version)
        self._requests = registry.histogram(families.BATCH_REQUESTS, model, version)
        self._padding = registry.counter(families.BATCH_PADDING_ROWS, model, version)
        self._failures = registry.counter(families.BATCH_FAILURES, model, version)

    def count(self, job: Job) -> None:
        rows = 0
        for part in job.parts:
            rows += part.stop - part.start
            if part.start == 0:
                self._input.observe(part.task.rows)
                self._queuing.observe(max(0, job.run_ns - part.task.planned_ns) // 1000)
        self._rows.observe(rows)
        self._requests.observe(len(job.parts))
        self._processed.observe(job.rows)
        self._runs.add()
        padding = job.rows - rows
        self._registry.histogram(families.PADDING_SIZE, str(job.rows)).observe(padding)
        if padding:
            self._padding.add(padding)
        if job.took_s is None:
            self._failures.add()


class WorkerMetrics:
    """The metrics of one worker's model."""

    def __init__(self, registry: Registry, name: str, version: int, path: str) -> None:
        self._registry = registry
        self._name = name
        self._version = str(version)
        self._path = path
        self._methods: dict[Method, _OfMethod] = {}
        self._batches: _Batches | None = None

    def batches(self, thread_pool_name: str) -> None:
        """There will be batches."""
        self._batches = _Batches(self._registry, self._name, self._version, thread_pool_name)

    def batch(self, job: Job) -> None:
        """A batch was run."""
        if self._batches is not None:
            self._batches.count(job)

    def learned(self, signature: str, rows: int, rows_per_s: float) -> None:
        """What `batching = "auto"` takes for the best now."""
        labels = (self._name, self._version, signature)
        self._registry.gauge(families.BATCH_LEARNED_ROWS, *labels).set(rows)
        self._registry.gauge(families.BATCH_LEARNED_RATE, *labels).set(rows_per_s)

    def finished(self, task: Task) -> None:
        """A request has its answer. What it took is counted at the next `settle`, how it ended at once."""
        method = task.request.method
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = _OfMethod(self._registry, self._name, self._version, method)
        known.result(task.code).add()
        known.waiting.append(task)
        if len(known.waiting) >= _SETTLE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Count what has been finished; called when there is time, too."""
        for method, known in self._methods.items():
            if known.waiting:
                tasks, known.waiting = known.waiting, []
                known.count(tasks)
                if method is Method.MULTI_INFERENCE:
                    for task in tasks:
                        self._count_examples(task)

    def _count_examples(self, task: Task) -> None:
        if task.code is Code.OK:
            self._registry.histogram(families.REQUEST_EXAMPLE_COUNTS, self._name).observe(task.examples)
            self._registry.counter(families.REQUEST_EXAMPLE_COUNT_TOTAL, self._name).add(task.examples)

    def warmed_up(self, status: Status, records: int, took_s: float) -> None:
        """The warmup by the model's file has ended."""
        labels = (self._path, str(status))
        self._registry.histogram(families.MODEL_WARMUP_LATENCY, *labels).observe(int(took_s * 1e6))
        self._registry.counter(families.MODEL_WARMUP_RECORDS_READ, *labels).add(records)

    def request_logged(self, code: Code) -> None:
        """A request was handed to the request log, or could not be."""
        self._registry.counter(families.REQUEST_LOG_COUNT, self._name, code.name).add()
