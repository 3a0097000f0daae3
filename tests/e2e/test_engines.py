"""Which engine a pool gets: Envoy where it can run, else grpcio, and how it says so; and Envoy's access log."""

import ctypes
import errno
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.ids import Incarnation
from tests.e2e.eventually import eventually
from tests.e2e.pool import MODELPOOL, Pool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

FALLEN_BACK = "frontends are made of grpcio from now on"


def answers(pool: Pool) -> bool:
    pool.wait_available("half_plus_two")
    by_grpc = values(pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])})).outputs["y"])
    by_rest = pool.post("/v1/models/half_plus_two:predict", {"instances": [1.0]}).json
    return bool(by_grpc == [2.5] and by_rest == {"predictions": [2.5]})


def is_envoy(pool: Pool) -> list[bool]:
    """For each frontend."""
    return [
        Path(f"/proc/{frontend['pid']}/exe").resolve().name.startswith("envoy")
        for frontend in pool.status()["frontends"]
    ]


@pytest.fixture
def package(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """The program of a server for which the package `envoy` is this text."""

    def program(text: str) -> tuple[str, ...]:
        folder = tmp_path / "envoy"
        folder.mkdir()
        (folder / "__init__.py").write_text(text)
        return ("env", f"PYTHONPATH={tmp_path}", str(MODELPOOL))

    return program


def admin_page(pool: Pool, path: str) -> str:
    """Of the first frontend's Envoy."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(str(sockets.envoy_admin(pool.runtime_dir, Incarnation(1))))
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: stream.recv(1 << 16), b"")).decode()


def has_rseq() -> bool:
    """Whether the kernel has rseq(2); a length of 0 is refused by one that has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(334 if os.uname().machine == "x86_64" else 293, 0, 0, 0, 0) == 0 or (
        ctypes.get_errno() != errno.ENOSYS
    )


@pytest.mark.skipif(not has_rseq(), reason="needs a kernel with restartable sequences")
def test_envoy_keeps_freed_memory_for_each_cpu_and_not_for_each_thread(models: Path) -> None:
    """And has what the operator says to the C library beside what we say."""
    config = model_config({"half_plus_two": models / "half_plus_two"})
    program = ("env", "GLIBC_TUNABLES=glibc.malloc.perturb=0", str(MODELPOOL))
    with running_pool(config, "--frontend=envoy", program=program) as pool:
        assert answers(pool)
        assert is_envoy(pool) == [True]
        page = admin_page(pool, "/memory/tcmalloc")
        kept = {whose: int(size) for size, whose in re.findall(r"(\d+) \(.*\) Bytes in (\S+) cache freelist", page)}
        assert kept["per-CPU"] > kept["thread"], "else there is nothing for CPUs"
        environment = Path(f"/proc/{pool.status()['frontends'][0]['pid']}/environ").read_bytes()
        # The C library ends each of them where it stands.
        assert b"GLIBC_TUNABLES=glibc.malloc.perturb=0:glibc.pthread.rseq=0:" in environment.replace(b"\0", b":")


def test_auto_falls_back_where_there_is_no_envoy(models: Path, package: Callable[[str], tuple[str, ...]]) -> None:
    config = model_config({"half_plus_two": models / "half_plus_two"})
    program = package('raise ImportError("no such platform")\n')
    with running_pool(config, "--frontend=auto", "--frontends=2", program=program) as pool:
        assert answers(pool)
        assert is_envoy(pool) == [False, False]
        assert pool.log.count("why_not_envoy=") == 1
        assert "the package pyvoy is not installed (no such platform)" in pool.log
        assert pool.log.count("listening engine=grpcio ") == 2
        assert pool.status()["supervisor"]["frontend_restarts"] == 0


def test_auto_falls_back_where_envoy_dies_at_its_start(models: Path, package: Callable[[str], tuple[str, ...]]) -> None:
    config = model_config({"half_plus_two": models / "half_plus_two"})
    program = package('def get_envoy_path():\n    return "/bin/false"\n')
    with running_pool(config, "--frontend=auto", program=program) as pool:
        assert answers(pool)
        assert is_envoy(pool) == [False]
        assert pool.log.count(FALLEN_BACK) == 1


def test_several_envoys_share_a_port_and_a_log(models: Path, tmp_path: Path) -> None:
    """Each answers; what the log says of a request is right; and nothing of it is lost at the end."""
    log = tmp_path / "access.log"
    flags = ("--frontend=auto", "--frontends=2", f"--access_log_file={log}")
    with running_pool(model_config({"half_plus_two": models / "half_plus_two"}), *flags) as pool:
        assert answers(pool)
        assert is_envoy(pool) == [True, True]
        assert FALLEN_BACK not in pool.log
        assert pool.log.count("listening engine=envoy ") == 2
        assert pool.get("/v1/models/nonesuch").status == 404
        eventually(lambda: entry(log, path="/v1/models/nonesuch"), what="a line while it runs")
        assert pool.post("/v1/models/half_plus_two:predict", {"instances": [3.25]}).status == 200
        assert pool.stop() == 0
    # Not by its place: each Envoy writes what it has when it ends.
    last = entry(log, method="POST", request_bytes=len('{"instances": [3.25]}'))
    assert (last["api"], last["path"], last["http_status"]) == ("rest", "/v1/models/half_plus_two:predict", 200)
    refused = entry(log, path="/v1/models/nonesuch")
    assert (refused["http_status"], refused["client"].split(":")[0]) == (404, "127.0.0.1")
    called = entry(log, path="/tensorflow.serving.PredictionService/Predict")
    assert (called["api"], called["grpc_status"], called["http_status"]) == ("grpc", "OK", 200)
    assert called["duration_ms"] >= 0


def entry(log: Path, **fields: str | int) -> Any:
    """The first whole line with these values."""
    for line in log.read_text().splitlines(keepends=True):
        if line.endswith("\n") and fields.items() <= json.loads(line).items():
            return json.loads(line)
    return None
