"""Under load the threads that a request crosses wait for each other, by the policy that the kernel has for them."""

import os
import threading
from pathlib import Path

import pytest

from modelpool.supervisor.wire import cpu_count, thread_priority
from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values

_AT_ONCE = 64


def _batch(pid: int, *beginnings: str) -> list[bool]:
    """Of each thread of a process whose name begins so, whether it has the policy."""
    return [os.sched_getscheduler(thread) == os.SCHED_BATCH for thread in thread_priority.named(pid, *beginnings)]


def test_frontends_and_workers_under_load(start_pool: StartPool, models: Path, engine: str) -> None:
    if engine != "envoy":
        pytest.skip("grpcio's threads wait for their polls, not for each other")
    if cpu_count.binding_quota() is not None:
        pytest.skip("not done within a quota")
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}))
    pool.wait_available("half_plus_two")
    (frontend,) = [each["pid"] for each in pool.status()["frontends"]]
    worker = pool.worker("half_plus_two", 123)["pid"]
    assert not any(_batch(frontend, "") + _batch(worker, ""))
    seen = {"frontend": False, "worker": False}

    def both() -> bool:
        seen["frontend"] |= all(_batch(frontend, "wrk:", "ZMQbg/IO"))
        seen["worker"] |= all([os.sched_getscheduler(worker) == os.SCHED_BATCH, *_batch(worker, "ZMQbg/IO")])
        return all(seen.values())

    with beside(lambda stop: _bursts(pool, stop)):
        eventually(both, 30.0, f"policies {seen}")
        others = sum(_batch(worker, ""))
    assert others <= 2, "those that compute are not among them"


def _bursts(pool: Pool, stop: threading.Event) -> None:
    stub, request = pool.stub(), predict_request("half_plus_two", {"x": tensor([1.0])})
    while not stop.is_set():
        calls = [stub.Predict.future(request, timeout=30) for _ in range(_AT_ONCE)]
        assert [values(call.result().outputs["y"]) for call in calls] == [[2.5]] * _AT_ONCE
