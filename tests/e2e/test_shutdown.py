"""The end of a server, in order and by -9: what is in flight is answered, and nothing of it is left behind."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import STOP_WITHIN_S, Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor

SHARED_MEMORY = Path("/dev/shm")
GONE_WITHIN_S = 5.0


@pytest.fixture
def slow_pool(start_pool: StartPool, models: Path) -> Pool:
    pool = start_pool(model_config({name: models / name for name in ("slow", "half_plus_two")}))
    pool.wait_available("slow", "half_plus_two")
    return pool


def slow_request_in_flight(pool: Pool, seconds: float) -> Any:
    """A call that is executing in its worker."""
    request = predict_request("slow", {"seconds": tensor(seconds, "float64")})
    call = pool.stub().Predict.future(request, timeout=60)
    eventually(lambda: pool.worker("slow")["in_flight"] == 1, what="the slow request is at its worker")
    return call


def assert_nothing_left(pool: Pool) -> None:
    eventually(lambda: not pool.processes(), GONE_WITHIN_S, "no process is left")
    assert not pool.runtime_dir.exists(), list(pool.runtime_dir.iterdir())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_with_nothing_left(pool: Pool, how: signal.Signals) -> None:
    shared_memory = set(SHARED_MEMORY.iterdir())
    assert pool.runtime_dir.exists()
    assert pool.stop(how) == 0
    assert_nothing_left(pool)
    assert set(SHARED_MEMORY.iterdir()) <= shared_memory


def test_a_drain_answers_what_is_in_flight_and_refuses_what_is_new(slow_pool: Pool) -> None:
    call = slow_request_in_flight(slow_pool, 3.0)
    slow_pool.child.send_signal(signal.SIGTERM)

    def refused() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{slow_pool.grpc_port}") as channel:
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            try:
                ask(predict_request("half_plus_two", {"x": tensor([1.0])}).SerializeToString(), timeout=5)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

    eventually(refused, what="a new call is refused")
    assert not call.done(), "refused while the old call still runs"
    assert call.result().outputs["elapsed"].double_val[0] >= 3.0
    assert slow_pool.child.wait(STOP_WITHIN_S) == 0
    assert_nothing_left(slow_pool)


def test_a_drain_has_an_end(start_pool: StartPool, models: Path) -> None:
    pool = start_pool(model_config({"slow": models / "slow"}), "--drain_timeout_s=1")
    pool.wait_available("slow")
    call = slow_request_in_flight(pool, 50.0)
    assert pool.stop() == 0
    assert call.exception() is not None
    assert_nothing_left(pool)


def test_a_killed_supervisor_takes_everything_along_and_a_new_one_takes_its_place(slow_pool: Pool) -> None:
    call = slow_request_in_flight(slow_pool, 50.0)
    assert len(slow_pool.processes()) >= 4
    slow_pool.child.kill()
    assert slow_pool.child.wait(STOP_WITHIN_S) == -signal.SIGKILL
    eventually(lambda: not slow_pool.processes(), GONE_WITHIN_S, "no orphan is left")
    assert call.exception() is not None
    slow_pool.start()
    slow_pool.wait_open()
    slow_pool.wait_available("half_plus_two")
    assert slow_pool.stop() == 0
    assert_nothing_left(slow_pool)


def test_a_lame_duck_serves_until_a_second_signal(start_pool: StartPool, models: Path) -> None:
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}), "--lame_duck_s=1000")
    pool.wait_available("half_plus_two")
    assert pool.get("/readyz").status == 200
    assert pool.get("/healthz").status == 200
    pool.child.send_signal(signal.SIGTERM)
    page = eventually(lambda: (reply := pool.get("/readyz")).status == 503 and reply, what="not ready")
    assert page.json == {"ready": False, "leaving": True, "missing": {}}
    assert pool.post("/v1/models/half_plus_two:predict", {"instances": [1.0]}).json == {"predictions": [2.5]}
    assert pool.get("/healthz").status == 200
    worker = pool.worker("half_plus_two", 123)["pid"]
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: pool.get("/readyz/half_plus_two").status == 503)
    eventually(lambda: pool.worker("half_plus_two", 123)["state"] == "ready", 20.0, "replaced, since all is served")
    (frontend,) = pool.status()["frontends"]
    os.kill(frontend["pid"], signal.SIGKILL)

    def another_says_so() -> bool:
        with contextlib.suppress(OSError):
            return bool(pool.get("/readyz").json["leaving"])
        return False

    eventually(another_says_so, 20.0, "another frontend is not ready either")
    assert pool.stop() == 0
    assert_nothing_left(pool)
