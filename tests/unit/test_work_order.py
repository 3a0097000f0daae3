"""Whose turn it is among requests that may share runs, or not: nobody is overtaken, and nobody waits for ever."""

from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.worker_spec import Batching
from modelpool.worker.batched_work import Batched
from modelpool.worker.batching import AutoBatcher, Batcher
from modelpool.worker.executor import Executor
from modelpool.worker.jobs import Task
from modelpool.worker.learned_limit import LearnedLimit
from modelpool.worker.plan import Plan
from modelpool.worker.work import Work
from tests.unit.work_world import Bench, plan

APART = 3  # columns of what cannot share a run


class Crowd:
    """Clients whose requests may share runs, or not, at a worker: whoever has an answer may ask again.

    `overtaken`: for each request, how many runs it waited for in which nobody was who came before it was planned, or
    while its batch was not due.
    """

    def __init__(self, desk: Bench, timeout_ns: int) -> None:
        self.desk = desk
        self.overtaken: list[int] = []
        self._timeout_ns = timeout_ns
        self._came_ns: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._unplanned: deque[int] = deque()
        desk.executor._planners = {Method.PREDICT: self._plan}

    def ask(self, columns: int) -> None:
        number = len(self._came_ns)
        self._came_ns[number] = self.desk.now_ns
        self._unplanned.append(number)
        self.desk.ask(number, bytes([columns, *[1] * columns]))

    def _plan(self, payload: bytes) -> Plan:
        columns = payload[0]
        patience_ns = 0 if columns == APART else self._timeout_ns
        self._waiting[self._unplanned.popleft()] = self.desk.now_ns + patience_ns
        return plan(payload)

    def run(self, took_ns: int) -> int:
        """How many had an answer."""
        job = self.desk.next()
        if job is None:
            return 0
        mine = [part.task.request.request_id for part in job.parts]
        first_ns = min(self._came_ns[number] for number in mine)
        overtakes = [number for number, due_ns in self._waiting.items() if number not in mine and first_ns > due_ns]
        self.overtaken += overtakes
        for number in mine:
            del self._waiting[number]
        self.desk.now_ns += took_ns
        self.desk.execute(job)
        return len(mine)


def fair_works(timeout_ns: int) -> list[Callable[[Executor], Work]]:
    """The second has other limits, so that batches are full or not."""

    def family(planned: Plan) -> Any:
        assert planned.feeds is not None
        return None if planned.feeds["x"].shape[1] == APART else planned.signatures

    def auto_batched(executor: Executor) -> Work:
        limit = LearnedLimit()
        return Batched(executor, AutoBatcher[Task](lambda _: limit, lambda *_: None), family)

    def by_flags(executor: Executor) -> Work:
        return Batched(executor, Batcher(Batching(max_batch_size=3, batch_timeout_micros=timeout_ns // 1000)), family)

    return [auto_batched, by_flags]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, APART), max_size=5), st.integers(1, 9000)), min_size=1, max_size=60),
    st.integers(0, 1),
    st.sampled_from([0, 4000]),
)
def test_nobody_is_overtaken_by_those_who_come_later(
    arrivals: list[tuple[list[int], int]], which: int, timeout_ns: int
) -> None:
    with closing(Bench(fair_works(timeout_ns)[which])) as desk:
        crowd = Crowd(desk, timeout_ns if which else 0)
        for columns, took_ns in arrivals:
            for each in columns:
                crowd.ask(each)
            crowd.run(took_ns)
            desk.now_ns += 1
        assert crowd.overtaken == []


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("flood", "patient"), [(APART, 1), (1, APART), (1, 2)])
def test_a_flood_keeps_nobody_from_ever_running(which: int, flood: int, patient: int) -> None:
    with closing(Bench(fair_works(1000)[which])) as desk:
        crowd = Crowd(desk, 1000)
        for number in range(30):
            crowd.ask(flood)
            if number == 5:
                crowd.ask(patient)
        runs = 0
        while 6 not in desk.answers and runs < 100:
            for _ in range(crowd.run(1000)):
                crowd.ask(flood)
            runs += 1
        assert runs <= 32, "as many as came before it, and one while its batch was not due"
