"""What is executed next, as the session asks for it, and the `Work` without batching. Main thread of the worker.

Plans by `executor`, and knows neither sockets nor threads. A request that is to be alone shares neither a run nor the
time of one.
"""

from typing import Protocol

from .batching import Part
from .executor import Executor
from .jobs import Job, Task
from .predict_forms import KnownForm
from .request_queue import Gone, RequestQueue
from .straight_runs import StraightRun
from .waiting_tables import WaitingTables


class Work(Protocol):
    """`refused` has the tasks that are done without a run; whoever calls `next` or `admit` takes them out."""

    refused: list[Task]
    tables: WaitingTables | None
    """Where tables wait; None where none is ever taken."""
    never_straight: bool
    """Nothing ever may go straight."""

    def may_go_straight(self, queue: RequestQueue) -> int:
        """How many of what waits unopened may be run straight (`StraightRunner`), while nothing else runs."""

    def fits_straight(self, form: KnownForm) -> bool:
        """Whether requests of this form may."""

    def ran_straight(self, run: StraightRun) -> bool:
        """Some were; whether each counts as a batch. Their answers wait meanwhile: what can be done later is."""

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        """Take a message of several requests that came just now, as a table; False: they are to be put in the queue."""

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        """Nobody is free: take from the queue what need not wait there."""

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        """What somebody who is free is to run now, while `running` others run something. It has begun."""

    def due_ns(self, running: int) -> int | None:
        """When there will be something to run beside `running` others, if nothing comes; None: nothing that is here."""

    def forget(self, gone: Gone) -> None:
        """Drop what waits here and nobody awaits any more."""

    def hurry(self) -> None:
        """From now on nothing waits for others to share a run with."""

    def ran(self, job: Job) -> None:
        """A batch was run."""

    def rest(self) -> None:
        """There is time now: all that was run is answered."""


class Unbatched:
    """One request after the other, in the order of their arrival."""

    def __init__(self, executor: Executor) -> None:
        self.refused: list[Task] = []
        self.tables: WaitingTables | None = None
        self.never_straight = False
        self._executor = executor
        self._alone = False

    def may_go_straight(self, queue: RequestQueue) -> int:
        return len(queue)

    def fits_straight(self, form: KnownForm) -> bool:
        return True

    def ran_straight(self, run: StraightRun) -> bool:
        return False

    def put_table(self, raw: bytes, peer: bytes, frontend: int, now_ns: int) -> bool:
        return False

    def admit(self, queue: RequestQueue, now_ns: int) -> None:
        """They wait in the queue."""

    def next(self, queue: RequestQueue, running: int, now_ns: int) -> Job | None:
        if running and (self._alone or ((first := queue.first()) is not None and first.alone)):
            return None
        request = queue.take()
        if request is None:
            return None
        task = self._executor.plan(request)
        if task.done:
            self.refused.append(task)
            return None
        self._alone = request.alone
        job = Job((Part(task, 0, 0),))
        self._executor.begin(job)
        return job

    def due_ns(self, running: int) -> int | None:
        return None

    def forget(self, gone: Gone) -> None:
        """Nothing waits here."""

    def hurry(self) -> None:
        """Nothing waits for others."""

    def ran(self, job: Job) -> None:
        """Nothing is learned of it."""

    def rest(self) -> None:
        """Nothing was left for later."""
