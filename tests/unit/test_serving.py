"""How a model is served: in how many threads it runs."""

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
