"""What a frontend and a worker count of a request, and that a client's inventions stay bounded."""

from pathlib import Path

import pytest

from modelpool.frontend.metrics import GRPC, MAX_UNKNOWN_MODELS, OTHER_MODELS, REST, RequestMetrics
from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Family, Registry, unpack
from modelpool.supervisor.wire.status import OK, Code
from modelpool.worker.batching import Part
from modelpool.worker.jobs import Job, Task
from modelpool.worker.metrics import MAX_SIGNATURES, OTHER_SIGNATURES, WorkerMetrics
from modelpool.worker.plan import Place, Plan
from modelpool.worker.predict_forms import KnownForm
from modelpool.worker.request_queue import Request
from modelpool.worker.straight_runs import StraightRun


def request_metrics(*known: str) -> RequestMetrics:
    return RequestMetrics(lambda name: name in known)


def counts(metrics: RequestMetrics, family: Family = families.REQUEST_COUNT) -> dict[tuple[str, ...], float]:
    """By labels; of a histogram the number of observations."""
    found = {sample.labels: unpack(sample.values) for sample in metrics.changed(0, 0) if sample.family == family.name}
    return {labels: values[0] if len(values) == 1 else sum(values[1:]) for labels, values in found.items()}


def test_what_tf_serving_counts() -> None:
    def counted(family: Family) -> dict[tuple[str, ...], float]:
        metrics = request_metrics("m")
        metrics.finished(GRPC, "Predict", "m", Code.OK, 0)
        metrics.finished(GRPC, "Predict", "m", Code.OK, 0)
        metrics.finished(GRPC, "Predict", "m", Code.NOT_FOUND, 0)
        metrics.finished(GRPC, "MultiInference", "m", Code.OK, 0)
        metrics.finished(GRPC, "GetModelMetadata", "m", Code.OK, 0)
        metrics.finished(REST, "predict", "m", Code.OK, 0)
        metrics.finished(REST, "", "", Code.INVALID_ARGUMENT, 0)
        return counts(metrics, family)

    assert counted(families.REQUEST_COUNT) == {("m", "OK"): 3, ("m", "NOT_FOUND"): 1, ("", "INVALID_ARGUMENT"): 1}
    assert counted(families.REQUEST_LATENCY) == {("m", "Predict", "GRPC"): 2, ("m", "predict", "REST"): 1}
    assert sum(counted(families.REQUESTS).values()) == 7


def test_names_that_clients_invent_are_bounded() -> None:
    metrics = request_metrics("m", "late")
    for number in range(3 * MAX_UNKNOWN_MODELS):
        metrics.finished(GRPC, "Predict", f"x{number}", Code.NOT_FOUND, 0)
    metrics.finished(GRPC, "Predict", "late", Code.OK, 0)
    found = counts(metrics)
    assert len(found) == MAX_UNKNOWN_MODELS + 2
    assert found[OTHER_MODELS, "NOT_FOUND"] == 2 * MAX_UNKNOWN_MODELS
    assert found["late", "OK"] == 1


def test_names_that_are_no_label() -> None:
    metrics = request_metrics()
    metrics.finished(GRPC, "Predict", "x" * 1_000_000, Code.NOT_FOUND, 0)
    metrics.finished(REST, "predict", "\udcff", Code.NOT_FOUND, 0)
    assert counts(metrics) == {(OTHER_MODELS, "NOT_FOUND"): 2}


def stages(registry: Registry) -> dict[str, float]:
    return {
        sample.labels[-1]: sum(unpack(sample.values)[1:])
        for sample in registry.changed()
        if sample.family == families.STAGE_SECONDS.name
    }


def answered(method: Method, *signatures: str, rows: int = 0) -> Task:
    request = Request(b"", 1, 1, 0, 1, 2, method, False, b"")
    times = {"began_ns": 2, "planned_ns": 2, "run_ns": 3, "ran_ns": 4, "finish_ns": 4, "ended_ns": 5}
    return Task(request, Code.OK, b"", **times, examples=3, rows=rows, signatures=signatures)


