"""How a model is served: in how many threads it runs, and what is batched as TF Serving does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.states import LoadPriority
from modelpool.supervisor.wire.worker_spec import WorkerSpec
from modelpool.worker import serving
from modelpool.worker.metrics import WorkerMetrics
from modelpool.worker.plan import Plan
from tests.unit.signature_defs import named

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
