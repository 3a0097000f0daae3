"""What a worker counts of its requests: stages, results, runs of the model. Main thread; the control thread reports it.

A request costs a dict lookup and an append here, and nothing where nobody can ask for the page. Stages are told
apart by signature: those that the loaded model has, never what a request calls one. TF Serving's metrics among these
are of the same moments: `RecordRuntimeLatency` and `RecordRequestExampleCount` (servables/tensorflow/util.cc) after a
run that went well, `model_warmup_latency` (saved_model_warmup_util.cc) at the end of the warmup.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Counter, Family, Histogram, Registry
from modelpool.supervisor.wire.status import Code, Status

from .jobs import Job, Task
from .request_table import RequestTable
from .straight_runs import StraightRun, Times

_RUNTIME = "TF1"
_OK = Code.OK  # looking up an enum's member takes as long as all that is counted of a request
# Counting many at once takes a fifth of the time; an idle worker has counted all.
_SETTLE_EVERY = 256
# Signatures, or sets of them in one MultiInference, of one method that are told apart; the rest is one.
MAX_SIGNATURES = 64
OTHER_SIGNATURES = "(other)"
_APIS = {
    Method.PREDICT: "Predict",
    Method.REST_PREDICT: "Predict",
    Method.CLASSIFY: "Classify",
    Method.REST_CLASSIFY: "Classify",
    Method.REGRESS: "Regress",
    Method.REST_REGRESS: "Regress",
    Method.MULTI_INFERENCE: "MultiInference",
}


class _Stages:
    """The stages of the requests of one method for one signature. `runtime`: TF Serving's metric of the same runs."""

    __slots__ = ("_deserialize", "_execute", "_queue", "_runtime", "_serialize", "_stage")

    def __init__(self, stage: Callable[[str], Histogram], runtime: Histogram | None) -> None:
        self._stage = stage
        self._queue, self._deserialize = stage("queue"), stage("deserialize")
        self._execute, self._serialize = stage("execute"), stage("serialize")
        self._runtime = runtime

    def count_tables(self, tables: "Sequence[_TableTimes]") -> None:
        """The stages of the requests of these tables, all of which ended well."""
        counts = [len(table.queue_ns) for table in tables]
        _merge(self._queue, np.concatenate([table.queue_ns for table in tables]))
        stages = (self._deserialize, self._stage("batch"), self._execute, self._serialize)
        for stage, took_ns in zip(stages, zip(*(table.stages_ns for table in tables), strict=True), strict=True):
            _merge(stage, np.repeat(took_ns, counts))
        if self._runtime is not None:
            _merge(self._runtime, np.repeat([table.stages_ns[2] for table in tables], counts), 1000)

    def count_straight(self, times_ns: Any, *, batched: bool) -> None:
        """The stages of these requests, [requests, `Times`]."""
        took_ns = np.diff(times_ns, axis=1)
        stages = (self._queue, self._deserialize, self._execute, self._serialize)
        for column, stage in enumerate(stages):
            _merge(stage, took_ns[:, column])
        if batched:
            _merge(self._stage("batch"), np.zeros(len(times_ns)))
        if self._runtime is not None:
            _merge(self._runtime, took_ns[:, 2], 1000)

    def count(self, tasks: Sequence[Task]) -> None:
        """The stages of these requests. Of one that failed in the run or behind it, those before."""
        _merge(self._queue, [(t.began_ns or t.request.received_ns) - t.request.sent_ns for t in tasks])
        ran = [task for task in tasks if task.ran_ns]
        if not ran:
            return
        _merge(self._deserialize, [task.planned_ns - task.began_ns for task in ran])
        shared = [task.run_ns - task.planned_ns for task in ran if task.rows]
        if shared:
            _merge(self._stage("batch"), shared)
        runs = [task.ran_ns - task.run_ns for task in ran]
        _merge(self._execute, runs)
        good = [task.ended_ns - task.finish_ns for task in ran if task.code is _OK]
        if good:
            _merge(self._serialize, good)
            if self._runtime is not None:
                if len(good) < len(ran):
                    runs = [task.ran_ns - task.run_ns for task in ran if task.code is _OK]
                _merge(self._runtime, runs, 1000)


@dataclass(frozen=True, slots=True)
class _TableTimes:
    """What the requests of one table took: the queue of each, and the stages behind it, which are the same for all."""

    signatures: tuple[str, ...]
    queue_ns: Any
    stages_ns: tuple[int, int, int, int]
    """Deserialize, batch, execute, serialize."""

    @classmethod
    def of(cls, table: RequestTable, job: Job) -> "_TableTimes":
        times = (
            table.read_ns,
            job.run_ns - table.taken_ns,
            job.ran_ns - job.run_ns,
            job.ended_ns - job.finish_ns,
        )
        return cls(table.form.signatures, table.taken_ns - table.read_ns - table.column("sent_ns"), times)


# Signatures, times of the requests, and the rows of the batch that each counts as; 0 where it does not.
_StraightTimes = tuple[tuple[str, ...], list[Times], int]


