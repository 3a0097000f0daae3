"""Small Predict requests of known forms, run one after the other from the bytes they came in to those of their answers.

What an `Executor` does for one request in three steps, with an object for each, is done here in one: beside a small
model those objects are most of what a request costs, and still more of it where a worker has slept, since all that is
looked at then comes from far memory. Whatever is out of the ordinary is left to the executor: another form, a request
that is to be alone or is late. Main thread.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, PoolError, Status

from .batching import Part
from .executor import bug
from .jobs import Job, Task
from .plan import Array, Model
from .predict_forms import Forms, KnownForm
from .request_queue import Request, RequestQueue
from .request_table import TableReply

log = logging.getLogger(__name__)

# Looking up an enum's member takes 0.2 us in Python 3.11.
_OK, _PREDICT = int(Code.OK), int(Method.PREDICT)
_HEAD_BYTES, _SMALL_BYTES = data.REQUEST_HEAD_BYTES, data.SMALL_BYTES
_unpack, _pack = data.unpack_one_of_several, data.pack_one_of_several_replies

Times = tuple[int, int, int, int, int]
"""When a request was sent, begun, run, had been run, and was answered, by CLOCK_MONOTONIC."""


@dataclass(slots=True, eq=False)
class StraightRun:
    """Requests of one form that were run, one after the other. Those with `times` are answered by `reply`, all of them
    well; `unfinished` is the run of the last one, where its answer is not like that: an executor has to finish it.
    """

    form: KnownForm
    times: list[Times]
    reply: TableReply | None
    unfinished: Job | None

    @property
    def ended_ns(self) -> int:
        return self.times[-1][-1]

    @property
    def ran_ns(self) -> int:
        """How long the model was run for those with `times`, in all."""
        return sum(ran_ns - run_ns for _, _, run_ns, ran_ns, _ in self.times)


class StraightRunner:
    """Runs requests of one loaded model. `forms`: what is known of Predict's."""

    def __init__(
        self, model: Model, forms: Forms, flights: FlightRecorder, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._model = model
        self._forms = forms
        self._flights = flights
        self._clock_ns = clock_ns

    def knows(self, size_bytes: int) -> bool:
        """Whether requests with payloads of so many bytes may have a known form, and small replies."""
        return any(not form.common.large_reply for form in self._forms.of_length(size_bytes))

    def run(
        self, queue: RequestQueue, most: int, within_ns: int, fits: Callable[[KnownForm], bool]
    ) -> StraightRun | None:
        """Run at most `most` of those that have waited unopened for the longest, and begin with none after `within_ns`;
        None where the first is not to be run so: its form is unknown or does not fit, it is to be alone, or late. Never
        raises for what a model does.
        """
        message, now_ns = queue.unopened, self._clock_ns()
        assert message is not None
        raw, at, until_ns = message.raw, message.at, now_ns + within_ns
        form: KnownForm | None = None
        unfinished: Job | None = None
        times: list[Times] = []
        pieces: list[bytes] = []
        while at < len(raw) and len(times) < most and now_ns < until_ns and unfinished is None:
            size, request_id, deadline_ns, sent_ns, _, alone = _unpack(raw, at)
            stop = at + _HEAD_BYTES + size
            late = deadline_ns != data.NO_DEADLINE_NS and now_ns > deadline_ns
            found = None if alone or late else self._forms.find(raw[at + _HEAD_BYTES : stop])
            if found is None or (form is not found[0] and (form is not None or not _may(found[0], fits))):
                break
            form = found[0]
            entry = self._flights.begin(message.frontend, request_id, _PREDICT, size, now_ns)
            ran = self._execute(form, found[1])
            if ran.reply is None:
                unfinished = _job(message.first()[0], form, ran, entry, now_ns)
            else:
                ended_ns = self._clock_ns()
                self._flights.end(entry, _OK, ended_ns)
                pieces += (_pack(len(ran.reply), request_id, _OK, 0), ran.reply)
                times.append((sent_ns, now_ns, ran.run_ns, ran.ran_ns, ended_ns))
                now_ns = ended_ns
            at = stop
            queue.took_unopened(at)
        if form is None:
            return None
        reply = TableReply(message.peer, len(times), b"".join(pieces)) if times else None
        return StraightRun(form, times, reply, unfinished)

    def _execute(self, form: KnownForm, feeds: dict[str, Array]) -> "_Ran":
        run_ns = self._clock_ns()
        try:
            outputs = self._model.run(feeds, form.fetches)
        except PoolError as error:
            return _Ran(run_ns, self._clock_ns(), error.status, None)
        except Exception as error:
            log.exception("run failed %s", fields(signatures=form.signatures))
            return _Ran(run_ns, self._clock_ns(), bug(error), None)
        return _Ran(run_ns, self._clock_ns(), outputs, _small_reply(form, outputs))


class _Ran(NamedTuple):
    """One request. `reply` is None where the executor is to finish it."""

    run_ns: int
    ran_ns: int
    result: Sequence[Array] | Status
    reply: bytes | None


def _may(form: KnownForm, fits: Callable[[KnownForm], bool]) -> bool:
    return not form.common.large_reply and fits(form)


def _small_reply(form: KnownForm, outputs: list[Array]) -> bytes | None:
    try:
        reply = form.finish(outputs)
    except Exception:  # noqa: BLE001 - the executor makes it again, and says what is wrong with it
        return None
    if isinstance(reply, bytes) and len(reply) <= _SMALL_BYTES:
        return reply
    form.common.large_reply = True
    return None


def _job(request: Request, form: KnownForm, ran: _Ran, entry: int, began_ns: int) -> Job:
    """What was run, for the executor to finish."""
    plan = form.read(request.payload)
    task = Task(request, began_ns=began_ns, planned_ns=ran.run_ns, plan=plan, flight=entry, running=1)
    task.signatures = form.signatures
    took_s = None if isinstance(ran.result, Status) else (ran.ran_ns - ran.run_ns) / 1e9
    return Job((Part(task, 0, 0),), results=(ran.result,), run_ns=ran.run_ns, ran_ns=ran.ran_ns, took_s=took_s)
