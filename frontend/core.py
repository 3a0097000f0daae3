"""Route, forward, settle: the owner of all requests in flight, apart from any protocol. In the event loop's thread.

The core takes (method, payload, which model, deadline) and gives (code, bytes). Every request it accepts gets exactly
one answer: the worker's reply, DEADLINE_EXCEEDED at its deadline, or UNAVAILABLE when its worker dies; whoever stops
waiting drops it. It knows neither gRPC nor HTTP, and of ZeroMQ only the `Link` seam.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.messages import RouteTable, WorkerRoute
from modelpool.supervisor.wire.sockets import DATA_HWM
from modelpool.supervisor.wire.status import Code, DeadlineExceeded, InvalidArgument, Unavailable

from .balance import Balance, Candidate
from .callback import guarded
from .model_spec import ModelSpec
from .routes import Routes, Target, without_worker, workers_of

log = logging.getLogger(__name__)

Answer = tuple[Code, bytes]  # the reply's bytes, or the error's text in UTF-8

# Payloads in flight: a slow model must not take the memory of the frontend that all models share.
WORKER_BUDGET_BYTES = 1 << 30
TOTAL_BUDGET_BYTES = 2 << 30
_MAX_DEADLINE_NS = (1 << 63) - 1  # what the request header can carry


class Link(Protocol):
    """The way to one worker. `send` is False when its queue is full."""

    def send(self, *frames: bytes) -> bool: ...

    def close(self) -> None: ...


Connect = Callable[[WorkerRoute, Callable[[list[bytes]], None]], Link]


@dataclass(slots=True, eq=False)
class _Worker:
    incarnation: Incarnation
    servable: ServableId
    link: Link
    in_flight: set[int] = field(default_factory=set)
    in_flight_bytes: int = 0
    leaving: bool = False


@dataclass(slots=True, eq=False)
class Pending:
    """A request in flight. Whoever stops waiting for `answer` hands it to `Core.drop`."""

    request_id: int
    worker: _Worker
    size_bytes: int
    answer: asyncio.Future[Answer]
    timer: asyncio.TimerHandle | None = None


class Core:
    """Routes requests over the links that `connect` makes; tells `on_released` of each worker it has let go.

    Bounds of what is in flight: `max_in_flight` requests and `worker_budget_bytes` of payload per worker, and
    `total_budget_bytes` over all workers. A payload bigger than a budget passes when nothing else counts against it.
    """

    def __init__(
        self,
        connect: Connect,
        on_released: Callable[[Incarnation], None],
        max_in_flight: int = DATA_HWM,
        worker_budget_bytes: int = WORKER_BUDGET_BYTES,
        total_budget_bytes: int = TOTAL_BUDGET_BYTES,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._on_released = on_released
        self._max_in_flight = max_in_flight
        self._worker_budget_bytes = worker_budget_bytes
        self._total_budget_bytes = total_budget_bytes
        self._next_id = 1
        self._pending: dict[int, Pending] = {}
        self._workers: dict[Incarnation, _Worker] = {}
        self._announced: set[Incarnation] = set()
        self._dead: dict[Incarnation, str] = {}
        self.routes = Routes(RouteTable(-1, ()))
        self.balance = Balance(time.monotonic, random.random)
        self.answered = 0
        self.in_flight_bytes = 0

    # -- requests ------------------------------------------------------------------------------------------------

    async def call(self, method: data.Method, payload: bytes, spec: ModelSpec | None, deadline_ns: int) -> Answer:
        """`submit`, and wait for the answer. Cancelling the caller drops the request."""
        pending = self.submit(method, payload, spec, deadline_ns)
        try:
            return await pending.answer
        finally:
            self.drop(pending)

    def submit(self, method: data.Method, payload: bytes, spec: ModelSpec | None, deadline_ns: int) -> Pending:
        """Send a request to the worker that `balance` picks. Never blocks.

        `deadline_ns` is on CLOCK_MONOTONIC, `data.NO_DEADLINE_NS` for none. Raises what `Routes.find` raises,
        DeadlineExceeded when it has passed already, and Unavailable when the worker's queue or a budget is full.
        """
        target = self.routes.find(spec)
        now_ns = time.monotonic_ns()
        remaining_s = 0.0
        if deadline_ns != data.NO_DEADLINE_NS:
            deadline_ns = min(deadline_ns, _MAX_DEADLINE_NS)
            remaining_s = (deadline_ns - now_ns) / 1e9
            if remaining_s <= 0:
                raise DeadlineExceeded(_deadline_text(target.servable))
        worker = self._pick(target)
        size_bytes = len(payload)
        self._require_room(worker, size_bytes)
        request_id = self._next_id
        self._next_id += 1
        if not worker.link.send(data.pack_request(request_id, deadline_ns, now_ns, method), payload):
            raise Unavailable(_full_text(worker.servable))
        pending = Pending(request_id, worker, size_bytes, self._loop.create_future())
        if deadline_ns != data.NO_DEADLINE_NS:
            pending.timer = self._loop.call_later(remaining_s, self._expire, pending)
        self._pending[request_id] = pending
        worker.in_flight.add(request_id)
        worker.in_flight_bytes += size_bytes
        self.in_flight_bytes += size_bytes
        return pending

    def _require_room(self, worker: _Worker, size_bytes: int) -> None:
        """Raises Unavailable when a request of this size is more than may wait."""
        if len(worker.in_flight) >= self._max_in_flight:
            raise Unavailable(_full_text(worker.servable))
        for in_flight_bytes, budget_bytes, whose in (
            (worker.in_flight_bytes, self._worker_budget_bytes, "the model"),
            (self.in_flight_bytes, self._total_budget_bytes, "all models together"),
        ):
            if in_flight_bytes and in_flight_bytes + size_bytes > budget_bytes:
                raise Unavailable(
                    f"{_full_text(worker.servable)}: {size_bytes} bytes more than the {in_flight_bytes} bytes in "
                    f"flight exceed the budget of {budget_bytes} bytes of {whose}"
                )

    def drop(self, pending: Pending) -> None:
        """Forget a request whose answer nobody awaits any more. Without effect once it is settled."""
        if self._pending.pop(pending.request_id, None) is None:
            return
        if pending.timer is not None:
            pending.timer.cancel()
        worker = pending.worker
        worker.in_flight.discard(pending.request_id)
        worker.in_flight_bytes -= pending.size_bytes
        self.in_flight_bytes -= pending.size_bytes
        self._release_if_idle(worker)

    def _pick(self, target: Target) -> _Worker:
        if len(target.workers) == 1:
            return self._workers[target.workers[0]]
        names = target.workers
        return self._workers[self.balance.pick([Candidate(name, len(self._workers[name].in_flight)) for name in names])]

    def _settle(self, pending: Pending, code: Code, payload: bytes) -> None:
        self.drop(pending)
        self.answered += 1
        if not pending.answer.done():
            pending.answer.set_result((code, payload))

    @guarded
    def _expire(self, pending: Pending) -> None:
        self.balance.expired(pending.worker.incarnation)
        self._settle(pending, Code.DEADLINE_EXCEEDED, _deadline_text(pending.worker.servable).encode())

    def handle_reply(self, incarnation: Incarnation, frames: list[bytes]) -> None:
        """A message from a worker. Replies to requests that are settled or dropped are ignored."""
        try:
            header, payload = frames
            reply = data.unpack_reply(header)
        except (ValueError, InvalidArgument) as error:
            log.warning("ignored a malformed reply %s", fields(incarnation=incarnation, error=error))
            return
        pending = self._pending.get(reply.request_id)
        if pending is not None and pending.worker.incarnation == incarnation:
            self.balance.answered(incarnation, reply.code)
            self._settle(pending, reply.code, payload)

    # -- routes --------------------------------------------------------------------------------------------------

    def swap_routes(self, table: RouteTable) -> bool:
        """Route by `table` from now on; False when it is no newer than the one in use.

        Raises PoolError, with the old routes still in force, when a new worker cannot be connected. Workers that it
        no longer names leave: `release_idle` lets go of those with nothing in flight, and each of the others is let go
        with its last answer.
        """
        if table.epoch <= self.routes.table.epoch:
            return False
        named = {worker.incarnation for _, worker in workers_of(table)}
        self._announced |= named - self._dead.keys()
        self._dead = {incarnation: cause for incarnation, cause in self._dead.items() if incarnation in named}
        for servable, route in workers_of(table):
            cause = self._dead.get(route.incarnation)
            if cause is not None:
                table = without_worker(table, route.incarnation, _lost_text(servable, cause))
            elif route.incarnation not in self._workers:
                link = self._connect(route, partial(self.handle_reply, route.incarnation))
                self._workers[route.incarnation] = _Worker(route.incarnation, servable, link)
        for worker in self._workers.values():
            worker.leaving = worker.incarnation not in named
        self.balance.keep(named)
        self.routes = Routes(table)
        return True

    def release_idle(self) -> None:
        """Let go of the workers that leave and have nothing in flight, and of those never connected to."""
        named = {worker.incarnation for _, worker in self.routes.workers()}
        never_connected = self._announced - named - self._workers.keys()
        for worker in list(self._workers.values()):
            self._release_if_idle(worker)
        for incarnation in never_connected:
            self._on_released(incarnation)
        self._announced &= named

    def _release_if_idle(self, worker: _Worker) -> None:
        if worker.leaving and not worker.in_flight and self._workers.pop(worker.incarnation, None) is not None:
            worker.link.close()
            self._on_released(worker.incarnation)

    def bury(self, incarnation: Incarnation, cause: str) -> None:
        """A worker died: answer UNAVAILABLE to all that is in flight there, and route no more to it."""
        self._dead[incarnation] = cause
        self._announced.discard(incarnation)
        worker = self._workers.pop(incarnation, None)
        if worker is None:
            return
        worker.link.close()
        servable = worker.servable
        self.routes = Routes(without_worker(self.routes.table, incarnation, _lost_text(servable, cause)))
        text = f"{_death_text(servable)} while this request was in flight: {cause}"
        lost = [self._pending[request_id] for request_id in sorted(worker.in_flight)]
        for pending in lost:
            self._settle(pending, Code.UNAVAILABLE, text.encode())
        names = fields(servable=servable, incarnation=incarnation, cause=cause, lost=len(lost))
        log.info("settled the requests of a dead worker %s", names)

    def close(self) -> None:
        """Close all links. What is still in flight gets no answer any more."""
        for worker in self._workers.values():
            worker.link.close()

    def in_flight(self) -> dict[int, int]:
        """Requests in flight by worker incarnation."""
        return {int(worker.incarnation): len(worker.in_flight) for worker in self._workers.values()}


def _deadline_text(servable: ServableId) -> str:
    return f"Deadline exceeded before model {servable.name} version {servable.version} answered"


def _full_text(servable: ServableId) -> str:
    return (
        "The batch scheduling queue to which this task was submitted is full: "
        f"model {servable.name} version {servable.version}"
    )


def _death_text(servable: ServableId) -> str:
    return f"The worker of model {servable.name} version {servable.version} died"


def _lost_text(servable: ServableId, cause: str) -> str:
    return f"{_death_text(servable)} ({cause}) and is being replaced"
