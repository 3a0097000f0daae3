"""What is executed next: requests of the queue by themselves, or put together by a batcher. Main thread of the worker.

Decides by `batching`, plans by `executor`, and knows neither sockets nor threads. A request that is to be alone shares
neither a run nor the time of one.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import PoolError

from . import batch_tensors
from .batching import MAX_TASKS, AutoBatcher, Batch, Batcher, Part
from .executor import Executor
from .jobs import EXPIRED, Job, Task
from .plan import Plan
from .request_queue import Request, RequestQueue
from .waiting_tables import WaitingTables

log = logging.getLogger(__name__)

# Requests that go by themselves and wait here, before the rest waits in the queue.
_MAX_SINGLES = 64
# So many families that are not to share runs are known: those of MultiInference are as many as clients think of.
_MAX_APART = 64


class Work(Protocol):
    """`refused` has the tasks that are done without a run; whoever calls `next` or `admit` takes them out."""

    refused: list[Task]

    def takes_tables(self) -> bool:
        """Whether `put_table` is worth asking."""

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        """Take a message of several requests that came just now, as a table; False: they are to be put in the queue."""

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        """Nobody is free: take from the queue what need not wait there."""

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        """What somebody who is free is to run now, while `running` others run something. It has begun."""

    def due_ns(self) -> int | None:
        """When there will be something to run, if nothing comes; None: nothing waits here."""

    def forget(self, gone: Callable[[Request], bool]) -> None:
        """Drop what waits here and nobody awaits any more."""

    def hurry(self) -> None:
        """From now on nothing waits for others to share a run with."""

    def ran(self, job: Job) -> None:
        """A batch was run."""


class Unbatched:
    """One request after the other, in the order of their arrival."""

    def __init__(self, executor: Executor) -> None:
        self.refused: list[Task] = []
        self._executor = executor
        self._alone = False

    def takes_tables(self) -> bool:
        return False

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        return False

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        """They wait in the queue."""

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        first = queue.first()
        if first is None or (running and (first.alone or self._alone)):
            return None
        request = queue.take()
        assert request is not None
        task = self._executor.plan(request)
        if task.done:
            self.refused.append(task)
            return None
        self._alone = request.alone
        job = Job((Part(task, 0, 0),))
        self._executor.begin(job)
        return job

    def due_ns(self) -> int | None:
        return None

    def forget(self, gone: Callable[[Request], bool]) -> None:
        """Nothing waits here."""

    def hurry(self) -> None:
        """Nothing waits for others."""

    def ran(self, job: Job) -> None:
        """Nothing is learned of it."""


class Batched:
    """Requests that can share a run do, as the batcher says; the others go by themselves.

    `family` gives what tells plans apart whose runs cost differently, or None for one that cannot share a run. `pads`:
    inner dimensions may differ. They raise PoolError for what must not be run at all. `at_once`: so many requests may
    be in the flight recorder beside those that are run. `tables`: where requests wait that came together and are alike;
    what is there is older than what is with the batcher.
    """

    def __init__(
        self,
        executor: Executor,
        batcher: Batcher[Task] | AutoBatcher[Task],
        family: Callable[[Plan], Hashable | None],
        *,
        pads: bool = False,
        at_once: int = MAX_TASKS,
        tables: WaitingTables | None = None,
    ) -> None:
        self.refused: list[Task] = []
        self._executor = executor
        self._batcher = batcher
        self._family = family
        self._pads = pads
        self._at_once = at_once
        self._padded = batcher.padded
        self._tables = tables
        self._singles: deque[tuple[int, Part[Task]]] = deque()
        """With what stands for the times at which they came, compared with when a batch is due."""
        self._single_ns = 0
        self._fresh: list[Task] = []
        self._alone = False
        self._apart: dict[Hashable, str] = {}
        """Families that were to share runs, and turned out to have outputs that are no rows, and why; oldest first."""

    def takes_tables(self) -> bool:
        return self._tables is not None

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        # What waits elsewhere came earlier.
        if self._tables is None or self._singles or len(self._batcher):
            return False
        return self._tables.offer(raw, peer, frontend, now_ns, self._apart)

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        self._plan(queue, now_ns)
        self._withdraw_waiting()

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        if self._tables:
            if self._tables.expired(now_ns):
                self._unstack(now_ns)
            elif not (running and self._alone):
                return self._next_of_tables()
        self._plan(queue, now_ns)
        job = None if running and self._alone else self._take(running, now_ns)
        if job is not None:
            self._executor.begin(job)
        self._withdraw_waiting()
        return job

    def _next_of_tables(self) -> Job:
        assert self._tables is not None
        tables = self._tables.take()
        self._alone = False
        job = Job(batched=True, opened_ns=tables[0].began_ns, padded=self._padded, strict=False, tables=tables)
        job.rows = job.filled
        self._executor.begin(job)
        return job

    def _unstack(self, now_ns: int) -> None:
        """What waits as tables waits as single requests from now on."""
        assert self._tables is not None
        for table in self._tables.take_all():
            for request, _ in table.requests():
                self._put(request, now_ns)
        self._withdraw_waiting()

    def due_ns(self) -> int | None:
        if self._tables:
            return self._tables.due_ns()
        return self._singles[0][0] if self._singles else self._batcher.due_ns()

    def forget(self, gone: Callable[[Request], bool]) -> None:
        if self._tables:
            self._unstack(time.monotonic_ns())

        def drop(task: Task) -> bool:
            if gone(task.request):
                self._executor.forget(task)
            return task.done

        self._batcher.drop(drop)
        self._singles = deque(each for each in self._singles if not drop(each[1].task))

    def hurry(self) -> None:
        self._batcher.hurry()

    def ran(self, job: Job) -> None:
        if job.unfit and not job.strict:
            self._keep_apart(job.family, job.unfit)
        if job.took_s is not None:
            self._batcher.observe(job.family, job.filled, job.took_s)

    def _keep_apart(self, family: Hashable, why: str) -> None:
        """From now on; not those of its requests that are batched already."""
        if family in self._apart:
            return
        if len(self._apart) >= _MAX_APART:
            del self._apart[next(iter(self._apart))]  # costs one more batch that is taken apart
        self._apart[family] = why
        log.warning("not batched any more %s", fields(family=family, why=why))

    def _plan(self, queue: RequestQueue, now_ns: int) -> None:
        # Of those that are planned now, some come before the first that is to share a run; the others go behind it.
        self._single_ns = now_ns - 1
        while not self._tables and self._batcher.wants() and len(self._singles) < _MAX_SINGLES:
            request = queue.take()
            if request is None:
                return
            self._put(request, now_ns)

    def _put(self, request: Request, now_ns: int) -> None:
        """Plan a request, and have it wait among others or by itself."""
        task = self._executor.plan(request)
        if not task.done:
            self._sort(task, now_ns)
        if task.done:
            self.refused.append(task)
        else:
            self._fresh.append(task)
            if len(self._fresh) >= self._at_once:
                self._withdraw_waiting()

    def _sort(self, task: Task, now_ns: int) -> None:
        """To the batcher, or to those that go by themselves."""
        assert task.plan is not None
        try:
            place = self._place(task.plan)
            if place is None or (self._apart and place[0] in self._apart):
                self._singles.append((self._single_ns, Part(task, 0, 0)))
                return
            task.family, task.rows, task.key = place
            if task.request.alone:
                pieces = self._batcher.pieces(task.rows)
                self._singles += [(self._single_ns, Part(task, *piece)) for piece in pieces]
                return
            self._batcher.add(task, now_ns)
            self._single_ns = now_ns
        except PoolError as error:
            self._executor.refuse(task, error.status)

    def _place(self, plan: Plan) -> tuple[Hashable, int, Hashable] | None:
        """Family, rows and key of a plan; None for one that cannot share a run. Raises PoolError."""
        form = plan.form
        if form is not None and form.place is not None:
            known: tuple[Hashable, int, Hashable] = form.place
            return known
        family = None if plan.feeds is None else self._family(plan)
        if family is None or plan.feeds is None:
            return None
        rows = batch_tensors.rows_of(plan.feeds)
        if not rows:
            return None
        place = family, rows, (family, tuple(plan.fetches), batch_tensors.shapes_key(plan.feeds, padded=self._pads))
        if form is not None:
            form.place = place
        return place

    def _take(self, running: int, now_ns: int) -> Job | None:
        while self._singles and self._singles[0][1].task.done:  # another piece of it has failed
            self._singles.popleft()
        if self._singles and self._single_is_next(now_ns):
            if running and self._singles[0][1].task.request.alone:
                return None
            single = self._singles.popleft()[1]
            self._alone = single.task.request.alone
            return self._job((single,), single.stop - single.start, 0) if single.stop else Job((single,))
        self._alone = False
        while (batch := self._batcher.take(now_ns)) is not None:
            self._drop_gone(batch, now_ns)
            if batch.parts:
                return self._job(batch.parts, batch.rows, batch.opened_ns)
        return None

    def _job(self, parts: Sequence[Part[Task]], rows: int, opened_ns: int) -> Job:
        """A batch."""
        padded = self._batcher.padded(rows)
        return Job(parts, True, padded, opened_ns, padded=self._padded, strict=self._batcher.strict)

    def _single_is_next(self, now_ns: int) -> bool:
        """Whoever has waited for longer goes first, or a flood of the one kind would keep the other from ever running.

        A batch waits since it is due. Of those that came at the same time it is first, for it answers more of them.
        """
        due_ns = self._batcher.due_ns()
        return due_ns is None or due_ns > now_ns or self._singles[0][0] < due_ns

    def _drop_gone(self, batch: Batch[Task], now_ns: int) -> None:
        """Parts whose task is over: it has expired, or another part of it has failed."""
        for part in batch.parts:
            task = part.task
            if not task.done and task.request.expired(now_ns):
                self._executor.refuse(task, EXPIRED)
                self.refused.append(task)
        if any(part.task.done for part in batch.parts):
            batch.drop(lambda task: task.done)

    def _withdraw_waiting(self) -> None:
        for task in self._fresh:
            if not task.running:
                self._executor.withdraw(task)
        self._fresh.clear()