class _OfMethod:
    """The metrics of one method: by result, and by signature."""

    __slots__ = (
        "_count",
        "_of_signatures",
        "_results",
        "_runtime",
        "_stage",
        "straight",
        "straight_requests",
        "tables",
        "waiting",
    )

    def __init__(self, registry: Registry, model: str, version: str, worker: str, method: Method) -> None:
        def stage(signature: str, name: str) -> Histogram:
            labels = (model, version, signature, worker, method.name.lower(), name)
            return registry.histogram(families.STAGE_SECONDS, *labels)

        self._stage = stage
        self._of_signatures: dict[str, _Stages] = {}
        self._results: dict[Code, Counter] = {}
        self.waiting: list[Task] = []
        self.tables: list[_TableTimes] = []
        self.straight: list[_StraightTimes] = []
        self.straight_requests = 0
        api = _APIS.get(method)
        self._runtime = registry.histogram(families.RUNTIME_LATENCY, model, api, _RUNTIME) if api else None
        self._count = partial(registry.counter, families.WORKER_REQUESTS, model, version, method.name.lower())

    def count(self, tasks: Sequence[Task]) -> None:
        """How these requests ended, and their stages."""
        codes = [task.code for task in tasks]
        for code in set(codes):
            self._result(code).add(codes.count(code))
        if len({task.signatures for task in tasks}) == 1:
            self._stages(tasks[0].signatures).count(tasks)
            return
        apart: dict[tuple[str, ...], list[Task]] = {}
        for task in tasks:
            apart.setdefault(task.signatures, []).append(task)
        for signatures, own in apart.items():
            self._stages(signatures).count(own)

    def count_tables(self, tables: Sequence[_TableTimes]) -> None:
        """The requests of these tables, which ended well."""
        self._result(_OK).add(sum(len(table.queue_ns) for table in tables))
        apart: dict[tuple[str, ...], list[_TableTimes]] = {}
        for table in tables:
            apart.setdefault(table.signatures, []).append(table)
        for signatures, own in apart.items():
            self._stages(signatures).count_tables(own)

    def count_straight(self, runs: Sequence[_StraightTimes]) -> None:
        """Requests that were run one after the other and ended well."""
        self._result(_OK).add(sum(len(times) for _, times, _ in runs))
        apart: dict[tuple[tuple[str, ...], bool], list[Times]] = {}
        for signatures, times, rows in runs:
            apart.setdefault((signatures, bool(rows)), []).extend(times)
        for (signatures, batched), own in apart.items():
            self._stages(signatures).count_straight(np.array(own), batched=batched)

    def _stages(self, signatures: tuple[str, ...]) -> _Stages:
        name = ",".join(sorted(signatures))
        known = self._of_signatures.get(name)
        if known is None:
            if len(self._of_signatures) >= MAX_SIGNATURES:
                name = OTHER_SIGNATURES
            known = self._of_signatures.get(name)
            if known is None:
                known = self._of_signatures[name] = _Stages(partial(self._stage, name), self._runtime)
        return known

    def _result(self, code: Code) -> Counter:
        counter = self._results.get(code)
        if counter is None:
            counter = self._results[code] = self._count(code.name)
        return counter


def _merge(histogram: Histogram, times_ns: Any, unit_ns: int = 1_000_000_000) -> None:
    """Count these times. In units smaller than a second they are whole ones, as TF Serving has its microseconds."""
    times = np.array(times_ns)
    values = times / 1e9 if unit_ns == 1_000_000_000 else times // unit_ns
    bounds = _bounds(histogram.family)
    places = bounds.searchsorted(values)
    histogram.merge(float(values.sum()), np.bincount(places, minlength=len(bounds) + 1).tolist())


