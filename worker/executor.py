"""Executes requests in three steps: payload to plan, one run of the model for one plan or several, outputs to replies.

`plan` and `finish` are for the thread that owns the requests, `run` for any. From before a request's payload is looked
at, and until its answer is made, the flight recorder has it, except while it waits for others to share a run with:
whatever kills the process finds it among those that were executing. Those of a table, and those that are run straight,
it has from the run on: what was done with them before was to compare bytes. Knows neither sockets nor when a run is
due.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, Internal, PoolError, Status, Unimplemented

from . import batch_tensors, request_table
from .batching import Part
from .jobs import EXPIRED, Job, Task, failed
from .plan import Array, Model, Planner
from .request_queue import Request
from .request_table import RequestTable

log = logging.getLogger(__name__)

# So many of a batch that failed are run one by one at once.
_FEW = 4


class Executor:
    """Executes the requests of one loaded model. `again`: those of a failed batch may be executed again."""

    def __init__(
        self, model: Model, planners: Mapping[Method, Planner], flights: FlightRecorder, *, again: bool = True
    ) -> None:
        self._model = model
        self._planners = planners
        self._flights = flights
        self._again = again

    def execute(self, request: Request) -> Task:
        """One request by itself, all steps."""
        task = self.plan(request)
        if not task.done:
            job = Job((Part(task, 0, 0),))
            self.begin(job)
            self.run(job)
            self.finish(job)
        return task

    def plan(self, request: Request) -> Task:
        """A task that has a plan, or one that is done. Never raises for what is in a request."""
        now_ns = time.monotonic_ns()
        if request.expired(now_ns):
            return failed(request, EXPIRED)
        task = Task(request, began_ns=now_ns)
        self._enter(task, now_ns)
        try:
            planner = self._planners.get(request.method)
            if planner is None:
                raise Unimplemented(f"This worker does not serve {request.method.name}")
            task.plan = plan = planner(request.payload)
            task.signatures = plan.signatures
            task.planned_ns = time.monotonic_ns()
        except PoolError as error:
            self.refuse(task, error.status)
        except Exception as error:
            log.exception("request failed %s", _names(task))
            self.refuse(task, bug(error))
        return task

    def refuse(self, task: Task, status: Status) -> None:
        """It is not run."""
        task.fail(status)
        self._leave(task, time.monotonic_ns())

    def forget(self, task: Task) -> None:
        """Nobody awaits its answer any more, and it will not be run, except for a part that is being run now."""
        task.done = True
        if not task.running:
            self.withdraw(task)

    def withdraw(self, task: Task) -> None:
        """It waits from now on, and is not being executed."""
        if task.flight is not None:
            self._flights.withdraw(task.flight)
            task.flight = None

    def begin(self, job: Job) -> None:
        """The job is handed to who runs it."""
        if job.tables:
            now_ns = time.monotonic_ns()
            job.flights = [self._enter_all(table, now_ns) for table in job.tables]
        for part in job.parts:
            task = part.task
            task.running += 1
            if task.flight is None:
                self._enter(task, time.monotonic_ns())

    def run(self, job: Job) -> None:
        """Run the model. Any thread. Never raises for what a model does."""
        job.run_ns = time.monotonic_ns()
        try:
            job.results = self._run_together(job)
            job.took_s = (time.monotonic_ns() - job.run_ns) / 1e9
        except PoolError as error:
            job.results = self._taken_apart(job, error.status)
        except Exception as error:
            log.exception("run failed %s", fields(requests=job.requests))
            job.results = self._taken_apart(job, bug(error))
        job.ran_ns = time.monotonic_ns()

    def _run_together(self, job: Job) -> Sequence[Sequence[Array]]:
        if job.requests == 1:
            _unstack(job)  # one that is by itself may have whatever outputs the model gives
        if job.tables:
            outputs = self._model.run(request_table.feeds_of(job.tables), job.tables[0].form.fetches)
            _split(job, outputs, ())
            return (outputs,)
        plan = job.parts[0].task.plan
        assert plan is not None
        if plan.feeds is None:
            return ((),)
        if not job.batched or (len(job.parts) == 1 and not job.strict):
            return (self._model.run(plan.feeds, plan.fetches),)
        feeds = [_feeds(part) for part in job.parts]
        outputs = self._model.run(batch_tensors.merged(feeds, job.rows), plan.fetches)
        return _split(job, outputs, [part.stop - part.start for part in job.parts])

    def _taken_apart(self, job: Job, status: Status) -> Sequence[Sequence[Array] | Status]:
        """Whoever fails must not cost the others, nor make a run for each of them: halves are run again, few are each
        by itself, and all are whose outputs are no rows: halves of those may look like rows by chance.
        """
        _unstack(job)
        count = len(job.parts)
        if count == 1 or not self._again:
            return [status] * count
        size = 1 if count <= _FEW or job.unfit else (count + 1) // 2
        results: list[Sequence[Array] | Status] = []
        for start in range(0, count, size):
            parts = job.parts[start : start + size]
            rows = job.padded(sum(part.stop - part.start for part in parts))
            smaller = Job(parts, job.batched, rows, padded=job.padded, strict=job.strict)
            self.run(smaller)
            results += smaller.results
            job.unfit = job.unfit or smaller.unfit
        return results

    def finish(self, job: Job, *, each: bool = False) -> list[Task]:
        """Make the replies of those whose last part it was, or whose first that failed.

        Those of tables become the job's `replies`, unless `each` is wanted as a task.
        """
        if job.tables:
            if not each and self._finish_tables(job):
                return []
            outputs = _of_tables(job)
            _unstack(job)
            job.results = _split(job, outputs, [part.stop - part.start for part in job.parts])
        done = []
        for part, result in zip(job.parts, job.results, strict=True):
            task = part.task
            task.running -= 1
            task.rows_ran += part.stop - part.start
            if task.done:
                if not task.running:
                    self.withdraw(task)
                continue
            if task.plan is not None and task.plan.feeds is not None:
                task.run_ns, task.ran_ns = task.run_ns or job.run_ns, job.ran_ns
            if isinstance(result, Status):
                self.refuse(task, result)  # whatever becomes of its other parts
                done.append(task)
                continue
            task.parts[part.start] = result
            if task.rows_ran >= task.rows:
                self._reply(task)
                done.append(task)
            elif not task.running:
                self.withdraw(task)
        return done

    def _reply(self, task: Task) -> None:
        task.finish_ns = time.monotonic_ns()
        plan = task.plan
        assert plan is not None
        task.examples = _rows(plan.feeds)
        try:
            task.outputs = _outputs(task)
            task.reply = plan.finish(list(task.outputs))
        except PoolError as error:
            task.fail(error.status)
        except Exception as error:
            log.exception("request failed %s", _names(task))
            task.fail(bug(error))
        self._leave(task, time.monotonic_ns())

    def _finish_tables(self, job: Job) -> bool:
        """Whether the replies could be made all at once."""
        job.finish_ns = time.monotonic_ns()
        try:
            replies = request_table.replies_of(job.tables, _of_tables(job))
        except Exception:
            log.exception("replies are made one by one %s", fields(requests=job.requests))
            replies = None
        if replies is None:
            return False
        job.replies = replies
        job.ended_ns = now_ns = time.monotonic_ns()
        for entries in job.flights:
            self._flights.end_several(entries, Code.OK, now_ns)
        return True

    def _enter_all(self, table: RequestTable, now_ns: int) -> list[int]:
        ids = table.column("request_id").tolist()
        return self._flights.begin_several(table.frontend, ids, Method.PREDICT, table.payload_bytes, now_ns)

    def _enter(self, task: Task, now_ns: int) -> None:
        request = task.request
        size = len(request.payload)
        task.flight = self._flights.begin(request.frontend, request.request_id, request.method, size, now_ns)

    def _leave(self, task: Task, now_ns: int) -> None:
        task.ended_ns, task.done, task.parts = now_ns, True, {}
        if task.flight is not None:
            self._flights.end(task.flight, task.code, now_ns)
            task.flight = None


def _split(job: Job, outputs: Sequence[Array], sizes: Sequence[int]) -> list[list[Array]]:
    """See `batch_tensors.split`; the job says what it has raised."""
    try:
        return batch_tensors.split(outputs, sizes, job.rows)
    except PoolError as error:
        job.unfit = error.message
        raise


def _of_tables(job: Job) -> Sequence[Array]:
    """The outputs of all requests of its tables."""
    outputs = job.results[0]
    assert not isinstance(outputs, Status)
    return outputs


def _unstack(job: Job) -> None:
    """Have the requests of its tables, which it has begun with, as parts. Any thread."""
    parts = []
    for table, entries in zip(job.tables, job.flights, strict=True):
        family, rows, key = table.place
        began_ns = table.taken_ns - table.read_ns
        for (request, plan), entry in zip(table.requests(), entries, strict=True):
            task = Task(request, began_ns=began_ns, planned_ns=table.taken_ns, rows=rows, plan=plan)
            task.signatures, task.family, task.key = plan.signatures, family, key
            task.flight, task.running = entry, 1
            parts.append(Part(task, 0, rows))
    if parts:
        job.parts, job.tables, job.flights = parts, (), ()


def _feeds(part: Part[Task]) -> Mapping[str, Array]:
    plan = part.task.plan
    assert plan is not None
    assert plan.feeds is not None
    if part.stop - part.start == part.task.rows:
        return plan.feeds
    return {name: array[part.start : part.stop] for name, array in plan.feeds.items()}


def _outputs(task: Task) -> Sequence[Array]:
    if len(task.parts) == 1:
        return next(iter(task.parts.values()))
    return batch_tensors.joined([task.parts[start] for start in sorted(task.parts)])


def _rows(feeds: Mapping[str, Array] | None) -> int:
    first = next(iter(feeds.values()), None) if feeds else None
    return len(first) if first is not None and first.ndim else 0


def bug(error: Exception) -> Status:
    """What a client is told of what nobody foresaw."""
    return Internal(f"{type(error).__name__}: {error}").status


def _names(task: Task) -> str:
    return fields(request=task.request.request_id, method=task.request.method.name)
