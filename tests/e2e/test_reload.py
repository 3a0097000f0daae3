"""HandleReloadConfigRequest: models come and go, a bad request changes nothing, and none waits without end."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from tests.e2e.eventually import eventually
from tests.e2e.pool import CALL_WITHIN_S, Pool, model_config, predict_request, put_version, refusal, running_pool
from tests.e2e.tensor_proto import tensor, values

RELOAD_TIMEOUT_S = 3
# Loads are bounded by their first attempt and not by the timeout above, which is for those that never settle.
PROMPTLY_S = 20.0
ONLY_LISTS = (
    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
)


@pytest.fixture(scope="module")
def reloaded_pool(models: Path, tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Pool]:
    pool_file = tmp_path_factory.mktemp("reload") / "pool.toml"
    pool_file.write_text('[defaults]\nsettle_s = 0\n[models.unmarked]\ncomplete_marker = "COMPLETE"\n')
    flags = (f"--frontend={engine}", f"--reload_timeout_s={RELOAD_TIMEOUT_S}", f"--pool_config_file={pool_file}")
    with running_pool(model_config({"numbered": models / "numbered"}), *flags) as pool:
        pool.wait_available("numbered")
        yield pool


@pytest.fixture
def pool(reloaded_pool: Pool, models: Path) -> Pool:
    """The one model `numbered` is configured, with its newest version 3."""
    reloaded_pool.reload(model_config({"numbered": models / "numbered"}))
    eventually(lambda: reloaded_pool.versions("numbered").get(3) == "AVAILABLE", 20.0)
    return reloaded_pool


def test_models_are_added_and_removed(pool: Pool, models: Path) -> None:
    pid = pool.worker("numbered", 3)["pid"]
    both = {"numbered": models / "numbered", "sum": models / "sum"}
    assert pool.reload(model_config(both)).status.error_code == 0
    reply = pool.predict(predict_request("sum", {"a": tensor(1.0), "b": tensor(2.0)}))  # it answers at once
    assert values(reply.outputs["total"]) == 3.0
    pool.reload(model_config({"numbered": models / "numbered"}))
    eventually(lambda: pool.versions("sum") == {1: "END"}, 20.0)
    refused = refusal(lambda: pool.predict(predict_request("sum", {"a": tensor(1.0), "b": tensor(2.0)})))
    assert refused == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(sum)")
    assert pool.worker("numbered", 3)["pid"] == pid, "the model that stays is not touched"


def test_metrics_of_a_reload(pool: Pool, models: Path) -> None:
    request = model_management_pb2.ReloadConfigRequest(metric_names=["a", "b"])
    request.config.model_config_list.config.add(
        name="numbered", base_path=str(models / "numbered"), model_platform="tensorflow"
    )
    stub = model_service_pb2_grpc.ModelServiceStub(pool.channel)
    response = stub.HandleReloadConfigRequest(request, timeout=CALL_WITHIN_S)
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert [(each.name, each.int64_value_increase) for each in response.metric] == [("a", 0), ("b", 0)]


OTHER = 'model_platform: "other"'


def entry(name: str, base_path: str, rest: str = 'model_platform: "tensorflow"') -> str:
    return f"config {{ name: {json.dumps(name)} base_path: {json.dumps(base_path)} {rest} }}"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            f"model_config_list {{ {entry('new', '/x')} {entry('numbered', '/y')} {entry('numbered', '/y')} }}",
            "Illegal to list model numbered multiple times in config list",
        ),
        (
            f"model_config_list {{ {entry('new', 'models/new')} }}",
            "Expected model new to have an absolute path or URI; got base_path()=models/new",
        ),
        (
            f"model_config_list {{ {entry('new', '/x', '')} }}",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is new",
        ),
        (
            f"model_config_list {{ {entry('new', '/x', OTHER)} }}",
            "Model new requests unsupported platform other",
        ),
        (
            f"model_config_list {{ {entry('numbered', '/x', OTHER)} }}",
            "Illegal to change a model's platform. For model numbered platform was tensorflow and new platform "
            "requested is other",
        ),
        ("custom_model_config {}", ONLY_LISTS),
        ("", ONLY_LISTS),
    ],
    ids=["duplicate", "relative", "no platform", "unsupported", "platform changed", "custom", "unset"],
)
def test_a_bad_request_changes_nothing(pool: Pool, config: str, text: str) -> None:
    pid = pool.worker("numbered", 3)["pid"]
    assert refusal(lambda: pool.reload(config)) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    assert pool.worker("numbered", 3)["pid"] == pid
    assert pool.number_by_grpc("numbered") == 3
    assert pool.versions("new") == {}


def test_a_new_model_that_cannot_load(pool: Pool, models: Path, tmp_path: Path) -> None:
    """The call ends with the first failed attempt of each, though there are retries to come; the good one stays."""
    missing = tmp_path / "missing"
    names = ("numbered", "sum", "corrupt", "bad_warmup")
    config = model_config({**{name: models / name for name in names}, "missing": missing})
    began_s = time.monotonic()
    code, text = refusal(lambda: pool.reload(config))
    assert time.monotonic() - began_s < PROMPTLY_S
    errors = {name: pool.model_status(name).model_version_status[0].status for name in ("bad_warmup", "corrupt")}
    assert code is grpc.StatusCode.UNKNOWN
    warmup, broken = (errors[name].error_message for name in ("bad_warmup", "corrupt"))
    assert warmup
    assert broken
    assert text == (
        "3 model(s) did not become available: {"
        f"{{{{name: bad_warmup version: 1}} due to error: INVALID_ARGUMENT: {warmup}}}, "
        f"{{{{name: corrupt version: 1}} due to error: {grpc_name(errors['corrupt'].error_code)}: {broken}}}, "
        f"{{{{name: missing}} due to error: NOT_FOUND: Could not find base path {missing} for servable missing "
        f"with error NOT_FOUND: {missing} not found}}, }}"
    )
    reply = pool.predict(predict_request("sum", {"a": tensor(1.0), "b": tensor(2.0)}))
    assert values(reply.outputs["total"]) == 3.0
    assert pool.number_by_grpc("numbered") == 3
    put_version(models / "numbered" / "1", tmp_path, "copy")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "copy").rename(tmp_path / "unfinished" / "1")
    (tmp_path / "unfinished").rename(missing)
    eventually(lambda: pool.versions("missing") == {1: "AVAILABLE"}, 20.0, "it is still configured")


def grpc_name(code: int) -> str:
    name: str = next(each.name for each in grpc.StatusCode if each.value[0] == code)
    return name


def test_one_new_model_that_cannot_load(pool: Pool, models: Path) -> None:
    code, text = refusal(lambda: pool.reload(model_config({name: models / name for name in ("corrupt", "numbered")})))
    assert code is grpc.StatusCode.UNKNOWN
    assert text.startswith("1 model(s) did not become available: {{{name: corrupt version: 1} due to error: ")
    assert "Can't parse" in text
    assert text.endswith("}, }")
    again = pool.reload(model_config({name: models / name for name in ("corrupt", "numbered")}))
    assert again.status.error_code == 0, "it is not newly named any more"


def test_a_new_model_that_never_settles(pool: Pool, models: Path, tmp_path: Path) -> None:
    """Its version is not complete yet, so it has neither loaded nor failed: the call is bounded."""
    base = tmp_path / "unmarked"
    base.mkdir()
    put_version(models / "numbered" / "1", base, "1")
    config = model_config({"numbered": models / "numbered", "unmarked": base})
    began_s = time.monotonic()
    refused = refusal(lambda: pool.reload(config))
    took_s = time.monotonic() - began_s
    assert refused == (
        grpc.StatusCode.UNKNOWN,
        "1 model(s) did not become available: {{{name: unmarked} due to error: DEADLINE_EXCEEDED: neither available "
        f"nor given up within {RELOAD_TIMEOUT_S} s (--reload_timeout_s); it is still being tried}}, }}",
    )
    assert RELOAD_TIMEOUT_S - 0.1 <= took_s < RELOAD_TIMEOUT_S + 2.0
    (base / "1" / "COMPLETE").touch()
    eventually(lambda: pool.versions("unmarked") == {1: "AVAILABLE"}, 20.0)
    assert pool.number_by_grpc("unmarked") == 1


def test_another_base_path(pool: Pool, models: Path, tmp_path: Path) -> None:
    """The versions of the new path take the place of the old ones."""
    put_version(models / "numbered" / "1", tmp_path, "1")
    pool.reload(model_config({"numbered": tmp_path}))
    eventually(lambda: pool.versions("numbered").get(1) == "AVAILABLE", 20.0)
    eventually(lambda: pool.versions("numbered").get(3) == "END", 20.0)
    assert pool.number_by_rest("numbered") == 1


def test_another_base_path_with_the_same_version(pool: Pool, models: Path, tmp_path: Path) -> None:
    """TF Serving takes a servable for the same by name and version: what is loaded stays loaded."""
    pid = pool.worker("numbered", 3)["pid"]
    put_version(models / "numbered" / "1", tmp_path, "3")
    pool.reload(model_config({"numbered": tmp_path}))
    put_version(models / "numbered" / "2", tmp_path, "2")
    pool.reload(model_config({"numbered": tmp_path}, {"numbered": "all {}"}))
    eventually(lambda: pool.versions("numbered").get(2) == "AVAILABLE", 20.0, "the new path has been looked at")
    assert pool.worker("numbered", 3)["pid"] == pid


def test_an_empty_list_unloads_all(pool: Pool) -> None:
    pool.reload("model_config_list {}")
    eventually(lambda: set(pool.versions("numbered").values()) == {"END"}, 20.0)
    refused = refusal(lambda: pool.number_by_grpc("numbered"))
    assert refused == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(numbered)")
