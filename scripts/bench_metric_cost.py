"""What the metrics of one request cost of CPU time, in this process alone: prints microseconds as JSON.

The code of the pool on made-up requests, again and again, by the CPU time of the thread; the least of several rounds,
since whatever disturbs one only adds to it. `worker`: a request that was answered, its stages included; `frontend`: the
same for one that came by gRPC; `stamps`: the readings of the clock that are there for the stages alone.
"""

import json
import sys
import time
from collections.abc import Callable

import modelpool.supervisor.wire.protos  # noqa: F401
from modelpool.frontend.metrics import GRPC, RequestMetrics
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.status import Code
from modelpool.worker.jobs import Task
from modelpool.worker.metrics import WorkerMetrics
from modelpool.worker.request_queue import Request

_REQUESTS = 50_000
_ROUNDS = 7
_TASKS = 256
_STAMPS = 3  # sent, planned, finished


def worker() -> Callable[[int], None]:
    metrics = WorkerMetrics(Registry(), "m", 1, "/models/m/1", "cpu#0")
    tasks = [_task(number) for number in range(_TASKS)]

    def count(number: int) -> None:
        metrics.finished(tasks[number % _TASKS])

    return count


def _task(number: int) -> Task:
    request = Request(b"", 1, number, 0, 1_000_000, 1_010_000, Method.PREDICT, False, b"")
    task = Task(request, Code.OK, b"", began_ns=1_020_000, planned_ns=1_030_000, signatures=("serving_default",))
    task.run_ns, task.ran_ns = 1_031_000, 1_050_000 + number * 1000
    task.finish_ns, task.ended_ns = 1_500_000, 1_510_000
    return task


def frontend() -> Callable[[int], None]:
    metrics = RequestMetrics(lambda name: True)
    started_ns = time.monotonic_ns()
    return lambda number: metrics.finished(GRPC, "Predict", "m", Code.OK, started_ns)


def stamps() -> Callable[[int], None]:
    def read(_: int) -> None:
        for _ in range(_STAMPS):
            time.monotonic_ns()

    return read


def cost_us(call: Callable[[int], None]) -> float:
    """Of one call."""
    return min(_round_us(call) for _ in range(_ROUNDS))


def _round_us(call: Callable[[int], None]) -> float:
    numbers = range(_REQUESTS)
    began_ns = time.thread_time_ns()
    for number in numbers:
        call(number)
    called_ns = time.thread_time_ns()
    for _ in numbers:
        pass
    loop_ns = time.thread_time_ns() - called_ns
    return (called_ns - began_ns - loop_ns) / _REQUESTS / 1000


def main() -> int:
    kinds = {"worker": worker, "frontend": frontend, "stamps": stamps}
    print(json.dumps({name: cost_us(make()) for name, make in kinds.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