def test_stages_of_a_worker() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", "gpu:0#1")
    request = Request(b"", 1, 1, 0, 1, 2, Method.MULTI_INFERENCE, False, b"")
    metrics.finished(answered(Method.MULTI_INFERENCE, "b", "a"))
    metrics.settle()
    assert registry.counter(families.REQUEST_EXAMPLE_COUNT_TOTAL, "m").values == [3]
    assert sum(registry.histogram(families.RUNTIME_LATENCY, "m", "MultiInference", "TF1").values[1:]) == 1
    assert stages(registry) == {"queue": 1, "deserialize": 1, "execute": 1, "serialize": 1}
    metrics.finished(Task(request, Code.INVALID_ARGUMENT, b"", began_ns=2, ended_ns=5))
    metrics.settle()
    assert stages(registry)["queue"] == 1
    labels = ("m", "1", "a,b", "gpu:0#1", "multi_inference")
    assert sum(registry.histogram(families.STAGE_SECONDS, *labels, "execute").values[1:]) == 1
    assert sum(registry.histogram(families.STAGE_SECONDS, *labels, "queue").values[1:]) == 1
    assert sum(registry.histogram(families.STAGE_SECONDS, *labels[:2], "", *labels[3:], "queue").values[1:]) == 1
    assert registry.counter(families.WORKER_REQUESTS, "m", "1", "multi_inference", "INVALID_ARGUMENT").values == [1]


def test_signatures_are_told_apart_and_their_number_is_bounded() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", "cpu#0")
    for number in range(2 * MAX_SIGNATURES):
        metrics.finished(answered(Method.PREDICT, f"s{number:03}"))
        metrics.finished(answered(Method.PREDICT, "s000"))
    metrics.settle()
    queues = {
        sample.labels[2]: sum(unpack(sample.values)[1:])
        for sample in registry.changed()
        if sample.family == families.STAGE_SECONDS.name and sample.labels[-1] == "queue"
    }
    assert len(queues) == MAX_SIGNATURES + 1
    assert queues["s000"] == 2 * MAX_SIGNATURES + 1
    assert queues["s001"] == 1
    assert queues[OTHER_SIGNATURES] == MAX_SIGNATURES


def test_waiting_for_others_is_a_stage_of_what_may_share_a_run() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", "cpu#0")
    metrics.finished(answered(Method.PREDICT, "s"))
    metrics.settle()
    assert "batch" not in stages(registry)
    metrics.finished(answered(Method.PREDICT, "s", rows=2))
    metrics.settle()
    assert stages(registry)["batch"] == 1


def test_nothing_is_counted_where_nobody_can_ask() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", on=False)
    metrics.batches("threads")
    metrics.learned("s", 1, 1.0)
    metrics.finished(answered(Method.PREDICT, "s"))
    metrics.settle()
    assert registry.changed() == ()
    frontend = RequestMetrics(lambda name: True, on=False)
    frontend.finished(GRPC, "Predict", "m", Code.OK, 0)
    assert frontend.changed(1, 1) == ()


def test_warmup_and_request_log() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1")
    metrics.warmed_up(OK, 5, 0.5)
    metrics.request_logged(Code.OK)
    assert registry.histogram(families.MODEL_WARMUP_LATENCY, "/m/1", "OK").values[0] == 500_000
    assert registry.counter(families.MODEL_WARMUP_RECORDS_READ, "/m/1", "OK").values == [5]
    assert registry.counter(families.REQUEST_LOG_COUNT, "m", "OK").values == [1]


def test_a_version_with_ml_metadata(tmp_path: Path) -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 7, str(tmp_path))
    metrics.loaded()
    assert registry.changed() == ()
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "mlmd_uuid").write_text("some uuid")
    metrics.loaded()
    (sample,) = registry.changed()
    assert (sample.family, sample.labels, unpack(sample.values)) == (":tensorflow:serving:mlmd_map", ("m", "7"), [0.0])


def test_the_requests_of_dead_workers() -> None:
    metrics = RequestMetrics(lambda name: name == "m")
    for fate in ("queued", "queued", "poison"):
        metrics.settled("m", fate)
    metrics.quarantine_refused("m")
    told = {(sample.family, sample.labels): unpack(sample.values) for sample in metrics.changed(7, 3)}
    assert told == {
        ("modelpool_frontend_payload_in_flight_bytes", ()): [7.0],
        ("modelpool_frontend_requests_held", ()): [3.0],
        ("modelpool_requests_of_dead_workers_total", ("m", "queued")): [2.0],
        ("modelpool_requests_of_dead_workers_total", ("m", "poison")): [1.0],
        ("modelpool_quarantine_refusals_total", ("m",)): [1.0],
    }


