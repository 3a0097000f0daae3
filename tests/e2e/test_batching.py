"""Batching on a real server: by TF Serving's flags and files, and by itself; REST and gRPC in one run."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import inference_pb2, regression_pb2

from tests.e2e.eventually import eventually
from tests.e2e.pool import CALL_WITHIN_S, Pool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor, values

ACTIVE_WITHIN_S = 30.0
METRICS = "/monitoring/prometheus/metrics"
BATCHES = ":tensorflow:serving:batching_session:"
# Whoever waits for this time waits for the end of the test: a batch must be full.
FOR_EVER = 3_600_000_000


def copy_of(models: Path, name: str, base: Path, batching_params: str = "") -> Path:
    """A model of one's own, with a file of batching parameters in each version."""
    shutil.copytree(models / name, base)
    for version in base.iterdir():
        if batching_params:
            (version / "batching_params.pbtxt").write_text(batching_params)
    return base


def monitoring(directory: Path) -> str:
    path = directory / "monitoring.config"
    path.write_text("prometheus_config { enable: true }")
    return f"--monitoring_config_file={path}"


@pytest.fixture(scope="module")
def batching_pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Batches by files of the versions: `full` waits until it has four rows, `broken` does not load, others do not."""
    directory = tmp_path_factory.mktemp("batching")
    full = (
        f"max_batch_size {{ value: 4 }} batch_timeout_micros {{ value: {FOR_EVER} }} "
        "allowed_batch_sizes: 2 allowed_batch_sizes: 4"
    )
    at_once = "max_batch_size { value: 4 } allowed_batch_sizes: 4"
    config = model_config(
        {
            "full": copy_of(models, "half_plus_two", directory / "full", full),
            "at_once": copy_of(models, "half_plus_two", directory / "at_once", at_once),
            "broken": copy_of(models, "half_plus_two", directory / "broken", "allowed_batch_sizes: 8"),
            "plain": models / "half_plus_two",
        }
    )
    flags = ("--enable_batching", "--enable_per_model_batching_parameters", monitoring(directory))
    with running_pool(config, *flags) as pool:
        pool.wait_available("full", "at_once", "plain")
        yield pool


def predict(pool: Pool, model: str, *numbers: float) -> Any:
    return values(pool.predict(predict_request(model, {"x": tensor(list(numbers))})).outputs["y"])


def test_rest_and_grpc_fill_one_batch(batching_pool: Pool) -> None:
    with ThreadPoolExecutor() as threads:
        by_grpc = threads.submit(predict, batching_pool, "full", 1.0)
        by_rest = threads.submit(batching_pool.post, "/v1/models/full:predict", {"instances": [2.0, 3.0]})
        by_grpc_too = threads.submit(predict, batching_pool, "full", 4.0)
        assert by_grpc.result(CALL_WITHIN_S) == [2.5]
        assert by_rest.result(CALL_WITHIN_S).json == {"predictions": [3.0, 3.5]}
        assert by_grpc_too.result(CALL_WITHIN_S) == [4.0]


def test_classify_and_regress_share_runs_with_their_like(batching_pool: Pool) -> None:
    def regress(number: float) -> Any:
        body = {"signature_name": "regress_x_to_y", "examples": [{"x": number}, {"x": number + 1}]}
        return batching_pool.post("/v1/models/full:regress", body).json["results"]

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(regress, [0.5, 2.5])) == [[2.25, 2.75], [3.25, 3.75]]


def test_several_signatures_at_once_bypass_the_batcher(batching_pool: Pool) -> None:
    asked = inference_pb2.MultiInferenceRequest()
    for number in range(5):  # more than `max_batch_size`
        example = asked.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(number)
    for key in ("regress_x_to_y", "regress_x_to_y2"):
        task = asked.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.signature_name = "full", key
    first, _ = batching_pool.stub().MultiInference(asked, timeout=CALL_WITHIN_S).results
    assert [each.value for each in first.regression_result.regressions] == [2.0, 2.5, 3.0, 3.5, 4.0]


def test_errors_are_tf_servings(batching_pool: Pool) -> None:
    def refused(value: Any) -> tuple[grpc.StatusCode, str]:
        return refusal(lambda: batching_pool.predict(predict_request("at_once", {"x": tensor(value)})))

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(1.0) == (invalid, "Batching Run() input tensors must have at least one dimension")
    assert refused([1.0] * 5) == (invalid, "Task size 5 is larger than maximum input batch size 4")
    assert predict(batching_pool, "at_once", 1.0, 2.0, 3.0) == [2.5, 3.0, 3.5], "padded to four, and cut again"
    assert values(batching_pool.predict(predict_request("plain", {"x": tensor(1.0)})).outputs["y"]) == 2.5, "unbatched"


def test_a_file_that_is_wrong_fails_the_load(batching_pool: Pool) -> None:
    def error() -> str:
        (version,) = batching_pool.model_status("broken").model_version_status
        text: str = version.status.error_message
        return text

    wanted = "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 1000"
    eventually(lambda: wanted in error(), ACTIVE_WITHIN_S, wanted)


def test_metrics_of_batches(batching_pool: Pool) -> None:
    predict(batching_pool, "at_once", 1.0, 2.0, 3.0)

    def counted() -> bool:
        page = batching_pool.get(METRICS).text
        return (
            f'{BATCHES}padding_size_sum{{execution_batch_size="4"}}' in page
            and f'{BATCHES}queuing_latency_count{{thread_pool_name="model_server_batch_threads"}}' in page
            and 'modelpool_batch_padding_rows_total{model="at_once",version="123"}' in page
        )

    eventually(counted, ACTIVE_WITHIN_S, "batches are counted")


# -- by itself ---------------------------------------------------------------------------------------------------

POOL_FILE = """
[models.half_plus_two]
batching = "auto"
latency_target_ms = 50

