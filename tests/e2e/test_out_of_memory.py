"""The kernel has no memory left for a pool: it ends the worker that took it, and nobody else notices.

The memory that runs out is that of a control group, where one can be had; the kernel and its killer are the real ones.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from memory_group import MemoryGroup, NoGroup

from tests import kernel_log
from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import MODELPOOL, Pool, model_config, predict_request, refusal, running_pool
from tests.e2e.tensor_proto import tensor, values

LIMIT_MIB = 2048
# Far more than the group has, in one piece.
TOO_MUCH_MIB = 4 * LIMIT_MIB - 1
BACK_WITHIN_S = 60.0
# By its log, where that may be read and names our pids; else by its count, which is less sure.
CAUSE = (
    "killed by SIGKILL by the kernel: out of memory"
    if kernel_log.names_our_pids()
    else "killed by SIGKILL: probably by the kernel, which has just killed for lack of memory"
)
RunsOut = tuple[Pool, MemoryGroup]


@pytest.fixture
def runs_out(models: Path) -> Iterator[RunsOut]:
    """A pool in a group of its own."""
    config = model_config({"leaky": models / "leaky", "half_plus_two": models / "half_plus_two"})
    try:
        with MemoryGroup.made(LIMIT_MIB << 20) as group:
            entering = f'echo $$ > {group.path}/cgroup.procs && exec "$@"'
            with running_pool(config, program=("/bin/sh", "-c", entering, "sh", str(MODELPOOL))) as pool:
                pool.wait_available("leaky", "half_plus_two")
                yield pool, group
    except NoGroup as reason:
        pytest.skip(str(reason))


def kept_after(pool: Pool, mib: int) -> Any:
    """Have the worker take so much more; how many pieces it has then."""
    return values(pool.predict(predict_request("leaky", {"mib": tensor(mib, "int32")})).outputs["kept"])


@dataclass(slots=True)
class Neighbour:
    """A client of another model."""

    pool: Pool
    answers: int = 0
    errors: list[grpc.RpcError] = field(default_factory=list)

    def ask(self, over: threading.Event) -> None:
        while not over.is_set():
            try:
                reply = self.pool.predict(predict_request("half_plus_two", {"x": tensor([1.0])}))
                assert values(reply.outputs["y"]) == [2.5]
                self.answers += 1
            except grpc.RpcError as error:
                self.errors.append(error)


def others(pool: Pool) -> dict[str, Any]:
    """The processes that must live on."""
    status = pool.status()
    return {
        "supervisor": status["supervisor"]["pid"],
        "fork server": status["supervisor"]["fork_server_pid"],
        "frontends": [frontend["pid"] for frontend in status["frontends"]],
        "neighbour": pool.worker("half_plus_two", 123)["pid"],
    }


def told_of(pool: Pool) -> list[dict[str, Any]]:
    return [report for report in pool.crash_reports() if report["model"] == "leaky"]


def is_back(pool: Pool, gone: int) -> Callable[[], bool]:
    def back() -> bool:
        worker = pool.worker("leaky")
        return worker["state"] == "ready" and worker["pid"] != gone

    return back


def test_a_request_that_takes_all_memory(runs_out: RunsOut) -> None:
    """It is tried once more, alone, and then known to be what kills."""
    pool, group = runs_out
    before, worker = others(pool), pool.worker("leaky")["pid"]
    neighbour = Neighbour(pool)
    with beside(neighbour.ask):
        code, text = refusal(lambda: kept_after(pool, TOO_MUCH_MIB))
        eventually(is_back(pool, worker), BACK_WITHIN_S, "another worker")
    assert code is grpc.StatusCode.FAILED_PRECONDITION, text
    assert CAUSE in text
    assert group.kills == 2
    assert [report["kind"] for report in told_of(pool)] == ["oom_killed"] * 2
    assert pool.worker("leaky")["last_exit"]["kind"] == "oom_killed"
    assert neighbour.errors == []
    assert neighbour.answers > 0
    assert others(pool) == before
    assert kept_after(pool, 1) == 1


def test_a_worker_that_has_grown_bit_by_bit(runs_out: RunsOut) -> None:
    """The request during which the kernel ends it is innocent, and answered by the next one."""
    pool, group = runs_out
    before, worker = others(pool), pool.worker("leaky")["pid"]
    piece_mib = LIMIT_MIB // 16
    neighbour = Neighbour(pool)
    with beside(neighbour.ask):
        kept = [kept_after(pool, piece_mib) for _ in range(16)]
        eventually(is_back(pool, worker), BACK_WITHIN_S, "another worker")
    assert group.kills == 1
    assert kept[0] == 1
    assert kept.count(1) == 2, "begun afresh once, by the next worker, with the request that was under way"
    (report,) = told_of(pool)
    assert (report["kind"], report["signal"], report["cause"]) == ("oom_killed", 9, CAUSE)
    assert neighbour.errors == []
    assert neighbour.answers > 0
    assert others(pool) == before