def test_batches_are_counted_with_their_padding_and_their_failures() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1")
    metrics.batches("threads")
    one, two = (answered(Method.PREDICT, "s", rows=rows) for rows in (1, 2))
    one.planned_ns, two.planned_ns = 1_000, 9_000_000
    metrics.batch(Job((Part(one, 0, 1), Part(two, 0, 1)), True, 4, run_ns=3_001_000, took_s=0.1))
    metrics.batch(Job((Part(two, 1, 2),), True, 1, run_ns=3_001_000))
    metrics.settle()
    metrics.settle()
    counted = {
        (sample.family, sample.labels): (unpack(sample.values)[0], sum(unpack(sample.values)[1:]))
        for sample in registry.changed()
    }
    assert counted[families.INPUT_BATCH_SIZE.name, ()] == (3, 2), "a request is counted once"
    assert counted[families.QUEUING_LATENCY.name, ("threads",)] == (3000, 2), "microseconds"
    assert counted[families.BATCH_ROWS.name, ("m", "1")] == (3, 2)
    assert counted[families.BATCH_REQUESTS.name, ("m", "1")] == (3, 2)
    assert counted[families.PROCESSED_BATCH_SIZE.name, ()] == (5, 2)
    assert counted[families.PADDING_SIZE.name, ("4",)] == (2, 1)
    assert counted[families.PADDING_SIZE.name, ("1",)] == (0, 1)
    assert counted[families.WRAPPED_RUN_COUNT.name, ()][0] == 2
    assert counted[families.BATCH_PADDING_ROWS.name, ("m", "1")][0] == 2
    assert counted[families.BATCH_FAILURES.name, ("m", "1")][0] == 1


def test_many_batches_are_counted_before_anybody_has_time() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1")
    metrics.batches("threads")
    for _ in range(300):
        metrics.batch(Job((Part(answered(Method.PREDICT, "s", rows=2), 0, 2),), True, 2, took_s=0.1))
    assert registry.counter(families.WRAPPED_RUN_COUNT).values[0] > 0


def known_form(rows: int) -> KnownForm:
    form = KnownForm([], [], Plan({}, ["y"], lambda outputs: b"", ("s",)))
    form.common.place = Place("family", rows, "key")
    return form


@pytest.mark.parametrize("batched", [False, True])
def test_what_was_run_straight_counts_as_tasks_do(batched: bool) -> None:
    registries = Registry(), Registry()
    straight, tasks = (WorkerMetrics(each, "m", 1, "/m/1", "cpu#0") for each in registries)
    times = [(1_000 * n, 3_000 * n, 3_500 * n, 9_000_000 * n, 9_500_000 * n) for n in (1, 2, 40)]
    for metrics in (straight, tasks):
        metrics.batches("auto")
    straight.finished_straight(StraightRun(known_form(2), times, None, None), batched=batched)
    for sent_ns, began_ns, run_ns, ran_ns, ended_ns in times:
        request = Request(b"", 1, 1, 0, sent_ns, 2, Method.PREDICT, False, b"")
        taken = {"began_ns": began_ns, "planned_ns": run_ns, "run_ns": run_ns, "ran_ns": ran_ns, "finish_ns": ran_ns}
        task = Task(request, **taken, ended_ns=ended_ns, rows=2 * batched, signatures=("s",))
        tasks.finished(task)
        if batched:
            tasks.batch(Job((Part(task, 0, 2),), True, 2, run_ns=run_ns, took_s=0.1))
    for metrics in (straight, tasks):
        metrics.settle()
    found, expected = ({(each.family, each.labels): unpack(each.values) for each in of.changed()} for of in registries)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values), key


def test_what_was_run_straight_is_not_counted_where_nobody_can_ask() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", on=False)
    metrics.finished_straight(StraightRun(known_form(1), [(1, 2, 3, 4, 5)], None, None), batched=False)
    metrics.settle()
    assert not list(registry.changed())


def test_straight_runs_are_counted_by_their_requests_before_anybody_has_time() -> None:
    registry = Registry()
    metrics = WorkerMetrics(registry, "m", 1, "/m/1", "cpu#0")
    count = registry.counter(families.WORKER_REQUESTS, "m", "1", "predict", "OK")
    for _ in range(20):
        metrics.finished_straight(StraightRun(known_form(1), [(1, 2, 3, 4, 5)], None, None), batched=False)
    assert count.values == [0]
    for _ in range(17):
        metrics.finished_straight(StraightRun(known_form(1), [(1, 2, 3, 4, 5)] * 16, None, None), batched=False)
    assert count.values[0] >= 256