[models.demo]
batching = "auto"

[models.slow]
executors = 2
cpu_weight = 50
"""


@pytest.fixture(scope="module")
def auto_pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    directory = tmp_path_factory.mktemp("auto")
    file = directory / "pool.toml"
    file.write_text(POOL_FILE)
    names = ("half_plus_two", "demo", "slow")
    config = model_config({name: models / name for name in names})
    with running_pool(config, f"--pool_config_file={file}", monitoring(directory)) as pool:
        pool.wait_available(*names)
        yield pool


def test_many_at_the_same_time_get_their_own_answers(auto_pool: Pool) -> None:
    def ask(number: int) -> None:
        numbers = [float(number), float(number + 1)][: 1 + number % 2]
        assert predict(auto_pool, "half_plus_two", *numbers) == [each / 2 + 2 for each in numbers]

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(ask, range(600)))
    learned = 'modelpool_batch_learned_rows{model="half_plus_two",version="123",signature="serving_default"}'
    eventually(lambda: learned in auto_pool.get(METRICS).text, ACTIVE_WITHIN_S, "what was learned is shown")
    refused = refusal(lambda: auto_pool.predict(predict_request("half_plus_two", {"x": tensor([1], "int32")})))
    assert refused[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert values(auto_pool.predict(predict_request("half_plus_two", {"x": tensor(4.0)})).outputs["y"]) == 4.0


def test_examples_of_several_requests_together(auto_pool: Pool) -> None:
    def regress(number: int) -> None:
        asked = regression_pb2.RegressionRequest()
        asked.model_spec.name, asked.model_spec.signature_name = "half_plus_two", "regress_x_to_y"
        asked.input.example_list.examples.add().features.feature["x"].float_list.value.append(number)
        answer = regression_pb2.RegressionResponse.FromString(auto_pool.call_raw("Regress", asked.SerializeToString()))
        assert [each.value for each in answer.result.regressions] == [number / 2 + 2]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(regress, range(40)))


def test_a_model_that_keeps_state_is_not_batched(auto_pool: Pool) -> None:
    log = auto_pool.log
    assert "batching signature=test_concat sound=False" in log
    assert "batching signature=serving_default sound=True" in log


def test_two_executors_run_at_the_same_time(auto_pool: Pool) -> None:
    def slow(seconds: float) -> None:
        request = predict_request("slow", {"seconds": tensor(np.float64(seconds), "float64")})
        auto_pool.predict(request)

    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(slow, 2.0) for _ in range(2)]
        eventually(
            lambda: auto_pool.worker("slow", 1)["in_flight"] == 2, ACTIVE_WITHIN_S, "both are executed by one worker"
        )
        for each in asked:
            each.result(CALL_WITHIN_S)
