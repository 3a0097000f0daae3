"""Flags of `modelpool serve` whose effect only a whole server shows."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

MODELPOOL = Path(sys.executable).parent / "modelpool"
WITHIN_S = 30.0


def half_plus_two(model: str = "half_plus_two") -> object:
    return predict_request(model, {"x": tensor([1.0])})


def write_config(pool: Pool, text: str) -> None:
    """Replace the pool's model_config_file in one step."""
    unfinished = pool.root / "models.config.new"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(pool.root / "models.config")


def serve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A server that is expected to end by itself, and every process of it: each of them has its standard output."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [MODELPOOL, "serve", *arguments], env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )


@pytest.fixture(scope="module")
def polling_pool(models: Path) -> Iterator[Pool]:
    """Looks at its model_config_file each second, and runs no warmup."""
    config = model_config({name: models / name for name in ("half_plus_two", "bad_warmup")})
    with running_pool(config, "--model_config_file_poll_wait_seconds=1", "--enable_model_warmup=false") as pool:
        pool.wait_available("half_plus_two")
        yield pool


def test_a_model_whose_warmup_is_bad_is_served_without_warmup(polling_pool: Pool) -> None:
    polling_pool.wait_available("bad_warmup")
    assert values(polling_pool.predict(half_plus_two("bad_warmup")).outputs["y"]) == [2.5]


def test_the_config_file_is_followed(polling_pool: Pool, models: Path) -> None:
    pid = polling_pool.worker("half_plus_two", 123)["pid"]
    names = ("half_plus_two", "bad_warmup")
    write_config(polling_pool, model_config({name: models / name for name in (*names, "sum")}))
    eventually(lambda: polling_pool.versions("sum") == {1: "AVAILABLE"}, WITHIN_S, "the added model is served")
    assert polling_pool.post("/v1/models/sum:predict", {"inputs": {"a": 1.0, "b": 2.0}}).json == {
        "outputs": {"total": 3.0, "product": 2.0}
    }

    logged = len(polling_pool.log)
    write_config(polling_pool, "model_config_list { config { name: ")
    eventually(lambda: "models.config" in polling_pool.log[logged:], WITHIN_S, "the bad file is logged")
    assert polling_pool.versions("sum") == {1: "AVAILABLE"}
    assert values(polling_pool.predict(half_plus_two()).outputs["y"]) == [2.5]

    write_config(polling_pool, model_config({name: models / name for name in names}))
    eventually(
        lambda: (
            polling_pool.versions("sum").get(1, "END") == "END"
            and polling_pool.post("/v1/models/sum:predict", {"inputs": {"a": 1.0, "b": 2.0}}).status == 404
        ),
        WITHIN_S,
        "the removed model is gone",
    )
    told = polling_pool.post("/v1/models/sum:predict", {"inputs": {"a": 1.0, "b": 2.0}})
    assert told.error == "Servable not found for request: Latest(sum)"
    assert polling_pool.worker("half_plus_two", 123)["pid"] == pid, "nobody else was touched"


def test_grpc_over_a_unix_socket(start_pool: StartPool, models: Path) -> None:
    path = Path(f"/tmp/mp-{os.getpid()}.sock")
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}), f"--grpc_socket_path={path}")
    pool.wait_available("half_plus_two")
    assert path.is_socket()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert values(stub.Predict(half_plus_two(), timeout=WITHIN_S).outputs["y"]) == [2.5]
    taken = serve("--port=0", "--rest_api_port=0", f"--model_base_path={models / 'sum'}", f"--grpc_socket_path={path}")
    assert taken.returncode == 255
    assert f"--grpc_socket_path={path}: another process listens on this socket" in taken.stdout
    assert path.is_socket()
    assert pool.stop() == 0
    assert not path.exists()


