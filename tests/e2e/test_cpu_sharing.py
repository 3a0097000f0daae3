"""A real worker that gives way on the CPUs: which of its threads do, and that it is heard of nevertheless."""

import os
from pathlib import Path

import pytest

from modelpool.supervisor.cpu_watch import Way, set_way_of
from modelpool.supervisor.wire import thread_priority
from tests.e2e.pool import StartPool, model_config, predict_request
from tests.e2e.tensor_proto import tensor, values


def test_all_threads_give_way_but_those_that_say_that_it_lives(start_pool: StartPool, models: Path) -> None:
    if thread_priority.why_no_way_back():
        pytest.skip("needs the privilege to come back")
    pool = start_pool(model_config({"half_plus_two": models / "half_plus_two"}))
    pool.wait_available("half_plus_two")
    pid = pool.worker("half_plus_two", 123)["pid"]
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    spared = thread_priority.named(pid, "control", "ZMQbg/")
    assert len(thread_priority.named(pid, "control")) == 1
    assert len(spared) >= 2, "and ZeroMQ's"
    assert set_way_of(pid, Way.IDLE, os.getpriority(os.PRIO_PROCESS, pid))
    for thread in threads:
        assert (os.sched_getscheduler(thread) == os.SCHED_OTHER) == (thread in spared), thread
    assert pool.worker("half_plus_two", 123)["idle_priority"]
    assert values(pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])})).outputs["y"]) == [2.5]
