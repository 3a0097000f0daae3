"""What is executed next where requests are batched: a `Work` that has them put together. Main thread of the worker.

Decides by `batching`, plans by `executor`, and knows neither sockets nor threads. A request that is to be alone shares
neither a run nor the time of one.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import PoolError

from . import batch_tensors
from .batching import MAX_TASKS, AutoBatcher, Batch, Batcher, Part
from .executor import Executor
from .jobs import EXPIRED, Job, Task
from .plan import Place, Plan
from .predict_forms import KnownForm
from .request_queue import Gone, Request, RequestQueue
from .request_table import RequestTable
from .straight_runs import StraightRun, Times
from .waiting_tables import WaitingTables

log = logging.getLogger(__name__)

# Requests that go by themselves and wait here, before the rest waits in the queue.
_MAX_SINGLES = 64
# So many families that are not to share runs are known: those of MultiInference are as many as clients think of.
_MAX_APART = 64
# So many that went straight are kept for a moment in which there is time to learn of them.
_MOST_UNLEARNED = 64


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
        self._at_hand = not batcher.strict
        """Nothing waits for others to share a run with."""
        self.never_straight = batcher.strict
        self.tables = tables
        self._singles: deque[tuple[int, Part[Task]]] = deque()
        """With what stands for the times at which they came, compared with when a batch is due."""
        self._single_ns = 0
        self._fresh: list[Task] = []
        self._alone = False
        self._unlearned: list[tuple[Place, list[Times]]] = []
        """Of what went straight."""
        self._apart: dict[Hashable, str] = {}
        """Families that were to share runs, and turned out to have outputs that are no rows, and why; oldest first."""

    def may_go_straight(self, queue: RequestQueue) -> int:
        """One that nothing waits beside, which is a batch then, without its way through the batcher."""
        return int(self._at_hand and len(queue) == 1 and not (self.tables or self._singles or len(self._batcher)))

    def fits_straight(self, form: KnownForm) -> bool:
        place = form.common.place
        return place is not None and place.family not in self._apart

    def ran_straight(self, run: StraightRun) -> bool:
        place = run.form.common.place
        assert place is not None
        self._unlearned.append((place, run.times))
        if len(self._unlearned) >= _MOST_UNLEARNED:
            self.rest()
        if run.unfinished is not None:
            task = run.unfinished.parts[0].task
            task.family, task.rows, task.key = place
            job = run.unfinished
            job.parts, job.rows, job.batched, job.strict = (Part(task, 0, task.rows),), task.rows, True, False
        return True

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        # What waits elsewhere came earlier.
        if self.tables is None or self._singles or len(self._batcher):
            return False
        return self.tables.offer(raw, peer, frontend, now_ns, self._apart)

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        self._plan(queue, now_ns)
        self._withdraw_waiting()

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        if self.tables:
            self._put_each(self.tables.take_expired(now_ns), now_ns)
            if self.tables and not (running and self._alone):
                return self._next_of_tables(self.tables)
        if self._at_hand and not (running or self._singles or len(self._batcher)):
            if not queue:  # as after each request that came by itself
                return None
            if len(queue) == 1:
                return self._next_by_itself(queue, now_ns)
        self._plan(queue, now_ns)
        job = None if running and self._alone else self._take(running, now_ns)
        if job is not None:
            self._executor.begin(job)
        self._withdraw_waiting()
        return job

    def _next_of_tables(self, waiting: WaitingTables) -> Job:
        tables = waiting.take()
        self._alone = False
        job = Job(batched=True, opened_ns=tables[0].came_ns, padded=self._padded, strict=False, tables=tables)
        job.rows = job.filled
        self._executor.begin(job)
        return job

    def _next_by_itself(self, queue: RequestQueue, now_ns: int) -> Job | None:
        """A request that comes while nothing waits or runs is a batch, without its way through the batcher."""
        request = queue.take()
        assert request is not None
        task = self._executor.plan(request)
        whole = Part(task, 0, 0)
        if not task.done and self._has_place(task):
            whole = Part(task, 0, task.rows)
        if task.done:
            self.refused.append(task)
            return None
        self._alone = request.alone
        job = self._job((whole,), task.rows, now_ns) if whole.stop else Job((whole,))
        self._executor.begin(job)
        return job

    def _has_place(self, task: Task) -> bool:
        """Whether it may share a run, as it says from then on. One that must not be run at all is refused, and done."""
        assert task.plan is not None
        try:
            place = self._place(task.plan)
        except PoolError as error:
            self._executor.refuse(task, error.status)
            return False
        if place is None or (self._apart and place.family in self._apart):
            return False
        task.family, task.rows, task.key = place
        return True

    def _put_each(self, tables: Sequence[RequestTable], now_ns: int) -> None:
        """Their requests wait as single ones from now on."""
        for table in tables:
            for request, _ in table.requests():
                self._put(request, now_ns)

    def due_ns(self, running: int) -> int | None:
        if running and (self._alone or self._is_alone_next()):
            return None
        if self.tables:
            return self.tables.due_ns()
        return self._singles[0][0] if self._singles else self._batcher.due_ns()

    def _is_alone_next(self) -> bool:
        if not self._singles or not self._singles[0][1].task.request.alone:
            return False
        due_ns = self._batcher.due_ns()
        return due_ns is None or self._singles[0][0] < due_ns

    def forget(self, gone: Gone) -> None:
        if self.tables:
            self.tables.forget(gone)

        def drop(task: Task) -> bool:
            if gone.has(task.request):
                self._executor.forget(task)
            return task.done

        self._batcher.drop(drop)
        self._singles = deque(each for each in self._singles if not drop(each[1].task))

    def hurry(self) -> None:
        self._batcher.hurry()

    def ran(self, job: Job) -> None:
        self.rest()  # in the order in which they were run
        if job.unfit and not job.strict:
            self._keep_apart(job.family, job.unfit)
            if self.tables:  # not one of those that wait may share a run any more, either
                self._put_each(self.tables.take_family(job.family), job.ran_ns)
                self._withdraw_waiting()
        if job.took_s is not None:
            self._batcher.observe(job.family, job.filled, job.took_s)

    def rest(self) -> None:
        unlearned, self._unlearned = self._unlearned, []
        for place, times in unlearned:
            for _, _, run_ns, ran_ns, _ in times:
                self._batcher.observe(place.family, place.rows, (ran_ns - run_ns) / 1e9)

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
        while not self.tables and self._batcher.wants() and len(self._singles) < _MAX_SINGLES:
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
        if not self._has_place(task):
            if not task.done:
                self._singles.append((self._single_ns, Part(task, 0, 0)))
            return
        try:
            if task.request.alone:
                pieces = self._batcher.pieces(task.rows)
                self._singles += [(self._single_ns, Part(task, *piece)) for piece in pieces]
                return
            self._batcher.add(task, now_ns)
            self._single_ns = now_ns
        except PoolError as error:
            self._executor.refuse(task, error.status)

    def _place(self, plan: Plan) -> Place | None:
        """None for a plan that cannot share a run. Raises PoolError."""
        form = plan.form
        if form is not None and form.place is not None:
            return form.place
        family = None if plan.feeds is None else self._family(plan)
        if family is None or plan.feeds is None:
            return None
        rows = batch_tensors.rows_of(plan.feeds)
        if not rows:
            return None
        shapes = batch_tensors.shapes_key(plan.feeds, padded=self._pads)
        place = Place(family, rows, (family, tuple(plan.fetches), shapes))
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
