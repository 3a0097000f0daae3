"""What is executed: a request on its way to its answer, and one run of the model for a request or several. Pure."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.status import Code, DeadlineExceeded, Status

from .batching import Part
from .plan import Array, Plan
from .request_queue import Request
from .request_table import RequestTable, TableReply

# Error texts are cut where a protocol says so; this only bounds what an op may put into one.
_MAX_ERROR_BYTES = 64 * 1024
EXPIRED = DeadlineExceeded("Deadline exceeded while the request waited for the model").status


@dataclass(slots=True, eq=False)
class Task:
    """One request on its way to its answer. Times are CLOCK_MONOTONIC; 0: it has not come to that.

    When it is `done`, `reply` is the answer, or the text of the error that `code` says. `plan` and `outputs` are those
    of the run; of a request that failed there are none. `key` and `family`: see `batching.Task`.
    """

    request: Request
    code: Code = Code.OK
    reply: Payload = b""
    began_ns: int = 0
    planned_ns: int = 0
    run_ns: int = 0
    ran_ns: int = 0
    finish_ns: int = 0
    ended_ns: int = 0
    rows: int = 0
    """How many rows it has, when it may share a run."""
    examples: int = 0
    """How many rows its first input had when it was run."""
    signatures: tuple[str, ...] = ()
    """The keys of those that it asks for; of a request that could not be read there are none."""
    plan: Plan | None = None
    outputs: Sequence[Array] = ()
    key: Hashable = None
    family: Hashable = None
    flight: int | None = None
    """Its entry in the flight recorder while it is executed."""
    running: int = 0
    """Runs under way that have a part of it."""
    rows_ran: int = 0
    parts: dict[int, Sequence[Array]] = field(default_factory=dict)
    """Outputs of its parts, by where they begin, while there are others to come."""
    done: bool = False

    def fail(self, status: Status) -> None:
        self.code = status.code
        self.reply = status.message.encode("utf-8", "replace")[:_MAX_ERROR_BYTES]
        self.plan, self.outputs = None, ()


def _as_many(rows: int) -> int:
    return rows


def failed(request: Request, status: Status) -> Task:
    """A request that is not executed."""
    task = Task(request, done=True)
    task.fail(status)
    return task


@dataclass(slots=True, eq=False)
class Job:
    """One run of the model, and what came of it: for each part its outputs or its error.

    `batched`: outputs are rows, of which each part has as many as of the inputs. `strict`: so it must be of one part,
    too, which otherwise has whatever the model says. `rows` is how many are run, padding included; `padded` says it for
    other numbers, for parts that are run again by themselves. Any thread calls it. `took_s` is None when the run
    failed, and `unfit` then says why, if that is that its outputs were no rows, or those of a part of it.

    In the place of parts it may have `tables`, of one key: its one result is then of all their requests, and `replies`
    are their answers, which end well. If they do not, it has parts.
    """

    parts: Sequence[Part[Task]] = ()
    batched: bool = False
    rows: int = 0
    opened_ns: int = 0
    """When its first part came."""
    results: Sequence[Sequence[Array] | Status] = ()
    run_ns: int = 0
    ran_ns: int = 0
    took_s: float | None = None
    unfit: str = ""
    padded: Callable[[int], int] = _as_many
    strict: bool = True
    tables: Sequence[RequestTable] = ()
    flights: Sequence[Sequence[int]] = ()
    """For each table the entries of its requests in the flight recorder."""
    replies: Sequence[TableReply] = ()
    finish_ns: int = 0
    ended_ns: int = 0

    @property
    def requests(self) -> int:
        """How many it serves, or a part of each."""
        return len(self.parts) or sum(map(len, self.tables))

    @property
    def family(self) -> Hashable:
        """See `batching.Task`; of a batch."""
        return self.parts[0].task.family if self.parts else self.tables[0].place.family

    @property
    def filled(self) -> int:
        """How many of its rows are not padding."""
        if self.parts:
            return sum(part.stop - part.start for part in self.parts)
        return sum(len(table) * table.place.rows for table in self.tables)
