"""Models that cannot be loaded: the others are served, the status says why, and the server keeps looking."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, put_version, running_pool
from tests.e2e.tensor_proto import tensor, values

WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A pool of good and bad models; those that a test changes lie below `root`, one folder each."""

    pool: Pool
    root: Path


@pytest.fixture(scope="module")
def neighbours(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    root = tmp_path_factory.mktemp("bad")
    good, bad = models / "half_plus_two" / "00000123", models / "corrupt" / "1"
    shutil.copytree(bad, root / "mended" / "1")
    shutil.copytree(good, root / "spoilt" / "1")
    (root / "empty").mkdir()
    (root / "hollow" / "1").mkdir(parents=True)
    (root / "hollow" / "1" / "README").write_text("no model")
    places = {name: models / name for name in ("corrupt", "bad_warmup", "half_plus_two")}
    places |= {name: root / name for name in ("mended", "spoilt", "empty", "hollow", "missing")}
    with running_pool(model_config(places), "--max_num_load_retries=0") as pool:
        yield Neighbours(pool, root)


@pytest.fixture
def pool(neighbours: Neighbours) -> Iterator[Pool]:
    """Whatever is wrong with a model, its neighbour answers before and after."""
    assert half_plus_two_answers(neighbours.pool)
    yield neighbours.pool
    assert half_plus_two_answers(neighbours.pool)


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
    [
        ("corrupt", "Can't parse"),
        ("bad_warmup", "Signature input alias: x(feed name: x:0) not found in request"),
        (
            "hollow",
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            "`saved_model.pb`)\nSpecified file path: ",
        ),
    ],
)
def test_a_version_that_cannot_be_loaded(pool: Pool, model: str, reason: str) -> None:
    eventually(lambda: pool.versions(model) == {1: "END"}, WITHIN_S)
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


def test_a_good_new_version_after_a_corrupt_one(pool: Pool, neighbours: Neighbours, models: Path) -> None:
    eventually(lambda: pool.versions("mended") == {1: "END"}, WITHIN_S)
    put_version(models / "half_plus_two" / "00000123", neighbours.root / "mended", "2")
    eventually(lambda: pool.versions("mended").get(2) == "AVAILABLE", WITHIN_S)
    reply = pool.predict(predict_request("mended", {"x": tensor([1.0])}))
    assert values(reply.outputs["y"]) == [2.5]


def test_a_corrupt_new_version_leaves_the_old_one_serving(pool: Pool, neighbours: Neighbours, models: Path) -> None:
    pool.wait_available("spoilt")
    pid = pool.worker("spoilt", 1)["pid"]
    put_version(models / "corrupt" / "1", neighbours.root / "spoilt", "2")
    eventually(lambda: pool.versions("spoilt") == {1: "AVAILABLE", 2: "END"}, WITHIN_S)
    reply = pool.predict(predict_request("spoilt", {"x": tensor([1.0])}))
    assert reply.model_spec.version.value == 1
    assert pool.worker("spoilt", 1)["pid"] == pid


def test_an_empty_base_path(pool: Pool, neighbours: Neighbours, models: Path) -> None:
    base = neighbours.root / "empty"
    assert not_found(pool, "empty") == "Servable not found for request: Latest(empty)"
    missing = pool.get("/v1/models/empty")
    assert (missing.status, missing.error) == (404, "Could not find any versions of model empty")
    assert pool.model("empty")["versions"] == []
    (note,) = pool.model("empty")["source_notes"]
    assert note.startswith(f"No versions of servable empty found under base path {base}.")
    assert note in pool.log
    put_version(models / "half_plus_two" / "00000123", base, "5")
    eventually(lambda: pool.versions("empty") == {5: "AVAILABLE"}, WITHIN_S)
    assert pool.model("empty")["source_notes"] == []
    shutil.rmtree(base / "5")
    eventually(lambda: pool.versions("empty") == {5: "END"}, WITHIN_S, "an emptied base path unloads all versions")
    (ended,) = pool.get("/v1/models/empty").json["model_version_status"]
    assert ended["status"] == {"error_code": "OK", "error_message": ""}


def test_a_missing_base_path(pool: Pool, neighbours: Neighbours, models: Path) -> None:
    """TF Serving gives up the whole poll for one missing base path and serves nobody; here the others are served."""
    base = neighbours.root / "missing"
    assert not_found(pool, "missing") == "Servable not found for request: Latest(missing)"
    text = f"Could not find base path {base} for servable missing with error NOT_FOUND: {base} not found"
    error = {"code": "NOT_FOUND", "message": text}
    eventually(lambda: pool.model("missing")["source_error"] == error, what="the status names the missing path")
    assert text in pool.log
    shutil.copytree(models / "half_plus_two", neighbours.root / "copy")
    (neighbours.root / "copy").rename(base)
    eventually(lambda: pool.versions("missing") == {123: "AVAILABLE"}, WITHIN_S)
    assert pool.model("missing")["source_error"]["code"] == "OK"
    base.rename(neighbours.root / "away")
    eventually(lambda: pool.model("missing")["source_error"] == error, what="the path is missed again")
    assert pool.versions("missing") == {123: "AVAILABLE"}, "a missing base path unloads nothing"
