"""A worker's session in a thread, and a fake frontend that asks it."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from modelpool.supervisor.wire import data, flight_recorder, sockets
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.flight_recorder import FlightRecorder
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.metrics import Registry
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.status import Internal, InvalidArgument
from modelpool.worker import session as session_module
from modelpool.worker.control import Gauge
from modelpool.worker.executor import Executor
from modelpool.worker.executors import Executors, FixedExecutors
from modelpool.worker.jobs import Task
from modelpool.worker.metrics import WorkerMetrics
from modelpool.worker.plan import Plan
from modelpool.worker.predict_forms import Forms
from modelpool.worker.session import Observers, Session
from modelpool.worker.shared_payloads import SharedPayloads
from modelpool.worker.straight_runs import StraightRun, StraightRunner
from modelpool.worker.work import Unbatched, Work
from tests.wire.conftest import WAIT_S, Clock

LOST = b"lost"  # a request that ends with the CUDA context lost
LOST_CONTEXT = "Failed to launch kernel: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
STAY = b"stay"  # a request that is executed until it is let go
KEPT = b"kept"  # what begins so the model keeps until it is asked to let go of it
BAD = b"bad"  # a request that the model refuses
LARGE, LARGE_BYTES = b"large", 5000  # one that is answered with so many bytes
LONG, LONG_NS = b"long", 200_000_000  # one that is executed until it alone is let end, and takes so long


class Silent:
    """An observer that wants nothing, until it is `on`."""

    recording = None

    def __init__(self) -> None:
        self.on = False
        self.logged: list[bytes] = []

    def answered(self, method: Method, payload: bytes, reply: bytes, outputs: Mapping[str, np.ndarray]) -> None:
        self.logged.append(payload)


class Keeping(WorkerMetrics):
    """Keeps every task that was finished, as metrics do until they have time."""

    def __init__(self, *, on: bool) -> None:
        super().__init__(Registry(), "m", 1, "/m/1", on=on)
        self.tasks: list[Task] = []
        self.straight = 0
        self.settled: list[int] = []

    def settle(self) -> None:
        self.settled.append(len(self.tasks) + self.straight)

    def finished_straight(self, run: StraightRun, *, batched: bool) -> None:
        self.straight += len(run.times)

    def finished(self, task: Task) -> None:
        self.tasks.append(task)


def _session_ns() -> int:
    """By the session's own clock, which a test may have in its hands."""
    return session_module.time.monotonic_ns()


class Worker:
    """A session in a thread; executes by echoing, and `STAY` by waiting for `go`."""

    def __init__(
        self,
        endpoint: str,
        capacity: int,
        folder: Path | None = None,
        executors: Executors | None = None,
        *,
        counted: bool = True,
        work: Callable[[Executor], Work] = Unbatched,
        straight: bool = False,
    ) -> None:
        """`straight`: requests of up to 7 bytes have a known form, as those that are as long as earlier ones."""
        self.endpoint = endpoint
        self.executed: list[bytes] = []
        self.kept: list[np.ndarray] = []
        self.staying, self.go = threading.Event(), threading.Event()
        self.began, self.end = threading.Semaphore(0), threading.Semaphore(0)
        self.clock = Clock()
        self.stop_fd = os.eventfd(0)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gauge = Gauge()
        self.metrics = Keeping(on=counted)
        self.request_log = Silent()
        observers = Observers(self.gauge, self.metrics, Silent(), self.request_log)  # type: ignore[arg-type]
        flights = FlightRecorder(flight_recorder.create("test"))
        executor = Executor(self, {Method.PREDICT: self._plan}, flights)
        self._forms = Forms()
        for size in 2 * [*range(1, 8)] if straight else ():
            self._plan(bytes(size))
        self.session = Session(
            session_module.bind(self.context, self.endpoint),
            self.stop_fd,
            observers,
            executor=executor,
            work=work(executor),
            executors=executors or FixedExecutors(),
            capacity=capacity,
            shared=SharedPayloads(folder, Incarnation(1), self.kept.clear),
            straight=StraightRunner(self, self._forms, flights, _session_ns) if straight else None,
        )
        self.why_broken: list[str] = []
        self._thread = threading.Thread(target=lambda: self.why_broken.append(self.session.run()))
        self._thread.start()

    signatures: Mapping[str, Any] = {}

    def _plan(self, payload: bytes) -> Plan:
        known = self._forms.read(payload)
        if known is not None:
            return known
        plan = Plan({"x": np.frombuffer(payload, np.uint8)}, ["y"], lambda outputs: outputs[0].tobytes())
        self._forms.learn(payload, plan)
        return plan

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        payload = feeds["x"].tobytes()
        if payload == STAY:
            self.staying.set()
            assert self.go.wait(WAIT_S)
        if payload == LONG:
            self.began.release()
            assert self.end.acquire(timeout=WAIT_S)
            self.clock.now_ns += LONG_NS
        if payload == LOST:
            raise Internal(LOST_CONTEXT)
        if payload == BAD:
            raise InvalidArgument("bad")
        if payload == LARGE:
            return [np.zeros(LARGE_BYTES, np.uint8)]
        if payload.startswith(KEPT):
            self.kept.append(feeds["x"])
        self.executed.append(payload)
        return [feeds["x"]]

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self.go.set()
        os.eventfd_write(self.stop_fd, 1)
        self._thread.join(WAIT_S)
        assert self.ended()
        self.session.close()
        self.context.destroy(0)  # a test that failed has not closed its frontend, and `term` would wait for that


class Changing:
    """As many executors as the test says, or one of these numbers after the other."""

    most = 3

    def __init__(self, *counts: int) -> None:
        self.count = counts[0]
        self.counts: Iterator[int] = itertools.cycle(counts)
        self.requests = 0

    def ran(self, now_ns: int, requests: int, took_s: float) -> None:
        self.requests += requests
        self.count = next(self.counts)

    def idle(self, running: int) -> None:
        assert running < self.count


class Frontend:
    def __init__(self, worker: Worker, incarnation: int) -> None:
        self._socket = worker.context.socket(zmq.DEALER)
        name = sockets.identity(Peer.FRONTEND, Incarnation(incarnation))
        sockets.configure_dealer(self._socket, name, sockets.DATA_HWM)
        self._socket.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
        self._socket.connect(worker.endpoint)
        self._unread: list[tuple[data.ReplyHeader, bytes]] = []
        self.messages = 0
        """Those that were read."""

    def ask(self, request_id: int, payload: bytes) -> None:
        self._socket.send_multipart([data.pack_request(request_id, 0, 1, Method.PREDICT), payload])

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def answer(self) -> tuple[data.ReplyHeader, bytes]:
        if not self._unread:
            replies = data.unpack_replies(self._socket.recv_multipart())
            self.messages += 1
            self._unread += [(data.ReplyHeader(*header), payload) for *header, payload in replies]
        return self._unread.pop(0)

    def answers(self, count: int) -> list[int]:
        return [self.answer()[0].request_id for _ in range(count)]

    def close(self) -> None:
        self._socket.close(0)


Start = Callable[..., Worker]


@contextmanager
def starting(*, straight: bool = False) -> Iterator[Start]:
    """Starts workers, all `straight` or none, and ends them. By default without a transport in between: what was sent
    has arrived.
    """
    workers: list[Worker] = []

    def start(capacity: int, endpoint: str = "inproc://w", **values: Any) -> Worker:
        workers.append(Worker(endpoint, capacity, straight=straight, **values))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
