"""Models that cannot be loaded: the others are served, the status says why, and the server keeps looking."""

import shutil
from pathlib import Path

import grpc
import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

NO_RETRIES = ("--max_num_load_retries=0",)


def half_plus_two_answers(pool: Pool) -> bool:
    reply = pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])}))
    got: list[float] = values(reply.outputs["y"])
    return got == [2.5]


def not_found(pool: Pool, model: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        pool.predict(predict_request(model, {"x": tensor([1.0])}))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    text: str = caught.value.details()
    return text


@pytest.mark.parametrize(
    ("model", "reason"),
    [("corrupt", "Can't parse"), ("bad_warmup", "Signature input alias: x(feed name: x:0) not found in request")],
)
def test_a_version_that_cannot_be_loaded(start_pool: StartPool, models: Path, model: str, reason: str) -> None:
    names = (model, "half_plus_two")
    pool = start_pool(model_config({name: models / name for name in names}), *NO_RETRIES)
    pool.wait_available("half_plus_two")
    assert half_plus_two_answers(pool)
    eventually(lambda: pool.versions(model) == {1: "END"}, 30.0)
    (version,) = pool.model(model)["versions"]
    assert version["state"] == "END"
    assert version["error"]["code"] not in ("OK", "")
    assert reason in version["error"]["message"]
    (told,) = pool.get(f"/v1/models/{model}").json["model_version_status"]
    assert (told["version"], told["state"], told["status"]["error_code"]) == ("1", "END", version["error"]["code"])
    assert reason in told["status"]["error_message"]
    (state,) = pool.model_status(model).model_version_status
    assert (state.version, state.state) == (1, 50)
    assert reason in state.status.error_message
    assert not_found(pool, model) == f"Servable not found for request: Latest({model})"
    assert half_plus_two_answers(pool)


def test_a_good_new_version_after_a_corrupt_one(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    base = tmp_path / "mended"
    shutil.copytree(models / "corrupt" / "1", base / "1")
    pool = start_pool(model_config({"mended": base}), *NO_RETRIES)
    eventually(lambda: pool.versions("mended") == {1: "END"}, 30.0)
    shutil.copytree(models / "half_plus_two" / "00000123", base / "unfinished")
    (base / "unfinished").rename(base / "2")
    eventually(lambda: pool.versions("mended").get(2) == "AVAILABLE", 30.0)
    reply = pool.predict(predict_request("mended", {"x": tensor([1.0])}))
    assert values(reply.outputs["y"]) == [2.5]


def test_a_corrupt_new_version_leaves_the_old_one_serving(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    base = tmp_path / "spoilt"
    shutil.copytree(models / "half_plus_two" / "00000123", base / "1")
    pool = start_pool(model_config({"spoilt": base}), *NO_RETRIES)
    pool.wait_available("spoilt")
    pid = pool.worker("spoilt", 1)["pid"]
    shutil.copytree(models / "corrupt" / "1", base / "unfinished")
    (base / "unfinished").rename(base / "2")
    eventually(lambda: pool.versions("spoilt") == {1: "AVAILABLE", 2: "END"}, 30.0)
    reply = pool.predict(predict_request("spoilt", {"x": tensor([1.0])}))
    assert reply.model_spec.version.value == 1
    assert pool.worker("spoilt", 1)["pid"] == pid


def test_an_empty_base_path(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    base = tmp_path / "empty"
    base.mkdir()
    pool = start_pool(model_config({"empty": base, "half_plus_two": models / "half_plus_two"}))
    pool.wait_available("half_plus_two")
    assert half_plus_two_answers(pool)
    assert not_found(pool, "empty") == "Servable not found for request: Latest(empty)"
    missing = pool.get("/v1/models/empty")
    assert (missing.status, missing.error) == (404, "Could not find any versions of model empty")
    assert pool.model("empty")["versions"] == []
    shutil.copytree(models / "half_plus_two" / "00000123", tmp_path / "copy")
    (tmp_path / "copy").rename(base / "5")
    eventually(lambda: pool.versions("empty") == {5: "AVAILABLE"}, 30.0)
    shutil.rmtree(base / "5")
    eventually(lambda: pool.versions("empty") == {5: "END"}, 30.0, "an emptied base path unloads all versions")
    (ended,) = pool.get("/v1/models/empty").json["model_version_status"]
    assert ended["status"] == {"error_code": "OK", "error_message": ""}


def test_a_missing_base_path(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    base = tmp_path / "missing"
    pool = start_pool(model_config({"missing": base}))
    assert not_found(pool, "missing") == "Servable not found for request: Latest(missing)"
    eventually(lambda: str(base) in str(pool.model("missing")), what="the status names the missing path")
    assert str(base) in pool.log
    shutil.copytree(models / "half_plus_two", tmp_path / "copy")
    (tmp_path / "copy").rename(base)
    eventually(lambda: pool.versions("missing") == {123: "AVAILABLE"}, 30.0)
    base.rename(tmp_path / "away")
    eventually(lambda: str(base) in str(pool.model("missing")["source_error"]), what="the path is missed again")
    assert pool.versions("missing") == {123: "AVAILABLE"}, "a missing base path unloads nothing"


def test_a_missing_base_path_beside_a_good_one(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    config = model_config({"missing": tmp_path / "missing", "half_plus_two": models / "half_plus_two"})
    pool = start_pool(config)
    # TF Serving gives up the whole poll for one missing base path and serves nobody; one tenant's mistake would
    # then stop the others', which this server exists to prevent.
    pool.wait_available("half_plus_two")
    assert half_plus_two_answers(pool)
