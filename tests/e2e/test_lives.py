"""Workers that hang, stand still or leak are found and replaced, by hand without a gap; a death leaves its report."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import MODELPOOL, Pool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

RUN_TIMEOUT_S = 2.0
LIMIT_MIB = 400
STEP_MIB = 40
MIB = 1 << 20
# What a machine that is busy with other tests may add.
SLACK_S = 6.0
NAMES = ("half_plus_two", "slow", "leaky")


@pytest.fixture(scope="module")
def pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool_file = tmp_path_factory.mktemp("lives") / "pool.toml"
    pool_file.write_text(
        f"[models.slow]\nrun_timeout_s = {RUN_TIMEOUT_S}\n[models.leaky]\nhost_memory_mb = {LIMIT_MIB}\n"
    )
    config = model_config({name: models / name for name in NAMES})
    with running_pool(config, f"--pool_config_file={pool_file}") as running:
        running.wait_available(*NAMES)
        yield running


def main_worker(pool: Pool, name: str) -> Any:
    """The worker that serves, or will; there may be a second one for a while."""
    (version,) = pool.model(name)["versions"]
    return next(worker for worker in version["workers"] if worker["role"] == "main")


def replaced(pool: Pool, name: str, old_pid: int) -> Any:
    def worker() -> Any:
        now = main_worker(pool, name)
        return now if now["state"] == "ready" and now["pid"] != old_pid else None

    return eventually(worker, 30.0, f"another worker serves {name}")


def report_of(pool: Pool, pid: int) -> Any:
    return eventually(
        lambda: next((each for each in pool.crash_reports() if each["pid"] == pid), None), what="the crash report"
    )


@contextlib.contextmanager
def asking(pool: Pool, request: Any) -> Iterator[list[str]]:
    """A client that asks without pause to the end of the block, and what failed."""
    failures: list[str] = []

    def ask(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                pool.predict(request)
            except grpc.RpcError as error:
                failures.append(f"{error.code()}: {error.details()}")

    with beside(ask):
        yield failures


def modelpool(pool: Pool, *arguments: str) -> str:
    command = [str(MODELPOOL), *arguments, f"--runtime_dir={pool.runtime_dir}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def half() -> Any:
    return predict_request("half_plus_two", {"x": tensor([1.0])})


def test_an_execution_over_its_time_is_ended_and_its_stacks_are_kept(pool: Pool) -> None:
    pid = main_worker(pool, "slow")["pid"]
    running = pool.stub().Predict.future(predict_request("slow", {"seconds": tensor(60.0, "float64")}), timeout=60)
    with asking(pool, half()) as failures:
        report = report_of(pool, pid)
        running.cancel()
        replaced(pool, "slow", pid)
    assert (report["kind"], report["signal"]) == ("hang", signal.SIGKILL)
    assert "one execution took longer than run_timeout_s = 2 s" in report["cause"]
    assert "executor.py" in report["stack"], "where the main thread was, and the others"
    (executing,) = report["executing"]
    assert RUN_TIMEOUT_S <= executing["began_s_before"] <= RUN_TIMEOUT_S + 1.5 + SLACK_S
    assert failures == []


def test_one_that_stands_still_is_found_though_it_executes_nothing(pool: Pool) -> None:
    pid = main_worker(pool, "slow")["pid"]
    stopped_s = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    report = report_of(pool, pid)
    assert time.monotonic() - stopped_s <= RUN_TIMEOUT_S + 1.5 + SLACK_S
    assert report["kind"] == "hang"
    assert "no heartbeat for" in report["cause"]
    assert "session.py" in report["stack"]
    replaced(pool, "slow", pid)
    listed = modelpool(pool, "crashes", "--model=slow")
    assert "no heartbeat for" in listed
    assert "-- stack" in modelpool(pool, "crashes", "show", report["id"])


def test_a_restart_by_hand_fails_no_request(pool: Pool) -> None:
    before = main_worker(pool, "half_plus_two")
    with asking(pool, half()) as failures:
        said = modelpool(pool, "restart", "half_plus_two")
        after = replaced(pool, "half_plus_two", before["pid"])
        eventually(lambda: len(pool.model("half_plus_two")["versions"][0]["workers"]) == 1, what="the old one is gone")
    assert failures == []
    assert f"pid {after['pid']} serves" in said
    assert after["restarts"] == before["restarts"] + 1


def used_mib(pool: Pool) -> float:
    memory = main_worker(pool, "leaky")["memory"]
    return 0.0 if memory is None else float(memory["used_bytes"]) / MIB


def leak(pool: Pool, mib: int) -> list[Any]:
    return values(pool.predict(predict_request("leaky", {"mib": tensor(mib, "int32")})).outputs["kept"])


def test_a_leaking_worker_is_replaced_before_it_hits_the_wall(pool: Pool) -> None:
    before = eventually(lambda: main_worker(pool, "leaky") if used_mib(pool) else None, what="its memory is known")
    with asking(pool, predict_request("leaky", {"mib": tensor(0, "int32")})) as failures:

        def leaked() -> bool:
            known = used_mib(pool)
            if known < 0.8 * LIMIT_MIB:
                leak(pool, STEP_MIB)
            eventually(
                lambda: used_mib(pool) >= known + 0.8 * STEP_MIB or main_worker(pool, "leaky")["pid"] != before["pid"]
            )
            return bool(main_worker(pool, "leaky")["pid"] != before["pid"])

        eventually(leaked, 40.0, "it is replaced")
    assert failures == []
    after = replaced(pool, "leaky", before["pid"])
    assert after["restarts"] == before["restarts"] + 1
    eventually(lambda: 0 < used_mib(pool) < LIMIT_MIB / 2, what="the fresh one is small")
    assert [each for each in pool.crash_reports() if each["model"] == "leaky"] == []


def test_one_that_goes_over_its_limit_at_once_is_killed(pool: Pool) -> None:
    pid = main_worker(pool, "leaky")["pid"]
    running = pool.stub().Predict.future(predict_request("leaky", {"mib": tensor(LIMIT_MIB + 50, "int32")}), timeout=60)
    report = report_of(pool, pid)
    running.cancel()
    assert (report["kind"], report["code"]) == ("memory_limit", None)
    assert f"over its memory limit of {LIMIT_MIB} MiB" in report["cause"]
    assert report["peak_rss_bytes"] > LIMIT_MIB * MIB
    replaced(pool, "leaky", pid)