def test_tags_that_no_meta_graph_has(start_pool: StartPool, models: Path) -> None:
    config = model_config({"half_plus_two": models / "half_plus_two"})
    pool = start_pool(config, "--saved_model_tags=serve,nonesuch", "--max_num_load_retries=0")
    eventually(lambda: pool.versions("half_plus_two") == {123: "END"}, WITHIN_S, "the load has failed")
    (state,) = pool.model_status("half_plus_two").model_version_status
    assert state.status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert state.status.error_message.startswith(
        "Could not find meta graph def matching supplied tags: { serve nonesuch }. To inspect available tag-sets in "
        "the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def test_version_and_help() -> None:
    versions = serve("--version")
    assert versions.returncode == 0
    assert re.fullmatch(r"TensorFlow ModelServer: modelpool \S+\nTensorFlow Library: 2\.\S+\n", versions.stdout)
    told = serve("--help")
    assert told.returncode == 0
    assert "--model_config_file_poll_wait_seconds=0\n" in told.stdout
    assert (versions.stderr, told.stderr) == ("", "")


def test_an_unknown_flag_is_named_with_the_nearest(tmp_path: Path) -> None:
    done = serve("--rest_api_prot=8501", f"--model_base_path={tmp_path}")
    assert done.returncode == 2
    assert "--rest_api_prot" in done.stderr
    assert "did you mean --rest_api_port?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("ssl_config_file", "tensorflow.serving.SSLConfig"),
        ("rest_ssl_config_file", "tensorflow.serving.SSLConfig"),
        ("monitoring_config_file", "tensorflow.serving.MonitoringConfig"),
        ("tensorflow_session_config_file", "tensorflow.ConfigProto"),
        ("platform_config_file", "tensorflow.serving.PlatformConfigMap"),
    ],
)
def test_a_bad_file_ends_the_start(tmp_path: Path, flag: str, message: str) -> None:
    path = tmp_path / "bad.pbtxt"
    path.write_text("\n nonesuch: 1\n", encoding="utf-8")
    done = serve("--port=0", f"--model_base_path={tmp_path}", f"--{flag}={path}")
    assert done.returncode == 255
    assert done.stdout.startswith(
        f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'. "
        f"Error parsing text-format {message}: 2:2: "
    )
    assert f"Error parsing text-format {message}: 2:2: " in done.stderr


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            [f"--tensorflow_{name}_parallelism=1" for name in ("session", "intra_op", "inter_op")],
            "INVALID_ARGUMENT: Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all.",
        ),
        (["--use_alts_credentials"], "UNIMPLEMENTED: --use_alts_credentials: ALTS is not supported"),
        (["--use_alts_credentials", "--ssl_config_file=/x"], "INVALID_ARGUMENT: Only one of --use_alts_credentials"),
        (["--grpc_channel_arguments=a"], "INVALID_ARGUMENT: --grpc_channel_arguments: expected key=value, got 'a'"),
    ],
)
def test_flags_that_end_the_start(tmp_path: Path, flags: list[str], error: str) -> None:
    done = serve("--port=0", f"--model_base_path={tmp_path}", *flags)
    assert done.returncode == 255
    assert done.stdout.startswith(f"Failed to start server. Error: {error}")


def test_a_logging_config_that_cannot_be_followed_ends_the_start(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    logging_config = 'logging_config { log_collector_config { type: "kafka" filename_prefix: "/log" } }'
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "/m" model_platform: "tensorflow" {logging_config} }} }}',
        encoding="utf-8",
    )
    done = serve("--port=0", f"--model_config_file={config}")
    assert done.returncode == 255
    assert done.stdout.strip() == (
        "Failed to start server. Error: INVALID_ARGUMENT: Model m: logging_config.log_collector_config.type: "
        "expected '' or 'tfrecord', got 'kafka'"
    )


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_taken_port_is_named(polling_pool: Pool, models: Path, tmp_path: Path, flag: str) -> None:
    port = {"port": polling_pool.grpc_port, "rest_api_port": polling_pool.rest_port}[flag]
    ports = {"port": 0, "rest_api_port": 0} | {flag: port}
    shutil.copytree(models / "sum", tmp_path / "sum")
    done = serve(*(f"--{name}={value}" for name, value in ports.items()), f"--model_base_path={tmp_path / 'sum'}")
    assert done.returncode == 255
    assert f"--{flag}={port}: the TCP port {port} is taken by another process" in done.stdout
    assert values(polling_pool.predict(half_plus_two()).outputs["y"]) == [2.5]
