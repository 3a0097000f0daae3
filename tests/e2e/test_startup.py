"""How a start goes when some of it is wrong: the others are served, or it ends with a clear error."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.pool import MODELPOOL, StartPool, model_config
from tests.free_ports import free_ports

START_FAILED = 255
ENDS_WITHIN_S = 30.0
NO_RETRIES = "--max_num_load_retries=0"

StartAndEnd = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start_and_end(tmp_path: Path) -> StartAndEnd:
    """`start_and_end(config_text, *flags)`: a server that ends by itself, with its output."""

    def run(config: str, *flags: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "models.config"
        file.write_text(config, encoding="utf-8")
        grpc_port, rest_port = free_ports(2)
        command = [str(MODELPOOL), "serve", f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        command += [f"--model_config_file={file}", f"--runtime_dir={tmp_path / 'run'}", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_S)

    return run


def test_the_others_are_served(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    """One model cannot be loaded, one base path is missing: what the first reply after the start says of each."""
    missing = tmp_path / "missing"
    config = {"missing": missing, "corrupt": models / "corrupt", "numbered": models / "numbered"}
    pool = start_pool(model_config(config), NO_RETRIES)
    assert pool.status()["supervisor"]["serving"] is True
    assert (pool.number_by_grpc("numbered"), pool.number_by_rest("numbered")) == (3, 3)
    assert pool.versions("numbered") == {3: "AVAILABLE"}
    assert pool.versions("corrupt") == {1: "END"}
    path = models / "corrupt" / "1" / "saved_model.pb"
    (corrupt,) = pool.model("corrupt")["versions"]
    assert corrupt["error"] == {"code": "DATA_LOSS", "message": f"Can't parse {path} as binary proto"}
    assert pool.model("missing")["source_error"] == {
        "code": "NOT_FOUND",
        "message": f"Could not find base path {missing} for servable missing with error NOT_FOUND: {missing} not found",
    }
    answer = pool.get("/v1/models/missing")
    assert (answer.status, answer.error) == (404, "Could not find any versions of model missing")


def test_exit_on_startup_failure(start_and_end: StartAndEnd, models: Path) -> None:
    """TF Serving's way: exit code and text, on stdout."""
    names = ("numbered", "corrupt", "bad_warmup")
    ended = start_and_end(
        model_config({name: models / name for name in names}), "--exit_on_startup_failure", NO_RETRIES
    )
    assert ended.returncode == START_FAILED
    (line,) = ended.stdout.splitlines()
    start = (
        "Failed to start server. Error: UNKNOWN: 2 servable(s) did not become available: "
        "{{{name: bad_warmup version: 1} due to error: INVALID_ARGUMENT: Signature input alias: x(feed name: x:0) "
    )
    assert line.startswith(start)
    path = models / "corrupt" / "1" / "saved_model.pb"
    assert line.endswith(
        f"}}, {{{{name: corrupt version: 1}} due to error: DATA_LOSS: Can't parse {path} as binary proto}}, }}"
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("custom_model_config {}", "ModelServer does not yet support custom model config."),
        (
            "model_config_list {"
            ' config { name: "a" base_path: "/x" model_platform: "tensorflow" }'
            ' config { name: "a" base_path: "/y" model_platform: "tensorflow" } }',
            "Illegal to list model a multiple times in config list",
        ),
        (
            model_config({"a": "x/y"}),
            "Expected model a to have an absolute path or URI; got base_path()=x/y",
        ),
        (
            'model_config_list {\n  config { nam: "a" }\n}\n',
            "Invalid protobuf file: '{file}'. Error parsing text-format tensorflow.serving.ModelServerConfig: "
            '2:12: Message type "tensorflow.serving.ModelConfig" has no field named "nam".',
        ),
    ],
    ids=["custom", "duplicate", "relative", "syntax"],
)
def test_a_bad_model_config_file(start_and_end: StartAndEnd, tmp_path: Path, config: str, text: str) -> None:
    ended = start_and_end(config)
    message = text.replace("{file}", str(tmp_path / "models.config"))
    assert ended.stdout.splitlines()[0] == f"Failed to start server. Error: INVALID_ARGUMENT: {message}"
    assert ended.returncode == START_FAILED


@pytest.mark.parametrize(
    ("pool_file", "text"),
    [
        ("[models.a]\nrolback = true\n", "{file}: [models.a]: unknown key rolback: did you mean rollback?"),
        ("[defaults]\nsetle_s = 1\n", "{file}: [defaults]: unknown key setle_s: did you mean settle_s?"),
        ("[source]\ncachedir = ''\n", "{file}: [source]: unknown key cachedir: did you mean cache_dir?"),
        ("[model.a]\n", "{file}: unknown table [model]: did you mean [models]?"),
        (
            '[defaults]\ntransition_policy = "resource"\n',
            '{file}: [defaults]: transition_policy: expected one of "availability_preserving", '
            '"resource_preserving", got "resource"',
        ),
        ("[defaults]\nrollback = maybe\n", "{file}:2:12: Invalid value"),
    ],
)
def test_a_bad_pool_file(start_and_end: StartAndEnd, tmp_path: Path, pool_file: str, text: str) -> None:
    file = tmp_path / "pool.toml"
    file.write_text(pool_file)
    ended = start_and_end("", f"--pool_config_file={file}")
    message = text.replace("{file}", str(file))
    assert ended.stdout == f"Failed to start server. Error: INVALID_ARGUMENT: {message}\n"
    assert ended.returncode == START_FAILED


def test_a_missing_pool_file(start_and_end: StartAndEnd, tmp_path: Path) -> None:
    ended = start_and_end("", f"--pool_config_file={tmp_path}/nowhere.toml")
    text = f"pool_config_file: cannot read '{tmp_path}/nowhere.toml': No such file or directory"
    assert ended.stdout == f"Failed to start server. Error: INVALID_ARGUMENT: {text}\n"
    assert ended.returncode == START_FAILED
