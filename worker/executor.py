"""Executes requests: payload to plan, run of the model, reply. One by one or several in one run. Any thread.

Before a request's payload is looked at, the flight recorder has it, so that whatever kills the process finds it among
those that were executing; it is taken out before the answer can leave. Knows neither sockets nor queues.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, DeadlineExceeded, Internal, PoolError, Status, Unimplemented

from .plan import Array, Model, Plan, Planner
from .request_queue import Request

log = logging.getLogger(__name__)

# Error texts are cut where a protocol says so; this only bounds what an op may put into one.
_MAX_ERROR_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class Answer:
    """The end of one request: `reply` is its answer, or the text of its error. Times are CLOCK_MONOTONIC, 0: not run.

    `plan` and `outputs` are those of the run, for who looks at answers; of a request that failed there are none.
    """

    request: Request
    code: Code
    reply: bytes
    began_ns: int = 0
    run_ns: int = 0
    ran_ns: int = 0
    ended_ns: int = 0
    rows: int = 0
    plan: Plan | None = None
    outputs: Sequence[Array] = field(default_factory=tuple)


def failed(request: Request, status: Status) -> Answer:
    """The answer to a request that is not executed."""
    return Answer(request, status.code, _text(status))


class Executor:
    """Executes the requests of one loaded model."""

    def __init__(self, model: Model, planners: Mapping[Method, Planner], flights: FlightRecorder) -> None:
        self._model = model
        self._planners = planners
        self._flights = flights

    def execute(self, request: Request) -> Answer:
        """One request by itself. Never raises for what a request or a model does."""
        now_ns = time.monotonic_ns()
        if request.expired(now_ns):
            return failed(request, DeadlineExceeded("Deadline exceeded while the request waited for the model").status)
        flight = self._flights.begin(request.frontend, request.request_id, request.method, len(request.payload), now_ns)
        answer = Answer(request, Code.OK, b"", now_ns)
        try:
            self._run(answer)
        except PoolError as error:
            _fail(answer, error.status)
        except Exception as error:
            log.exception("request failed %s", fields(request=request.request_id, method=request.method.name))
            _fail(answer, Internal(f"{type(error).__name__}: {error}").status)
        answer.ended_ns = time.monotonic_ns()
        self._flights.end(flight, answer.code, answer.ended_ns)
        return answer

    def _run(self, answer: Answer) -> None:
        request = answer.request
        planner = self._planners.get(request.method)
        if planner is None:
            raise Unimplemented(f"This worker does not serve {request.method.name}")
        plan = planner(request.payload)
        outputs: Sequence[Array] = ()
        if plan.feeds is not None:
            answer.run_ns = time.monotonic_ns()
            try:
                outputs = self._model.run(plan.feeds, plan.fetches)
            finally:
                answer.ran_ns = time.monotonic_ns()
            answer.rows = _rows(plan)
        answer.reply = plan.finish(list(outputs))
        answer.plan, answer.outputs = plan, outputs


def _rows(plan: Plan) -> int:
    first = next(iter(plan.feeds.values()), None) if plan.feeds else None
    return len(first) if first is not None and first.ndim else 0


def _fail(answer: Answer, status: Status) -> None:
    answer.code, answer.reply = status.code, _text(status)
    answer.plan, answer.outputs = None, ()


def _text(status: Status) -> bytes:
    return status.message.encode("utf-8", "replace")[:_MAX_ERROR_BYTES]
