"""Faults of the pool's own processes: a frontend that is killed, an end that comes during the start."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request, starting_pool
from tests.e2e.tensor_proto import tensor, values

BACK_WITHIN_S = 20.0
# The grace that workers have, which one that is still to be forked uses up, and the reaping.
PROMPTLY_S = 8.0


def frontend_pid(pool: Pool) -> int | None:
    """The pid of the frontend that answers; None while nobody does."""
    with contextlib.suppress(OSError):
        (frontend,) = pool.status()["frontends"]
        pid: int = frontend["pid"]
        return pid
    return None


def answer(pool: Pool) -> Any:
    """Of half_plus_two, to a client that has just connected."""
    with grpc.insecure_channel(f"127.0.0.1:{pool.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reply = stub.Predict(predict_request("half_plus_two", {"x": tensor([1.0])}), timeout=BACK_WITHIN_S)
        return values(reply.outputs["y"])


def test_a_killed_frontend_is_replaced(start_pool: StartPool, models: Path) -> None:
    path = Path(f"/tmp/mp-{os.getpid()}.sock")
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}), f"--grpc_socket_path={path}")
    pool.wait_available("half_plus_two")
    worker = pool.worker("half_plus_two", 123)["pid"]
    for _ in range(2):
        pid = frontend_pid(pool)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda old=pid: frontend_pid(pool) not in (None, old), BACK_WITHIN_S, "another frontend answers")
        assert answer(pool) == [2.5]
        assert len(list(pool.runtime_dir.glob("d*"))) <= 1, "what Envoy watches goes with the frontend"
        assert path.is_socket(), "it has taken over the socket file that the killed one left"
    assert pool.worker("half_plus_two", 123)["pid"] == worker
    assert pool.stop() == 0
    assert not path.exists()


def test_one_of_several_frontends_is_killed_under_load(start_pool: StartPool, models: Path) -> None:
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}), "--frontends=3")
    pool.wait_available("half_plus_two")

    def pids() -> set[int]:
        with contextlib.suppress(OSError):
            return {frontend["pid"] for frontend in pool.status()["frontends"]}
        return set()

    def is_replaced(pid: int) -> bool:
        now = pids()  # one look: the status may not be had while it is asked of the killed one
        return len(now) == 3 and pid not in now

    def lost(pid: int) -> int:
        """Calls that failed: each by a client that has just connected, until the killed one is replaced."""
        failures = 0
        while not is_replaced(pid):
            with contextlib.suppress(grpc.RpcError):
                assert answer(pool) == [2.5]
                continue
            failures += 1
        return failures

    before = pids()
    assert len(before) == 3
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    # A connection that the kernel had given to the killed one is lost, and none after it.
    assert lost(killed) <= 1
    assert before - {killed} < pids()
    assert pool.status()["supervisor"]["frontend_restarts"] == 1
    assert [answer(pool) for _ in range(20)] == [[2.5]] * 20

    def each_is_asked() -> bool:
        answer(pool)
        return all(frontend["answered"] for frontend in pool.status()["frontends"])

    eventually(each_is_asked, BACK_WITHIN_S, "connections are shared out among all three")
    assert pool.stop() == 0


def children(pool: Pool, module: str) -> list[psutil.Process]:
    found = []
    for process in pool.processes():
        with contextlib.suppress(psutil.Error):
            if module in process.cmdline():
                found.append(process)
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_end_while_tensorflow_is_imported(models: Path, how: signal.Signals) -> None:
    with starting_pool(model_config({"half_plus_two": models / "half_plus_two"})) as pool:
        (fork_server,) = eventually(lambda: children(pool, "modelpool.worker.fork_server"), what="a fork server")
        eventually(lambda: imports_tensorflow(fork_server), what="TensorFlow's import has begun")
        began_s = time.monotonic()
        assert pool.stop(how) == 0, pool.log
        assert time.monotonic() - began_s < PROMPTLY_S
        eventually(lambda: not pool.processes(), PROMPTLY_S, "no process is left")
        assert not pool.runtime_dir.exists()


def imports_tensorflow(process: psutil.Process) -> bool:
    return "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text()
