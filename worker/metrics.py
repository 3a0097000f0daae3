"""What a worker counts of its requests: stages, results, runs of the model. Main thread; the control thread reports it.

A request costs a few dict lookups and adds here. TF Serving's metrics among these are recorded where it records them:
`RecordRuntimeLatency` and `RecordRequestExampleCount` (servables/tensorflow/util.cc) after a run that went well,
`model_warmup_latency` (saved_model_warmup_util.cc) at the end of the warmup.
"""

from functools import partial

from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Counter, Histogram, Registry
from modelpool.supervisor.wire.status import Code, Status

from .executor import Answer

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
    """The metrics of one worker's model."""

    def __init__(self, registry: Registry, name: str, version: int, path: str) -> None:
        self._registry = registry
        self._name = name
        self._version = str(version)
        self._path = path
        self._methods: dict[Method, _OfMethod] = {}

    def finished(self, answer: Answer) -> None:
        """A request has its answer."""
        request = answer.request
        known = self._methods.get(request.method)
        if known is None:
            known = _OfMethod(self._registry, self._name, self._version, request.method)
            self._methods[request.method] = known
        known.result(answer.code).add()
        known.queue.observe(((answer.began_ns or request.received_ns) - request.sent_ns) / 1e9)
        if not answer.ran_ns:
            return
        run_ns = answer.ran_ns - answer.run_ns
        known.deserialize.observe((answer.run_ns - answer.began_ns) / 1e9)
        known.execute.observe(run_ns / 1e9)
        if answer.code is not Code.OK:
            return
        known.serialize.observe((answer.ended_ns - answer.ran_ns) / 1e9)
        if known.runtime is not None:
            known.runtime.observe(run_ns // 1000)
        if request.method is Method.MULTI_INFERENCE:
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