@cache
def _bounds(family: Family) -> Any:
    return np.array(family.bounds)


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
        # Of each batch its rows, requests, rows with padding, and whether it failed; of each request its rows and wait.
        self._waiting: list[tuple[int, int, int, bool]] = []
        self._task_rows: list[int] = []
        self._waited_ns: list[int] = []

    def add(self, job: Job) -> None:
        """A batch was run; to be counted later, for the same reason as requests are."""
        for part in job.parts:
            if part.start == 0:
                self._task_rows.append(part.task.rows)
                self._waited_ns.append(max(0, job.run_ns - part.task.planned_ns))
        for table in job.tables:
            self._task_rows += [table.place.rows] * len(table)
            self._waited_ns += [job.run_ns - table.taken_ns] * len(table)
        self._waiting.append((job.filled, job.requests, job.rows, job.took_s is None))
        if len(self._waiting) >= _SETTLE_EVERY:
            self.settle()

    def add_singles(self, rows: int, count: int) -> None:
        """So many batches of one request each were run, which did not wait."""
        self._task_rows += [rows] * count
        self._waited_ns += [0] * count
        self._waiting += [(rows, 1, rows, False)] * count

    def settle(self) -> None:
        """Count those that were added."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if self._task_rows:
            _merge(self._input, self._task_rows, 1)
            _merge(self._queuing, self._waited_ns, 1000)
            self._task_rows, self._waited_ns = [], []
        rows, requests, executed, failed = zip(*waiting, strict=True)
        _merge(self._rows, rows, 1)
        _merge(self._requests, requests, 1)
        _merge(self._processed, executed, 1)
        self._runs.add(len(waiting))
        for size in set(executed):
            paddings = [size - filled for filled, of in zip(rows, executed, strict=True) if of == size]
            self._registry.histogram(families.PADDING_SIZE, str(size)).observe_all(paddings)
        padding = sum(executed) - sum(rows)
        if padding:
            self._padding.add(padding)
        if any(failed):
            self._failures.add(sum(failed))


class WorkerMetrics:
    """The metrics of one worker's model.

    `worker`: its place, which the next incarnation has, too; `on`: somebody can ask for them.
    """

    def __init__(
        self, registry: Registry, name: str, version: int, path: str, worker: str = "", *, on: bool = True
    ) -> None:
        self._registry = registry
        self._worker = worker
        self.on = on
        self._name = name
        self._version = str(version)
        self._path = path
        self._methods: dict[Method, _OfMethod] = {}
        self._batches: _Batches | None = None

    def batches(self, thread_pool_name: str) -> None:
        """There will be batches."""
        if self.on:
            self._batches = _Batches(self._registry, self._name, self._version, thread_pool_name)

    def batch(self, job: Job) -> None:
        """A batch was run. What there is to count of it is counted at the next `settle`."""
        if self._batches is not None:
            self._batches.add(job)

    def learned(self, signature: str, rows: int, rows_per_s: float) -> None:
        """What `batching = "auto"` takes for the best now."""
        if not self.on:
            return
        labels = (self._name, self._version, signature)
        self._registry.gauge(families.BATCH_LEARNED_ROWS, *labels).set(rows)
        self._registry.gauge(families.BATCH_LEARNED_RATE, *labels).set(rows_per_s)

    def executors(self, count: int) -> None:
        """How many runs of the model are found to pay at the same time."""
        if self.on:
            self._registry.gauge(families.LEARNED_EXECUTORS, self._name, self._version).set(count)

    def finished(self, task: Task) -> None:
        """A request has its answer. How it ended and what it took is counted at the next `settle`."""
        if not self.on:
            return
        waiting = self._of_method(task.request.method).waiting
        waiting.append(task)
        if len(waiting) >= _SETTLE_EVERY:
            self.settle()

    def finished_straight(self, run: StraightRun, *, batched: bool) -> None:
        """Likewise, requests of Predict that were run one after the other; whether each counts as a batch."""
        if not self.on:
            return
        place = run.form.common.place
        of_method = self._of_method(Method.PREDICT)
        rows = place.rows if batched and place is not None else 0
        of_method.straight.append((run.form.signatures, run.times, rows))
        of_method.straight_requests += len(run.times)
        if of_method.straight_requests >= _SETTLE_EVERY:
            self.settle()

    def finished_tables(self, job: Job) -> None:
        """Likewise, all the requests of the job's tables, which are of Predict."""
        if not self.on:
            return
        tables = self._of_method(Method.PREDICT).tables
        tables += [_TableTimes.of(table, job) for table in job.tables]
        if len(tables) >= _SETTLE_EVERY:
            self.settle()

    def _of_method(self, method: Method) -> _OfMethod:
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = _OfMethod(self._registry, self._name, self._version, self._worker, method)
        return known

    def settle(self) -> None:
        """Count what has been finished; called when there is time, too."""
        batches = self._batches
        for method, known in self._methods.items():
            if known.tables:
                tables, known.tables = known.tables, []
                known.count_tables(tables)
            if known.straight:
                runs, known.straight, known.straight_requests = known.straight, [], 0
                known.count_straight(runs)
                for _, times, rows in runs:
                    if rows and batches is not None:
                        batches.add_singles(rows, len(times))
            if known.waiting:
                tasks, known.waiting = known.waiting, []
                known.count(tasks)
                if method is Method.MULTI_INFERENCE:
                    for task in tasks:
                        self._count_examples(task)
        if batches is not None:
            batches.settle()

    def _count_examples(self, task: Task) -> None:
        if task.code is Code.OK:
            self._registry.histogram(families.REQUEST_EXAMPLE_COUNTS, self._name).observe(task.examples)
            self._registry.counter(families.REQUEST_EXAMPLE_COUNT_TOTAL, self._name).add(task.examples)

    def loaded(self) -> None:
        """The version is loaded (machine_learning_metadata.cc, MaybePublishMLMDStreamz)."""
        if os.path.exists(os.path.join(self._path, "assets.extra", "mlmd_uuid")):
            self._registry.gauge(families.MLMD_MAP, self._name, self._version)

    def warmed_up(self, status: Status, records: int, took_s: float) -> None:
        """The warmup by the model's file has ended."""
        labels = (self._path, str(status))
        self._registry.histogram(families.MODEL_WARMUP_LATENCY, *labels).observe(int(took_s * 1e6))
        self._registry.counter(families.MODEL_WARMUP_RECORDS_READ, *labels).add(records)

    def request_logged(self, code: Code) -> None:
        """A request was handed to the request log, or could not be."""
        self._registry.counter(families.REQUEST_LOG_COUNT, self._name, code.name).add()
