"""Request logs of a real pool: what stands in them, what a killed worker leaves, and that they warm a new version."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, running_pool
from tests.e2e.record_files import prediction_logs
from tests.e2e.tensor_proto import tensor, values

MODEL = "half_plus_two"
POOL_FILE = f"[models.{MODEL}]\nrequest_log_max_files = 3\n"
MONITORING = "prometheus_config { enable: true }"


def config(base: Path, prefix: Path | str | None) -> str:
    text = model_config({MODEL: base})
    if prefix is None:
        return text
    logging = (
        "logging_config { sampling_config { sampling_rate: 1 } "
        f'log_collector_config {{ type: "tfrecord" filename_prefix: "{prefix}" }} }}'
    )
    return text.replace('model_platform: "tensorflow"', f'model_platform: "tensorflow" {logging}')


@pytest.fixture
def base(models: Path, tmp_path: Path) -> Path:
    shutil.copytree(models / MODEL / "00000123", tmp_path / "base" / "1")
    return tmp_path / "base"


@pytest.fixture
def pool(base: Path, tmp_path: Path) -> Iterator[Pool]:
    """Logs every request of the model to `tmp_path`/logs/log.*"""
    (tmp_path / "pool.toml").write_text(POOL_FILE)
    (tmp_path / "monitoring").write_text(MONITORING)
    flags = (f"--pool_config_file={tmp_path}/pool.toml", f"--monitoring_config_file={tmp_path}/monitoring")
    with running_pool(config(base, tmp_path / "logs" / "log"), *flags) as pool:
        pool.wait_available(MODEL)
        yield pool


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"log.{MODEL}.*{ending}")) if folder.exists() else []


def the_log(folder: Path, count: int, ending: str = ".tfrecord.partial") -> list[Any]:
    """The records of the one file of that ending, once they are so many."""

    def there() -> bool:
        found = files(folder, ending)
        return len(found) == 1 and len(prediction_logs(found[0])) == count

    eventually(there, what=f"{count} records in one file")
    return prediction_logs(files(folder, ending)[0])


def ask(pool: Pool, *numbers: float) -> Any:
    return pool.predict(predict_request(MODEL, {"x": tensor(numbers)}))


def examples_request(kind: Any, signature: str) -> Any:
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = MODEL, signature
    add_example(request)
    return request


def add_example(request: Any) -> None:
    feature = request.input.example_list.examples.add().features.feature["x"]
    feature.float_list.value.append(4.0)


def multi_request() -> Any:
    request = inference_pb2.MultiInferenceRequest()
    add_example(request)
    for signature, method in (("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = MODEL, signature
    return request


def test_every_kind_of_call_with_its_answer(pool: Pool, tmp_path: Path) -> None:
    stub = pool.stub()
    classify = examples_request(classification_pb2.ClassificationRequest, "classify_x_to_y")
    regress = examples_request(regression_pb2.RegressionRequest, "regress_x_to_y")
    predicted = ask(pool, 1.0)
    assert pool.post(f"/v1/models/{MODEL}:predict", {"instances": [1.0, 3.0]}).json == {"predictions": [2.5, 3.5]}
    classified = stub.Classify(classify, timeout=30)
    regressed = stub.Regress(regress, timeout=30)
    both = stub.MultiInference(multi_request(), timeout=30)
    with pytest.raises(grpc.RpcError):
        pool.predict(predict_request(MODEL, {"z": tensor([1.0])}))

    logs = the_log(tmp_path / "logs", 5)
    kinds = ["predict", "predict", "classify", "regress", "multi_inference"]
    assert [log.WhichOneof("log_type") for log in logs] == [f"{kind}_log" for kind in kinds]
    assert logs[0].predict_log.request == predict_request(MODEL, {"x": tensor([1.0])})
    assert logs[0].predict_log.response == predicted
    assert values(logs[1].predict_log.request.inputs["x"]) == [1.0, 3.0]
    assert values(logs[1].predict_log.response.outputs["y"]) == [2.5, 3.5], "what was answered as JSON"
    assert (logs[2].classify_log.request, logs[2].classify_log.response) == (classify, classified)
    assert (logs[3].regress_log.request, logs[3].regress_log.response) == (regress, regressed)
    assert (logs[4].multi_inference_log.request, logs[4].multi_inference_log.response) == (multi_request(), both)

    signatures = ["serving_default"] * 2 + ["classify_x_to_y", "regress_x_to_y", ""]
    for log, signature in zip(logs, signatures, strict=True):
        spec = log.log_metadata.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == (MODEL, 1, signature)
        assert log.log_metadata.sampling_config.sampling_rate == 1.0
        assert list(log.log_metadata.saved_model_tags) == ["serve"]
    count = f':tensorflow:serving:request_log_count{{model_name="{MODEL}",status_code="OK"}} 5'
    eventually(lambda: count in pool.get("/monitoring/prometheus/metrics").text, what=count)


def test_what_a_killed_worker_wrote_is_completed_and_warms_a_new_version(
    pool: Pool, base: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    for number in range(20):
        ask(pool, float(number))
    the_log(logs, 20)
    (left,) = files(logs, ".partial")
    with left.open("ab") as file:
        file.write(b"cut")
    os.kill(pool.worker(MODEL)["pid"], signal.SIGKILL)
    eventually(lambda: pool.worker(MODEL)["restarts"] == 1 and pool.worker(MODEL)["state"] == "ready")
    assert files(logs, ".tfrecord") == []
    ask(pool, 100.0)
    whole = the_log(logs, 20, ".tfrecord")
    assert [values(log.predict_log.request.inputs["x"]) for log in whole] == [[float(number)] for number in range(20)]
    assert len(the_log(logs, 1)) == 1

    shutil.copytree(base / "1", tmp_path / "2")
    (tmp_path / "2" / "assets.extra").mkdir()
    shutil.copy(files(logs, ".tfrecord")[0], tmp_path / "2" / "assets.extra" / "tf_serving_warmup_requests")
    (tmp_path / "2").rename(base / "2")
    eventually(lambda: pool.versions(MODEL) == {1: "END", 2: "AVAILABLE"}, 30.0)
    assert "warm records=20 iterations=1" in pool.log
    # The worker of version 1 has gone in good order, and completed its own.
    eventually(lambda: len(files(logs, ".tfrecord")) == 2, what="the old version's file is complete")
    assert files(logs, ".partial") == []


def test_a_reload_begins_and_ends_logging(pool: Pool, base: Path, tmp_path: Path) -> None:
    ask(pool, 1.0)
    the_log(tmp_path / "logs", 1)
    pool.reload(config(base, None))
    the_log(tmp_path / "logs", 1, ".tfrecord")
    ask(pool, 2.0)
    pool.reload(config(base, tmp_path / "other" / "log"))

    def logged_there() -> bool:
        ask(pool, 3.0)
        return bool(files(tmp_path / "other", ".partial"))

    eventually(logged_there, what="the new place is used")
    assert len(files(tmp_path / "logs", "")) == 1
    assert pool.stop() == 0
    (complete,) = files(tmp_path / "other", ".tfrecord")
    assert all(values(log.predict_log.request.inputs["x"]) == [3.0] for log in prediction_logs(complete))


def test_a_log_that_cannot_be_written_harms_nobody(pool: Pool, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pool.reload(config(base, tmp_path / "file" / "log"))
    pid = pool.worker(MODEL)["pid"]

    def complained() -> bool:
        assert values(ask(pool, 1.0).outputs["y"]) == [2.5]
        return "requests not logged" in pool.log

    eventually(complained, what="the log says so")
    for _ in range(20):
        ask(pool, 1.0)
    assert pool.log.count("requests not logged") == 1
    assert pool.worker(MODEL)["pid"] == pid
    count = f':tensorflow:serving:request_log_count{{model_name="{MODEL}",status_code="UNKNOWN"}}'
    eventually(lambda: count in pool.get("/monitoring/prometheus/metrics").text, what=count)
