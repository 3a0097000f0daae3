"""What a pool costs beside its models, which are next to nothing here: memory of its processes, time at the start."""

import re
import time
from pathlib import Path

import pytest

from tests.e2e.pool import StartPool, model_config, predict_request, starting_pool
from tests.e2e.tensor_proto import tensor, values

SUPERVISOR_RSS_MB = 60
FRONTEND_RSS_MB = 120
SECOND_WORKER_PSS_MB = 100
START_BEYOND_IMPORT_S = 1.5
# A machine may be busy with something else for a while.
START_TRIES = 3


def memory_mb(pid: int, kind: str) -> float:
    """`Rss` or `Pss` of a process (proc_pid_smaps(5)), in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == kind:
            return int(value.removesuffix("kB")) * 1024 / 1e6
    raise AssertionError(f"no {kind} in smaps_rollup of {pid}")


@pytest.mark.alone
def test_memory(start_pool: StartPool, models: Path) -> None:
    pool = start_pool(model_config({name: models / name for name in ("half_plus_two", "sum")}))
    pool.wait_available("half_plus_two", "sum")
    for _ in range(100):
        reply = pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])}))
        assert values(reply.outputs["y"]) == [2.5]
        assert pool.post("/v1/models/sum:predict", {"inputs": {"a": 1.0, "b": 2.0}}).json == {
            "outputs": {"total": 3.0, "product": 2.0}
        }
    status = pool.status()
    (frontend,) = status["frontends"]
    assert status["supervisor"]["pid"] == pool.pid
    assert memory_mb(pool.pid, "Rss") < SUPERVISOR_RSS_MB
    assert memory_mb(frontend["pid"], "Rss") < FRONTEND_RSS_MB
    second = max((pool.worker("half_plus_two", 123), pool.worker("sum")), key=lambda worker: worker["incarnation"])
    assert memory_mb(second["pid"], "Pss") < SECOND_WORKER_PSS_MB


@pytest.mark.alone
def test_the_start_costs_little_more_than_tensorflows_import(models: Path) -> None:
    """From the command to the first answer."""
    beyond_s = []
    for _ in range(START_TRIES):
        began_s = time.monotonic()
        with starting_pool(model_config({"half_plus_two": models / "half_plus_two"})) as pool:
            pool.wait_open()
            assert values(pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])})).outputs["y"]) == [2.5]
            took_s = time.monotonic() - began_s
            (import_s,) = re.findall(r"tensorflow imported seconds=([0-9.]+)", pool.log)
        beyond_s.append(took_s - float(import_s))
        if beyond_s[-1] < START_BEYOND_IMPORT_S:
            return
    raise AssertionError(f"beyond the import: {beyond_s} s")
