"""The worker's data plane: has what its inbox reads executed in its order, answers, and waits.

Main thread only, which owns the socket and, unless several executors are at it, runs the model: a request crosses no
thread on its way to it. Requests wait in a bounded queue of this process, where they can be cancelled, expire, or go
with the frontend that sent them; what finds it full is refused. Where the main thread runs the model the socket is read
between two runs, so what comes during a long one waits in ZeroMQ's own bounded queue.
"""

import os
import select
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

from modelpool.supervisor.wire import gathering, sockets, thread_priority
from modelpool.supervisor.wire.gathering import Gatherer
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import MOST_QUEUED_REQUESTS
from modelpool.supervisor.wire.status import Code, Unavailable

from . import cuda
from .answers import Answers
from .control import Gauge
from .executor import Executor
from .executors import Executors, FixedExecutors
from .inbox import Inbox
from .jobs import Job, Task
from .metrics import WorkerMetrics
from .request_queue import RequestQueue
from .request_table import TableReply
from .run_threads import RunThreads
from .shared_payloads import SharedPayloads
from .straight_runs import StraightRunner
from .work import Work

if TYPE_CHECKING:
    from .request_log import RequestLogger
    from .warmup_recorder import WarmupRecorder

# Frontends keep to `max_queued_requests` together; one that died may have left what it had asked.
CAPACITY = MOST_QUEUED_REQUESTS
# Messages to one frontend that may wait to be read, each of one answer or of several small ones. Frontends read all the
# time, so only one that stands still, and will be replaced, fills it.
_REPLY_HWM = 4 * sockets.DATA_HWM
# Looking up an enum's member takes 0.2 us in Python 3.11, and half a dozen would be looked up for each request.
_OK, _UNAVAILABLE = Code.OK, Code.UNAVAILABLE
# Plain integers: arithmetic on pyzmq's enums costs more than the calls they are for.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
# While requests wait, the socket is looked at, and answers leave, this often. Each wake-up of ZeroMQ's thread costs
# as much as a small request.
_LOOK_EVERY_NS = 500_000
_SEND_EVERY = 16
# After a pause, the first answer waits for others only where runs are as short as those of the smallest models.
_SHORT_NS = 100_000
# What a busy worker has counted is known this long after, and not lost with it.
_SETTLE_EVERY_NS = 500_000_000
# And what one has counted that waits: to count each request by itself costs as much as to execute a small one.
_SETTLE_IDLE_NS = 20_000_000
# A batch may wait for longer than a poll can.
_LONGEST_WAIT_MS = 3_600_000
_TRIM_EVERY_MS, _TRIM_EVERY_NS = 1_000, 1_000_000_000
_GATHER_EVERY_NS = round(gathering.PERIOD_S * 1e9)
_IO_THREAD = "ZMQbg/IO"
_ONE = FixedExecutors()
_RETRY_AFTER_MS = (10, 5_000)


@dataclass(frozen=True, slots=True)
class Observers:
    """Who looks at what this worker answers."""

    gauge: Gauge
    metrics: WorkerMetrics
    recorder: "WarmupRecorder"
    request_log: "RequestLogger"


