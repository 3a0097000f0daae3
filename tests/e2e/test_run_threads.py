"""Whether a graph runs in the worker's own thread or in TensorFlow's pool: found out by running it, before it serves.

With one thread inside of an operation, the branches of `branches` are all that can run side by side.
"""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

# A busy machine may hide from a worker what the pool would bring; then the next one has a try.
TRIES = 4
RUNS = 10
BACK_WITHIN_S = 60.0
IN_POOL, IN_THREAD = "in TensorFlow's pool", "in the caller's thread"
_CLOCK_HZ = os.sysconf("SC_CLK_TCK")


def choices(pool: Pool, model: str) -> list[str]:
    """What each worker of a model has chosen, the oldest first."""
    return re.findall(rf"\b{model}\b.*graphs run where=['\"](.*?)['\"]$", pool.log, re.MULTILINE)


def cpu_s(pid: int) -> dict[int, float]:
    """CPU time of each thread (proc_pid_stat(5))."""
    taken = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        user, system = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
        taken[int(task.name)] = (int(user) + int(system)) / _CLOCK_HZ
    return taken


def share_of_own_thread(pool: Pool) -> float:
    """Of the CPU time that some requests take, what the worker's main thread has."""
    pid = pool.worker("branches")["pid"]
    before = cpu_s(pid)
    for _ in range(RUNS):
        assert values(pool.predict(predict_request("branches", {"x": tensor([1.0, 2.0])})).outputs["y"]) == [1.0, 2.0]
    taken = {thread: after - before.get(thread, 0.0) for thread, after in cpu_s(pid).items()}
    return taken[pid] / sum(taken.values())


def start_again(pool: Pool, model: str) -> None:
    worker = pool.worker(model)
    os.kill(worker["pid"], signal.SIGKILL)

    def back() -> bool:
        now = pool.worker(model)
        return now["state"] == "ready" and now["incarnation"] != worker["incarnation"]

    eventually(back, BACK_WITHIN_S, "another worker")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="nothing runs side by side on one CPU")
def test_branches_that_are_heavy_run_side_by_side(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    settings = tmp_path / "pool.toml"
    settings.write_text("[defaults]\nauto_warmup = true\nmax_restarts = 100\n")
    config = model_config({"branches": models / "branches", "sum": models / "sum"})
    pool = start_pool(config, f"--pool_config_file={settings}", "--tensorflow_intra_op_parallelism=1")
    pool.wait_available("branches", "sum")
    while IN_POOL not in choices(pool, "branches") and len(choices(pool, "branches")) < TRIES:
        start_again(pool, "branches")
    assert choices(pool, "branches")[-1] == IN_POOL, choices(pool, "branches")
    assert share_of_own_thread(pool) < 0.5
    assert choices(pool, "sum") == [IN_THREAD], "one addition is not worth another thread"


def test_without_a_warmup_there_is_nothing_to_go_by(start_pool: StartPool, models: Path) -> None:
    pool = start_pool(model_config({"branches": models / "branches"}), "--tensorflow_intra_op_parallelism=1")
    pool.wait_available("branches")
    assert choices(pool, "branches") == []
    assert share_of_own_thread(pool) > 0.9
