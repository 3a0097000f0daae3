"""Under load the threads that a request crosses wait for each other, by the policy that the kernel has for them."""

import contextlib
import os
import threading
from collections.abc import Iterator
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
    found: list[bool] = []
    for thread in thread_priority.named(pid, *beginnings):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            found.append(os.sched_getscheduler(thread) == os.SCHED_BATCH)
    return found


@contextlib.contextmanager
def _on_two_cpus() -> Iterator[None]:
    """For what is started meanwhile. Where each thread has a CPU for itself, requests may come one at a time."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(own)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def test_frontends_and_workers_under_load(start_pool: StartPool, models: Path, engine: str) -> None:
    if engine != "envoy":
        pytest.skip("grpcio's threads wait for their polls, not for each other")
    if cpu_count.binding_quota() is not None:
        pytest.skip("not done within a quota")
    with _on_two_cpus():
        pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}))
    pool.wait_available("half_plus_two")
    (frontend,) = [each["pid"] for each in pool.status()["frontends"]]
    worker = pool.worker("half_plus_two", 123)["pid"]
    # Its start, and whoever asks whether it has started, may keep a frontend busy for a moment.
    eventually(lambda: not any(_batch(frontend, "") + _batch(worker, "")), 30.0, "at rest none has it")
    seen = {"frontend": False, "worker": False}

    def both() -> bool:
        envoys, zmqs = _batch(frontend, "wrk:"), _batch(frontend, "ZMQbg/IO")
        seen["frontend"] |= bool(envoys and zmqs) and all(envoys + zmqs)
        zmqs = _batch(worker, "ZMQbg/IO")
        seen["worker"] |= os.sched_getscheduler(worker) == os.SCHED_BATCH and bool(zmqs) and all(zmqs)
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
