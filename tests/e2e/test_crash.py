"""Workers that are killed come back by themselves, and nobody else notices."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

ROWS = [[0.5] * 15]
BACK_WITHIN_S = 10.0
# How much longer than before the kill a neighbour's slowest request may be, by whichever of the two is more.
SLOWER_BY_FACTOR, SLOWER_BY_S = 3.0, 0.25
# Neighbours are watched for this many answers before the kill: enough to meet the machine's own hiccups.
ANSWERS_BEFORE = 500


def ask_dense(pool: Pool, version: int) -> Any:
    return pool.predict(predict_request("dense", {"inputs": tensor(ROWS)}, version=version))


def ask_half_plus_two(pool: Pool) -> Any:
    return values(pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])})).outputs["y"])


@dataclass
class Record:
    """What a client that asks without pause has seen."""

    answers: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def slowest_since_asked(self) -> float:
        """Seconds of the slowest request since this was asked last."""
        slowest_s, self.slowest_s = self.slowest_s, 0.0
        return slowest_s


@contextmanager
def asking_without_pause(pool: Pool, request: Any) -> Iterator[Record]:
    """A client in a thread of its own, from here to the end of the block."""
    record = Record()

    def ask(stop: threading.Event) -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                pool.predict(request)
            except grpc.RpcError as error:
                record.failures.append(f"{error.code()}: {error.details()}")
            record.answers += 1
            record.slowest_s = max(record.slowest_s, time.monotonic() - started)

    with beside(ask):
        eventually(lambda: record.answers >= ANSWERS_BEFORE, 60.0, "the client is at work")
        yield record


def back(pool: Pool, name: str, version: int, old_pid: int) -> Any:
    """The worker once it is another process and ready."""

    def worker() -> Any:
        now = pool.worker(name, version)
        return now if now["pid"] not in (None, old_pid) and now["state"] == "ready" else None

    return eventually(worker, BACK_WITHIN_S, f"{name} {version} is back")


@pytest.mark.alone
def test_dense_comes_back_and_the_others_never_fail(pool: Pool) -> None:
    # One that has answered nobody, and dies as soon as it is ready, is not started again at once.
    assert values(ask_dense(pool, 2).outputs["output_0"])
    before = pool.worker("dense", 2)
    others = {(name, v): pool.worker(name, v)["pid"] for name, v in [("dense", 1), ("demo", 1), ("half_plus_two", 123)]}
    with (
        asking_without_pause(pool, predict_request("half_plus_two", {"x": tensor([1.0])})) as half,
        asking_without_pause(pool, predict_request("dense", {"inputs": tensor(ROWS)}, version=1)) as sibling,
    ):
        neighbours = (half, sibling)
        quiet_s = [record.slowest_since_asked() for record in neighbours]
        killed_at = time.monotonic()
        os.kill(before["pid"], signal.SIGKILL)
        after = back(pool, "dense", 2, before["pid"])
        assert values(ask_dense(pool, 2).outputs["output_0"])
        took_s = time.monotonic() - killed_at
        answered = half.answers
        eventually(lambda: half.answers > answered + 20)
        disturbed_s = [record.slowest_since_asked() for record in neighbours]
    assert half.failures == []
    assert sibling.failures == []
    for quiet, disturbed in zip(quiet_s, disturbed_s, strict=True):
        assert disturbed < max(SLOWER_BY_FACTOR * quiet, quiet + SLOWER_BY_S)
    # "Within load time + 0.5 s", and what this machine adds to any request while nothing has happened.
    assert took_s < after["load_s"] + after["warmup_s"] + 0.5 + max(quiet_s)
    assert after["restarts"] == before["restarts"] + 1
    assert after["incarnation"] != before["incarnation"]
    assert after["last_exit"]["signal"] in (9, "SIGKILL")
    assert "SIGKILL" in after["last_exit"]["cause"]
    assert {(name, v): pool.worker(name, v)["pid"] for name, v in others} == others
    assert pool.versions("dense") == {2: "AVAILABLE", 1: "AVAILABLE"}


def test_a_request_while_the_worker_is_away_waits_for_the_next(pool: Pool) -> None:
    right = values(ask_dense(pool, 2).outputs["output_0"])
    for _ in range(3):
        pid = pool.worker("dense", 2)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert values(ask_dense(pool, 2).outputs["output_0"]) == right
        assert pool.worker("dense", 2)["pid"] not in (None, pid)


def test_clients_of_a_worker_that_is_killed_under_load_see_only_latency(pool: Pool) -> None:
    with asking_without_pause(pool, predict_request("half_plus_two", {"x": tensor([1.0])})) as record:
        for _ in range(3):
            pid, answers = pool.worker("half_plus_two", 123)["pid"], record.answers
            os.kill(pid, signal.SIGKILL)
            back(pool, "half_plus_two", 123, pid)
            eventually(lambda before=answers: record.answers > before + 20, BACK_WITHIN_S, "it answers again")
    assert record.failures == []


def test_two_workers_killed_in_the_same_instant(pool: Pool) -> None:
    dense, half = pool.worker("dense", 1)["pid"], pool.worker("half_plus_two", 123)["pid"]
    os.kill(dense, signal.SIGKILL)
    os.kill(half, signal.SIGKILL)
    assert back(pool, "dense", 1, dense)["restarts"] == 1
    assert back(pool, "half_plus_two", 123, half)["restarts"] == 1
    assert ask_half_plus_two(pool) == [2.5]
    assert values(ask_dense(pool, 1).outputs["output_0"])


def test_all_workers_killed_in_the_same_instant(pool: Pool) -> None:
    pids = {
        (model["name"], version["version"]): version["workers"][0]["pid"]
        for model in pool.status()["models"]
        for version in model["versions"]
    }
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    for (name, version), pid in pids.items():
        back(pool, name, version, pid)
    assert ask_half_plus_two(pool) == [2.5]


def test_a_worker_killed_again_and_again_comes_back_each_time(pool: Pool) -> None:
    for restarts in (1, 2, 3):
        pid = pool.worker("half_plus_two", 123)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert back(pool, "half_plus_two", 123, pid)["restarts"] == restarts
        assert ask_half_plus_two(pool) == [2.5]


def test_what_it_was_executing_is_told_at_once(start_pool: StartPool, models: Any, tmp_path: Path) -> None:
    rules = tmp_path / "pool.toml"
    rules.write_text('[models.slow]\nretry_on_crash = "never"\n')
    config = model_config({"slow": models / "slow", "half_plus_two": models / "half_plus_two"})
    pool = start_pool(config, f"--pool_config_file={rules}")
    pool.wait_available("slow", "half_plus_two")
    slow = predict_request("slow", {"seconds": tensor(20.0, "float64")})
    running = pool.stub().Predict.future(slow, timeout=60)
    eventually(lambda: pool.worker("slow")["in_flight"] == 1, what="the slow request is at its worker")
    pid = pool.worker("slow")["pid"]
    killed_at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as caught:
        running.result()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == (
        "The worker of model slow version 1 died while it executed this request (killed by SIGKILL); it was not tried "
        'again: retry_on_crash is "never"'
    )
    assert time.monotonic() - killed_at < 5.0
    back(pool, "slow", 1, pid)
    (report,) = eventually(pool.crash_reports, what="its crash report is there")
    assert (report["model"], report["pid"], report["kind"], report["signal"]) == ("slow", pid, "signal", 9)
    (executing,) = report["executing"]
    assert (executing["method"], executing["began_s_before"] > 0) == ("PREDICT", True)


def test_the_fork_server_s_death_kills_nobody(pool: Pool) -> None:
    status = pool.status()
    known = {status["supervisor"]["pid"]} | {frontend["pid"] for frontend in status["frontends"]}
    workers = {
        worker["pid"] for model in status["models"] for version in model["versions"] for worker in version["workers"]
    }
    (fork_server,) = {process.pid for process in pool.processes()} - known - workers
    os.kill(fork_server, signal.SIGKILL)
    assert ask_half_plus_two(pool) == [2.5]
    pid = pool.worker("dense", 2)["pid"]
    os.kill(pid, signal.SIGKILL)

    def dense_is_back() -> bool:
        now = pool.worker("dense", 2)
        return now["pid"] not in (None, pid) and now["state"] == "ready"

    eventually(dense_is_back, 40.0, "a new fork server has forked dense again")
    assert {worker for worker in workers if worker != pid} <= {process.pid for process in pool.processes()}
    assert not psutil.pid_exists(fork_server) or psutil.Process(fork_server).status() == psutil.STATUS_ZOMBIE
