"""How a model is served: in how many threads it runs, and what is batched as TF Serving does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_spec import Batching, WorkerSpec
from modelpool.worker import serving
from modelpool.worker.executor import Executor
from modelpool.worker.metrics import WorkerMetrics
from modelpool.worker.plan import Plan
from modelpool.worker.work import Work
from tests.unit.signature_defs import named
from tests.unit.work_world import Bench

SPEC = WorkerSpec(
    *(Incarnation(7), "m", 1, "/models/m/1", "cpu", "-1", "", "", (), True, 1, False, 0.0, 0.0),
    LoadPriority.NORMAL,
    0.5,
    executors=3,
)


class Model:
    signatures: Mapping[str, Any] = {}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        raise AssertionError


class Single(Model):
    single_threaded = True


@pytest.mark.parametrize(("model", "count"), [(Model(), 3), (Single(), 1)])
@pytest.mark.parametrize("prefer_tflite", [False, True])
def test_one_executor_is_for_models_of_tensorflow_lite_and_not_for_all_where_they_are_preferred(
    model: Model, count: int, prefer_tflite: bool
) -> None:
    spec = replace(SPEC, prefer_tflite=prefer_tflite)
    metrics = WorkerMetrics(Registry(), "m", 1, "/models/m/1")
    assert serving.executors_of(spec, None, model, metrics).most == count


@pytest.mark.parametrize("threads", [1, 16, 100_000])
def test_many_threads_neither_refuse_what_waits_nor_overflow_the_flight_recorder(threads: int) -> None:
    batching = Batching(batch_timeout_micros=1_000_000, num_batch_threads=threads)
    metrics = WorkerMetrics(Registry(), "m", 1, "/models/m/1")
    model = Model()
    model.signatures = {"s": named(["x"], ["y"], index="")}
    count = serving.executors_of(SPEC, batching, model, metrics).most
    assert count == min(threads, serving.MOST_EXECUTORS)

    def work(executor: Executor) -> Work:
        return serving.work_of(SPEC, batching, model, executor, executors=count, metrics=metrics, seen=())

    bench = Bench(work)
    try:
        for first in range(0, 6000, 1000):
            for number in range(first, first + 1000):
                bench.ask(number, bytes([1, number % 10]))
            bench.work.admit(bench.queue, 0)
            assert not bench.work.refused
        assert bench.executing() == []
        bench.now_ns = 1 << 60
        running = [job for n in range(count) if (job := bench.next(n)) is not None]
        assert len(bench.executing()) == sum(len(job.parts) for job in running)
        for job in running:
            bench.execute(job)
        bench.run_all()
        assert {task.code for task in bench.answers.values()} == {Code.OK}
        assert len(bench.answers) == 6000
    finally:
        bench.close()


def test_the_file_of_a_version_may_have_comments_in_any_encoding(tmp_path: Path) -> None:
    spec = replace(SPEC, path=str(tmp_path), batching=Batching(), per_model_batching=True)
    assert serving.batching_of(spec) is None
    (tmp_path / "batching_params.pbtxt").write_bytes("# entsprüche\nmax_batch_size { value: 7 }".encode("latin-1"))
    assert serving.batching_of(spec) == Batching(max_batch_size=7)


def test_by_itself_only_what_was_found_sound_is_batched() -> None:
    def of(x: np.ndarray | None, *signatures: str) -> Any:
        feeds = None if x is None else {"x:0": x}
        return serving._sound_family(frozenset({"s", "t"}), Plan(feeds, ["y:0"], lambda _: b"", signatures))

    assert of(np.zeros(1), "s") == ("s",)
    assert of(np.zeros(1), "s", "t") == ("s", "t")
    assert of(np.zeros(1), "u") is None
    assert of(np.zeros(1), "s", "u") is None
    assert of(np.zeros(()), "s") is None, "what the model says to it is for the client"
    assert of(None, "s") is None


def test_what_feeds_and_fetches_all_of_a_signature_is_batched_by_flags_and_nothing_else() -> None:
    model = Model()
    model.signatures = {"s": named(["x"], ["y", "z"]), "t": named(["x"], ["t"])}
    family = serving.whole_signatures(model)
    feeds = {"x:0": np.zeros(1)}

    def of(fetches: Sequence[str], *signatures: str) -> Any:
        return family(Plan(feeds, fetches, lambda _: b"", signatures))

    assert of(["y:0", "z:0"], "s") == ("s",)
    assert of(["z:0", "y:0"], "s") == ("s",), "an output_filter that names all of them"
    assert of(["t:0"], "t") == ("t",)
    assert of(["y:0"], "s") is None, "an output_filter"
    assert of(["t:0", "y:0", "z:0"], "s", "t") is None, "of several signatures"


def test_what_was_learned_is_told_at_once_and_now_and_then_of_each_family() -> None:
    told: list[tuple[str, int]] = []
    learners = serving.Learners(0.0, lambda name, rows, rate: told.append((name, rows)))
    for _ in range(3):
        learners.ran(("a",), 1, 0.1)
        learners.ran(("b",), 1, 0.1)
    assert told == [("a", learners.of(("a",)).rows), ("b", learners.of(("b",)).rows)]
    told.clear()
    for number in range(1, 1000):
        learners.ran(("a",), 1, 0.1)
        learners.ran(("b",), 1 + number % 64, 0.1 / number)
    assert [name for name, _ in told].count("a") >= 999 // 33
    assert told[-1][1] in {learners.of(("a",)).rows, learners.of(("b",)).rows}
    last = {name: rows for name, rows in told}
    assert last == {name: learners.of((name,)).rows for name in "ab"}, "no other is believed for long"
