"""Two replicas of a model: both serve, one dies under load, and the pool's file says how many there are."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request, refusal
from tests.e2e.tensor_proto import tensor

CLIENTS = 4
WITHIN_S = 30.0


def pool_file(replicas: int) -> str:
    return f"""
        [models.half_plus_two]
        devices = "cpu"
        replicas = {replicas}
        divide_cpus = true
        [models.dense]
        devices = ["gpu:0", "GPU-00000000"]
        """


def workers(pool: Pool) -> list[Any]:
    """The workers of the model that are ready."""
    (version,) = pool.model("half_plus_two")["versions"]
    assert version["state"] == "AVAILABLE"
    return [worker for worker in version["workers"] if worker["state"] == "ready"]


def assert_cpus_are_divided(pool: Pool) -> None:
    """Each worker has CPUs of its own, and together they have all."""
    first, second = (os.sched_getaffinity(worker["pid"]) for worker in workers(pool))
    own = os.sched_getaffinity(0)
    assert first | second == own
    assert not first & second or len(own) == 1


@contextmanager
def clients(pool: Pool) -> Iterator[list[str]]:
    """Several clients that ask without pause; yields what they could not have answered."""
    failures: list[str] = []

    def ask(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])}))
            except grpc.RpcError as error:
                failures.append(f"{error.code()}: {error.details()}")

    with beside(*[ask] * CLIENTS):
        yield failures


def test_replicas(models: Path, start_pool: StartPool, tmp_path: Path) -> None:
    path = tmp_path / "pool.toml"
    path.write_text(pool_file(2), "utf-8")
    config = model_config({name: models / name for name in ("half_plus_two", "dense")})
    pool = start_pool(config, f"--pool_config_file={path}", "--model_config_file_poll_wait_seconds=1")
    eventually(lambda: len(workers(pool)) == 2, WITHIN_S, "two workers")
    assert sorted(worker["replica"] for worker in workers(pool)) == [0, 1]
    assert_cpus_are_divided(pool)

    code, text = refusal(lambda: pool.predict(predict_request("dense", {"inputs": tensor([[0.5] * 15])})))
    why = "dense/2: devices names gpu:0, GPU-00000000; this host has cpu"
    assert (code, why in text) == (grpc.StatusCode.NOT_FOUND, False)
    (status,) = pool.model_status("dense").model_version_status
    assert (status.State.Name(status.state), status.status.error_message) == ("END", why)

    with clients(pool) as failures:
        served = {worker["pid"]: worker["served"] for worker in workers(pool)}
        eventually(
            lambda: all(worker["served"] > served[worker["pid"]] + 20 for worker in workers(pool)),
            WITHIN_S,
            "both serve",
        )
        killed, kept = workers(pool)
        os.kill(killed["pid"], signal.SIGKILL)
        eventually(
            lambda: len({worker["pid"] for worker in workers(pool)} - {killed["pid"]}) == 2, WITHIN_S, "it is back"
        )
        assert_cpus_are_divided(pool)
        (new,) = (worker for worker in workers(pool) if worker["pid"] != kept["pid"])
        eventually(
            lambda: all(w["served"] > new["served"] + 20 for w in workers(pool) if w["pid"] == new["pid"]), WITHIN_S
        )
        path.write_text(pool_file(1), "utf-8")
        eventually(lambda: len(workers(pool)) == 1, WITHIN_S, "one worker")
    assert failures == []
    assert [worker["replica"] for worker in workers(pool)] == [0]
