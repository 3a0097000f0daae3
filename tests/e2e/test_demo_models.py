"""The demo models answer right over gRPC and REST, by latest and by explicit version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pool import Pool, predict_request
from tests.e2e.tensor_proto import tensor, values

X, Y = [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]


@pytest.fixture(scope="session")
def dense(models: Path) -> Any:
    """`inputs`, and `answers` by version, worked out by NumPy."""
    return json.loads((models / "expected.json").read_text("utf-8"))["dense"]


@pytest.mark.parametrize("version", [None, 123])
def test_half_plus_two_over_grpc(shared_pool: Pool, version: int | None) -> None:
    reply = shared_pool.predict(predict_request("half_plus_two", {"x": tensor(X)}, version=version))
    assert values(reply.outputs["y"]) == Y
    assert list(reply.outputs) == ["y"]
    assert reply.model_spec.name == "half_plus_two"
    assert reply.model_spec.version.value == 123
    assert reply.model_spec.signature_name == "serving_default"
    assert not reply.model_spec.version_label


@pytest.mark.parametrize("where", ["", "/versions/123"])
def test_half_plus_two_over_rest(shared_pool: Pool, where: str) -> None:
    path = f"/v1/models/half_plus_two{where}:predict"
    row = shared_pool.post(path, {"instances": X})
    assert (row.status, row.json) == (200, {"predictions": Y})
    assert row.content_type == "application/json"
    assert shared_pool.post(path, {"inputs": X}).json == {"outputs": Y}
    assert shared_pool.post(path, {"instances": [{"x": x} for x in X]}).json == {"predictions": Y}
    assert shared_pool.post(path, {"inputs": {"x": X}}).json == {"outputs": Y}
    assert shared_pool.post(path, {"inputs": 3.0}).json == {"outputs": 3.5}


@pytest.mark.parametrize(("version", "serves"), [(None, 2), (1, 1), (2, 2)])
def test_dense_over_grpc(shared_pool: Pool, dense: Any, version: int | None, serves: int) -> None:
    reply = shared_pool.predict(predict_request("dense", {"inputs": tensor(dense["inputs"])}, version=version))
    assert reply.model_spec.version.value == serves
    got, wanted = values(reply.outputs["output_0"]), dense["answers"][str(serves)]
    assert [pytest.approx(row, abs=1e-5) for row in wanted] == got


@pytest.mark.parametrize(("where", "serves"), [("", 2), ("/versions/1", 1), ("/versions/2", 2)])
def test_dense_over_rest(shared_pool: Pool, dense: Any, where: str, serves: int) -> None:
    wanted = [pytest.approx(row, abs=1e-5) for row in dense["answers"][str(serves)]]
    path = f"/v1/models/dense{where}:predict"
    assert shared_pool.post(path, {"instances": dense["inputs"]}).json == {"predictions": wanted}
    assert shared_pool.post(path, {"inputs": dense["inputs"]}).json == {"outputs": wanted}
    named = {"signature_name": "serving_default", "instances": [{"inputs": row} for row in dense["inputs"]]}
    assert shared_pool.post(path, named).json == {"predictions": wanted}


def test_demo_keeps_its_state_in_order(shared_pool: Pool) -> None:
    def ask(signature: str, name: str, text: bytes) -> bytes:
        inputs = {name: tensor(text, "string")}
        output = shared_pool.predict(predict_request("demo", inputs, signature=signature)).outputs["output_0"]
        assert not output.tensor_shape.dim
        (answer,) = output.string_val
        assert isinstance(answer, bytes)
        return answer

    assert ask("test_assign", "b", b"\x00\xff") == b"\x00\xff"
    assert ask("test_assign", "b", b"start") == b"start"
    so_far = b"start"
    for i in range(50):
        so_far += b" %d" % i
        assert ask("test_concat", "a", b" %d" % i) == so_far


def test_demo_over_rest(shared_pool: Pool) -> None:
    path = "/v1/models/demo:predict"
    body: dict[str, Any] = {"signature_name": "test_assign", "inputs": "one"}
    assert shared_pool.post(path, body).json == {"outputs": "one"}
    body = {"signature_name": "test_concat", "inputs": {"a": " \u00e4 two"}}
    assert shared_pool.post(path, body).json == {"outputs": "one \u00e4 two"}
    body = {"signature_name": "test_assign", "inputs": {"b": {"b64": "YmFzZTY0"}}}
    assert shared_pool.post(path, body).json == {"outputs": "base64"}


def test_status_over_rest_and_grpc(shared_pool: Pool) -> None:
    fine = {"error_code": "OK", "error_message": ""}
    both = [{"version": v, "state": "AVAILABLE", "status": fine} for v in ("2", "1")]
    assert shared_pool.get("/v1/models/dense").json == {"model_version_status": both}
    assert shared_pool.get("/v1/models/dense/versions/1").json == {"model_version_status": both[1:]}
    states = shared_pool.model_status("dense").model_version_status
    assert [(each.version, each.state, each.status.error_code) for each in states] == [(2, 30, 0), (1, 30, 0)]
    (one,) = shared_pool.model_status("half_plus_two", 123).model_version_status
    assert (one.version, one.state, one.status.error_message) == (123, 30, "")


def test_pool_status_names_every_worker(shared_pool: Pool) -> None:
    status = shared_pool.status()
    assert status["supervisor"]["pid"] == shared_pool.pid
    pids = {process.pid for process in shared_pool.processes()}
    versions = [version for model in status["models"] for version in model["versions"]]
    assert {model["name"] for model in status["models"]} == set(re.findall(r'name: "([^"]+)"', shared_pool.config))
    assert [len(version["workers"]) for version in versions] == [1] * len(versions)
    workers = [worker for version in versions for worker in version["workers"]]
    assert len({worker["pid"] for worker in workers}) == len(workers)
    assert {worker["pid"] for worker in workers} | {frontend["pid"] for frontend in status["frontends"]} <= pids
    for worker in workers:
        assert worker["device"] == "cpu"
        assert worker["restarts"] == 0
        assert worker["last_exit"] is None
        assert worker["rss_bytes"] > 0
        assert worker["incarnation"] > 0


def test_output_filter(shared_pool: Pool) -> None:
    request = predict_request("sum", {"a": tensor([1.0, 2.0]), "b": tensor([3.0, 5.0])})
    reply = shared_pool.predict(request)
    assert {name: values(proto) for name, proto in reply.outputs.items()} == {"total": [4, 7], "product": [3, 10]}
    request.output_filter.append("product")
    assert list(shared_pool.predict(request).outputs) == ["product"]