def bind(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """The socket by which frontends reach a worker. Raises Unavailable: what stands in the way may pass, as a full disk
    does.
    """
    made = context.socket(zmq.ROUTER)
    sockets.configure_router(made, sockets.DATA_HWM)
    made.setsockopt(zmq.SNDHWM, _REPLY_HWM)
    try:
        made.bind(endpoint)
    except zmq.ZMQError as error:
        made.close()
        path = endpoint.removeprefix("ipc://")
        raise Unavailable(f"The worker's socket {path} cannot be made: {zmq.strerror(error.errno or 0)}") from error
    return made


class Session:
    """Serves one socket that is bound until told to stop, and owns it."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        stop_fd: int,
        observers: Observers,
        *,
        executor: Executor,
        work: Work,
        executors: Executors = _ONE,
        capacity: int = CAPACITY,
        shared: SharedPayloads | None = None,
        straight: StraightRunner | None = None,
    ) -> None:
        self._shared = shared or SharedPayloads(None, Incarnation(0))
        self._executor = executor
        self._work = work
        self._straight = straight
        self._observers = observers
        self._queue = RequestQueue(capacity)
        self._unsent: list[Task | TableReply] = []
        self._unsent_requests = 0
        self._looked_ns = self._sent_ns = self._settled_ns = self._trim_ns = self._gather_ns = 0
        self._counts, self._unsettled = observers.metrics.on, False
        self._request_ns = 0.0
        self._way: set[int] = set()
        self._stop_fd = stop_fd
        self._stopping = False
        self._broken = ""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = RunThreads(executor.run, self._wake_fd) if executors.most > 1 else None
        self._executors = executors
        self._socket = socket
        self._inbox = Inbox(socket, self._queue, work, self._shared, self._answered, goes_straight=self._goes_straight)
        self._answers = Answers(self._socket, self._shared, self._inbox.gone)
        self._gatherer = Gatherer(gathering.WORKER, self._threads_on_the_way)
        # One system call for each wait; ZeroMQ's own poller makes five, for it asks the socket before and after.
        self._poller = select.poll()
        for fd in (int(self._socket.getsockopt(zmq.FD)), stop_fd, self._wake_fd):
            self._poller.register(fd, select.POLLIN)

    def run(self) -> str:
        """Serve until `stop_fd` is readable and nothing waits; "", or why this process can serve no more."""
        while not self._broken:
            now_ns = time.monotonic_ns()
            if not self._queue or now_ns - self._looked_ns > _LOOK_EVERY_NS or self._inbox.has_dropped:
                self._looked_ns = now_ns
                self._inbox.look(now_ns, CAPACITY)
            worked = self._work_once(now_ns)
            # By the time after the run: its answer does not wait for the next one.
            since_ns = time.monotonic_ns() - self._sent_ns
            if self._unsent_requests >= _SEND_EVERY or not worked or since_ns > _LOOK_EVERY_NS:
                self._send_answers()
            if not worked and not self._wait():
                break
        self._send_answers()
        self._settle()
        return self._broken

    def _work_once(self, now_ns: int) -> bool:
        """Run one job, or have it run; False when there is nothing to do but to wait."""
        threads, work = self._threads, self._work
        running = 0
        if threads is not None:
            for done in threads.done():
                self._ran(done)
            running = threads.running
        if not running and not work.refused and self._queue.unopened is not None and self._ran_straight(now_ns):
            return True
        job = self._next_job(running, now_ns)
        for task in work.refused:
            self._answered(task)
        worked = bool(work.refused) or job is not None
        work.refused.clear()
        if job is not None:
            self._observers.gauge.begin(id(job), job.requests)
            if threads is None or self._executors.count == 1:
                self._executor.run(job)
                self._ran(job)
            else:
                threads.start(job)
        return worked

    def _goes_straight(self, size_bytes: int) -> bool:
        """See `Inbox`."""
        if self._straight is None or self._work.never_straight:
            return False
        return self._may_go_straight() and self._straight.knows(size_bytes)

    def _may_go_straight(self) -> bool:
        return self._executors.count == 1 and not self._wants_each()

    def _ran_straight(self, now_ns: int) -> bool:
        """Whether some of what waits unopened could be run at once, each by itself and here."""
        observers, work = self._observers, self._work
        if self._straight is None or not self._may_go_straight():
            return False
        most = min(work.may_go_straight(self._queue), max(1, _SEND_EVERY - self._unsent_requests))
        if not most:
            return False
        within_ns = max(1 if self._unsent else _SHORT_NS, self._sent_ns + _LOOK_EVERY_NS - now_ns)
        observers.gauge.begin(id(self._straight), 1)
        run = self._straight.run(self._queue, most, within_ns, work.fits_straight)
        observers.gauge.end(id(self._straight))
        if run is None:
            return False
        batched = work.ran_straight(run)
        if run.reply is not None:
            count = len(run.times)
            self._learn_pace((run.ended_ns - run.times[0][1]) / count, count)
            self._executors.ran(run.ended_ns, count, run.ran_ns / count / 1e9)
            if self._counts:
                observers.metrics.finished_straight(run, batched=batched)
                self._unsettled = True
            observers.gauge.served += count
            self._unsent.append(run.reply)
            self._unsent_requests += count
        if run.unfinished is not None:
            observers.gauge.begin(id(run.unfinished), 1)
            self._ran(run.unfinished)
        return True

    def _wants_each(self) -> bool:
        """Whether somebody wants to see each request and its answer."""
        return self._observers.recorder.recording is not None or self._observers.request_log.on

    def _next_job(self, running: int, now_ns: int) -> Job | None:
        if running < self._executors.count:
            return self._work.next(self._queue, running, now_ns)
        self._work.admit(self._queue, now_ns)
        return None

    def drop_frontend(self, incarnation: Incarnation) -> None:
        """A frontend is gone: what it has asked and is not executed yet need not be. Any thread."""
        self._inbox.drop_frontend(incarnation)
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
        self._socket.close(linger=1000)

    # -- between two runs ----------------------------------------------------------------------------------------

    def _settle_or_wait(self, timeout_ms: int | None) -> int | None:
        """Count what was answered, unless that was done just now: then a wait must end when it is to be done again."""
        left_ns = self._settled_ns + _SETTLE_IDLE_NS - time.monotonic_ns()
        if left_ns <= 0:
            self._settle()
            return timeout_ms
        left_ms = left_ns // 1_000_000 + 1
        return left_ms if timeout_ms is None else min(timeout_ms, left_ms)

    def _settle(self) -> None:
        self._settled_ns = time.monotonic_ns()
        self._unsettled = False
        self._observers.metrics.settle()

    def _wait(self) -> bool:
        """Until there is something to do; False when there is nothing, and the worker is to stop."""
        self._work.rest()
        running = self._threads.running if self._threads is not None else 0
        due_ns = None
        if running < self._executors.count:
            due_ns = self._work.due_ns(running)
            self._executors.idle(running)
        timeout_ms: int | None = 0 if self._stopping and not running else None
        if due_ns is not None:
            timeout_ms = min(max(0, (due_ns - time.monotonic_ns()) // 1_000_000 + 1), _LONGEST_WAIT_MS)
        elif timeout_ms is None and not self._shared.idle:
            timeout_ms = _TRIM_EVERY_MS
        if self._unsettled:
            timeout_ms = self._settle_or_wait(timeout_ms)
        if int(self._socket.getsockopt(_EVENTS)) & _POLLIN:
            # A send has seen it come, and the descriptor says so no more. It is read now, for nothing can be run.
            self._looked_ns = 0
            return True
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if self._stop_fd in ready:
            self._stopping = True
            self._work.hurry()
            self._poller.unregister(self._stop_fd)
        return bool(ready) or timeout_ms != 0 or due_ns is not None

    # -- out -----------------------------------------------------------------------------------------------------

    def _ran(self, job: Job) -> None:
        observers = self._observers
        done = self._executor.finish(job, each=self._wants_each())
        observers.gauge.end(id(job))
        count = len(done) + sum(reply.requests for reply in job.replies)
        if count:
            self._learn_pace((time.monotonic_ns() - job.run_ns) / count, count)
        self._executors.ran(job.ran_ns, count, (job.ran_ns - job.run_ns) / 1e9)
        if job.batched:
            self._work.ran(job)
            observers.metrics.batch(job)
        for task in done:
            self._answered(task)
        if job.replies:
            self._answered_tables(job)

    def _learn_pace(self, request_ns: float, count: int) -> None:
        """What so many requests took, each. A moving average over some 30 requests."""
        self._request_ns += (request_ns - self._request_ns) * min(1.0, count / 32)

    def _answered_tables(self, job: Job) -> None:
        """All of them are well, and nobody wants to see them by themselves."""
        observers = self._observers
        if self._counts:
            observers.metrics.finished_tables(job)
            self._unsettled = True
        observers.gauge.served += job.requests
        self._unsent += job.replies
        self._unsent_requests += job.requests

    def _answered(self, task: Task) -> None:
        observers, request = self._observers, task.request
        if self._counts:
            observers.metrics.finished(task)
            self._unsettled = True
        observers.gauge.served += 1
        if task.code is _OK:
            if observers.recorder.recording is not None:
                observers.recorder.offer(request.method, bytes(request.payload))
            if observers.request_log.on and task.plan is not None:
                outputs = dict(zip(task.plan.fetches, task.outputs, strict=True))
                observers.request_log.answered(request.method, bytes(request.payload), bytes(task.reply), outputs)
        elif cuda.is_lost(task.code, bytes(task.reply)):
            self._broken = bytes(task.reply).decode("utf-8", "replace")
        task.plan, task.outputs, request.payload = None, (), b""
        self._unsent.append(task)
        self._unsent_requests += 1

    def _send_answers(self) -> None:
        """And, by the time, what else is to be done now and then: here a worker comes by that never waits, too."""
        self._sent_ns = time.monotonic_ns()
        self._answers.send(self._unsent, self._retry_after_ms)
        self._unsent.clear()
        self._unsent_requests = 0
        if self._sent_ns - self._settled_ns > _SETTLE_EVERY_NS:
            self._settle()
        if self._sent_ns >= self._gather_ns:
            self._gather_ns = self._sent_ns + _GATHER_EVERY_NS
            self._gatherer.look(self._observers.gauge.served)
        if self._sent_ns >= self._trim_ns:
            self._trim_ns = self._sent_ns + _TRIM_EVERY_NS
            if not self._shared.idle:
                self._shared.trim()
                self._answers.send((), self._retry_after_ms)

    def _threads_on_the_way(self) -> set[int]:
        """Which a request crosses: this one and ZeroMQ's. Who computes is TensorFlow's matter. Raises OSError."""
        if not self._way:
            self._way = {threading.get_native_id(), *thread_priority.named(os.getpid(), _IO_THREAD)}
        return self._way

    def _retry_after_ms(self, code: Code) -> int:
        """When what waits here now will have been executed, about, for a request that was refused."""
        if code is not _UNAVAILABLE:
            return 0
        low, high = _RETRY_AFTER_MS
        return max(low, min(high, int(len(self._queue) * self._request_ns / 1e6)))
