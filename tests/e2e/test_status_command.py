"""`modelpool status` against pools that live: a table for people, JSON for programs, progress and restarts told."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.apis import prediction_log_pb2

from modelpool.supervisor import status_command
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, running_pool, starting_pool
from tests.e2e.tensor_proto import tensor

MODELPOOL = Path(sys.executable).parent / "modelpool"
WARMUP_S = 3.0
_CRC32C_POLYNOMIAL = 0x82F63B78


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """What stands for XDG_RUNTIME_DIR; short, as socket paths have to be."""
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def found_pool(models: Path, base: Path) -> Iterator[Pool]:
    """A pool in the default place of runtime directories, to be found by its port."""
    config = model_config({name: models / name for name in ("dense", "half_plus_two")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(base))
        with running_pool(config, "--runtime_dir=") as pool:
            pool.wait_available("dense", "half_plus_two")
            yield pool


def status(*arguments: str, base: Path = Path("/nonexistent")) -> tuple[int, str]:
    """Exit code of `modelpool status`, and its standard output, or its standard error where it failed."""
    done = subprocess.run(
        [MODELPOOL, "status", *arguments],
        env={**os.environ, "XDG_RUNTIME_DIR": str(base)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said, kept_silent = (done.stderr, done.stdout) if done.returncode else (done.stdout, done.stderr)
    assert kept_silent == ""
    return done.returncode, said


def row(text: str, model: str) -> list[str]:
    """The cells of a model's first line in the table."""
    line = next(line for line in text.splitlines() if line.startswith(f"{model} "))
    return re.split(r" {2,}", line.strip())


@pytest.mark.parametrize("how", ["alone", "port", "runtime_dir"])
def test_a_pool_is_found(found_pool: Pool, base: Path, how: str) -> None:
    folder = base / f"modelpool-{os.geteuid()}" / str(found_pool.grpc_port)
    arguments = {"alone": [], "port": [f"--port={found_pool.grpc_port}"], "runtime_dir": ["--runtime_dir", str(folder)]}
    code, table = status(*arguments[how], base=base)
    assert code == 0
    worker = found_pool.worker("half_plus_two", 123)
    cells = row(table, "half_plus_two")
    assert cells[1:6] == ["123", "AVAILABLE", "ready", str(worker["pid"]), "cpu"]
    assert f"supervisor pid {found_pool.pid}, " in table
    assert f"serving on gRPC {found_pool.grpc_port}, REST {found_pool.rest_port}" in table
    code, document = status(*arguments[how], "--json", base=base)
    assert code == 0
    told, served = json.loads(document), found_pool.status()
    assert told.keys() == served.keys()
    assert told["supervisor"]["pid"] == served["supervisor"]["pid"] == found_pool.pid
    assert pids(told) == pids(served)


def pids(document: Any) -> dict[tuple[str, int], int]:
    return {
        (model["name"], version["version"]): worker["pid"]
        for model in document["models"]
        for version in model["versions"]
        for worker in version["workers"]
    }


@pytest.mark.parametrize("arguments", [(), ("--port=1",), ("--runtime_dir=/nonexistent",)])
def test_no_pool_is_an_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, text = status(*arguments, base=tmp_path)
    assert code == 1
    assert text.startswith("modelpool status: no pool runs ")


def test_a_kill_is_told(found_pool: Pool, base: Path) -> None:
    pid = found_pool.worker("dense", 2)["pid"]
    os.kill(pid, signal.SIGKILL)

    def back() -> str | None:
        _, table = status(base=base)
        cells = row(table, "dense")
        return table if cells[3] == "ready" and cells[4] != str(pid) else None

    table = eventually(back, 30.0, "dense is back") or ""
    assert row(table, "dense")[-1] == "1"
    assert "dense 2: the last worker killed by SIGKILL" in table
    assert row(table, "half_plus_two")[-1] == "0"
    document = json.loads(status("--json", base=base)[1])
    (dense,) = (model for model in document["models"] if model["name"] == "dense")
    (version,) = (each for each in dense["versions"] if each["version"] == 2)
    (worker,) = version["workers"]
    assert (worker["restarts"], worker["last_exit"]["cause"]) == (1, "killed by SIGKILL")


def test_loading_shows_its_progress(models: Path, tmp_path: Path) -> None:
    version = tmp_path / "slow" / "1"
    shutil.copytree(models / "slow" / "1", version)
    write_warmup(version, predict_request("slow", {"seconds": tensor(WARMUP_S, "float64")}))
    seen: dict[str, list[float]] = {}

    def is_ready(pool: Pool) -> bool:
        with contextlib.redirect_stdout(io.StringIO()) as told:  # in this process, where it is asked again and again
            code = status_command.run([f"--runtime_dir={pool.runtime_dir}"], tmp_path)
        table = told.getvalue()
        if code != 0 or len(cells := row(table, "slow")) < 4:
            return False
        phase, _, lasted = cells[3].partition(" for ")
        if phase != "ready":
            assert cells[2] in ("START", "LOADING")
            assert "not serving yet" in table
        seen.setdefault(phase, []).extend(float(each) for each in re.findall(r"^([0-9.]+) s$", lasted))
        return phase == "ready"

    began_s = time.monotonic()
    with starting_pool(model_config({"slow": tmp_path / "slow"})) as pool:
        eventually(lambda: is_ready(pool), 60.0, "the slow model is ready")
    assert "starting" in seen
    warming = seen["warming"]
    assert len(set(warming)) >= 2
    assert warming == sorted(warming), "the time in a phase grows"
    assert warming[-1] <= time.monotonic() - began_s


def write_warmup(version: Path, request: Any) -> None:
    """A warmup file of one request, as a TFRecord (tensorflow/core/lib/io/record_writer.h)."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    record = log.SerializeToString()
    length = struct.pack("<Q", len(record))
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    file.write_bytes(length + masked_crc32c(length) + record + masked_crc32c(record))


def masked_crc32c(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
