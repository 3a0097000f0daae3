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

from .executor import Answer

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
        self.waiting: list[Answer] = []
        api = _APIS.get(method)
        self.runtime = registry.histogram(families.RUNTIME_LATENCY, model, api, _RUNTIME) if api else None
        self._count = partial(registry.counter, families.WORKER_REQUESTS, model, version, method.name.lower())

    def count(self, answers: Sequence[Answer]) -> None:
        """The stages of these requests. Of one that failed in the run or behind it, those before."""
        times = np.array([(a.request.sent_ns, a.began_ns or a.request.received_ns) for a in answers])
        _merge(self.queue, (times[:, 1] - times[:, 0]) / 1e9)
        run = [(a.began_ns, a.run_ns, a.ran_ns, a.ended_ns, a.code is Code.OK) for a in answers if a.ran_ns]
        if not run:
            return
        began, started, ended, done, ok = np.array(run).T
        _merge(self.deserialize, (started - began) / 1e9)
        _merge(self.execute, (ended - started) / 1e9)
        good = ok.astype(bool)
        if good.any():
            _merge(self.serialize, (done - ended)[good] / 1e9)
            if self.runtime is not None:
                _merge(self.runtime, (ended - started)[good] // 1000)

    def result(self, code: Code) -> Counter:
        counter = self._results.get(code)
        if counter is None:
            counter = self._results[code] = self._count(code.name)
        return counter


def _merge(histogram: Histogram, values: Any) -> None:
    places = np.searchsorted(histogram.family.bounds, values)
    histogram.merge(float(values.sum()), np.bincount(places, minlength=len(histogram.family.bounds) + 1).tolist())


class WorkerMetrics:
    """The metrics of one worker's model."""

    def __init__(self, registry: Registry, name: str, version: int, path: str) -> None:
        self._registry = registry
        self._name = name
        self._version = str(version)
        self._path = path
        self._methods: dict[Method, _OfMethod] = {}

    def finished(self, answer: Answer) -> None:
        """A request has its answer. What it took is counted at the next `settle`, how it ended at once."""
        request = answer.request
        known = self._methods.get(request.method)
        if known is None:
            known = _OfMethod(self._registry, self._name, self._version, request.method)
            self._methods[request.method] = known
        known.result(answer.code).add()
        known.waiting.append(answer)
        if len(known.waiting) >= _SETTLE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Count what has been finished; called when there is time, too."""
        for method, known in self._methods.items():
            if known.waiting:
                answers, known.waiting = known.waiting, []
                known.count(answers)
                if method is Method.MULTI_INFERENCE:
                    for answer in answers:
                        self._count_examples(answer)

    def _count_examples(self, answer: Answer) -> None:
        if answer.code is Code.OK:
            self._registry.histogram(families.REQUEST_EXAMPLE_COUNTS, self._name).observe(answer.rows)
            self._registry.counter(families.REQUEST_EXAMPLE_COUNT_TOTAL, self._name).add(answer.rows)

    def warmed_up(self, status: Status, records: int, took_s: float) -> None:
        """The warmup by the model's file has ended."""
        labels = (self._path, str(status))
        self._registry.histogram(families.MODEL_WARMUP_LATENCY, *labels).observe(int(took_s * 1e6))
        self._registry.counter(families.MODEL_WARMUP_RECORDS_READ, *labels).add(records)

    def request_logged(self, code: Code) -> None:
        """A request was handed to the request log, or could not be."""
        self._registry.counter(families.REQUEST_LOG_COUNT, self._name, code.name).add()
