"""Route, forward, settle: the owner of all requests in flight, apart from any protocol. In the event loop's thread.

The core takes (method, payload, which model, deadline) and gives (code, bytes). Every request it accepts gets exactly
one answer: the worker's reply, DEADLINE_EXCEEDED at its deadline, or a refusal; whoever stops waiting drops it. When a
worker dies, `settling` says what becomes of its requests and the core does it: a request that is sent again goes to a
sibling, or is held until the next worker of its version is routed. It knows neither gRPC nor HTTP, and of ZeroMQ only
the `Link` seam.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.frontend_messages import WorkerDied
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.route_table import RouteTable
from modelpool.supervisor.wire.status import (
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PoolError,
    Status,
    StatusError,
)

from . import settling
from .balance import Balance, Candidate
from .callback import guarded
from .deadlines import Deadlines
from .in_flight import Answer, Awaited, Bounds, Connect, Pending, Witness, Worker, in_order_of_suspicion
from .model_queue import ModelQueue
from .model_spec import ModelSpec
from .quarantine import Quarantine
from .routes import Routes, Target, without_worker, workers_of
from .settling import Fate, Verdict

log = logging.getLogger(__name__)

_LINK_FULL = "its worker takes in no more"
_MAX_DEADLINE_NS = (1 << 63) - 1  # what the request header can carry
_NO_DEADLINE_NS, _pack_request = data.NO_DEADLINE_NS, data.pack_whole_request


class Core:
    """Routes requests over the links that `connect` makes; tells `on_released` of each worker it has let go."""

    def __init__(
        self,
        connect: Connect,
        on_released: Callable[[Incarnation], None],
        witness: Witness,
        bounds: Bounds | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._on_released = on_released
        self._witness = witness
        self._bounds = bounds or Bounds()
        self._ids = count(1)
        self._pending: dict[int, Pending] = {}
        self._deadlines = Deadlines(self._pending, self._expire)
        self._held: dict[int, Pending] = {}
        self._queues: dict[str, ModelQueue] = {}
        self._workers: dict[Incarnation, Worker] = {}
        self._dying: set[Worker] = set()
        self._announced: set[Incarnation] = set()
        self._dead: dict[Incarnation, str] = {}
        self.routes = Routes(RouteTable(-1, ()))
        self.balance = Balance(time.monotonic, random.random)
        self.quarantine = Quarantine(time.monotonic_ns)
        self.answered = 0
        self.in_flight_bytes = 0

    # -- requests ------------------------------------------------------------------------------------------------

    async def call(self, method: data.Method, payload: Payload, spec: ModelSpec | None, deadline_ns: int) -> Answer:
        """`submit`, and wait for the answer. Cancelling the caller drops the request."""
        pending = self.submit(method, payload, spec, deadline_ns)
        try:
            return await pending.answer
        finally:
            self.drop(pending)

    def submit(self, method: data.Method, payload: Payload, spec: ModelSpec | None, deadline_ns: int) -> Awaited:
        """`begin` with a future for the answer."""
        pending = Awaited(method, payload, spec, deadline_ns, self._loop.create_future())
        self.begin(pending)
        return pending

    def begin(self, pending: Pending) -> None:
        """Send a request to the worker that `balance` picks, or hold it until there is one. Never blocks.

        Its `deadline_ns` is on CLOCK_MONOTONIC, `data.NO_DEADLINE_NS` for none; it gets the answer once this has
        returned. Raises what `Routes.find` raises, DeadlineExceeded when it has passed already, Overloaded when the
        model's queue or a budget is full, and FailedPrecondition for what is in quarantine.
        """
        target = self.routes.find(pending.spec)
        now_ns = time.monotonic_ns()
        deadline_ns = pending.deadline_ns
        if deadline_ns != _NO_DEADLINE_NS:
            if deadline_ns <= now_ns:
                raise DeadlineExceeded(settling.deadline_text(target.servable))
            if deadline_ns > _MAX_DEADLINE_NS:
                pending.deadline_ns = deadline_ns = _MAX_DEADLINE_NS
        worker = self._pick(target) if target.workers else None
        queue = self._queues[target.servable.name] if worker is None else worker.queue
        size_bytes = len(pending.payload)
        queue.require_room(size_bytes, self.in_flight_bytes, self._bounds.total_bytes, now_ns)
        if self.quarantine.versions:
            self._refuse_quarantined(target.servable, pending.method, pending.payload)
        pending.request_id = request_id = next(self._ids)
        pending.servable, pending.queue = target.servable, queue
        pending.worker = pending.timer = None
        pending.deaths, pending.alone = 0, False
        if worker is not None and not self._send(pending, worker, now_ns):
            raise queue.full(_LINK_FULL, now_ns)
        self._pending[request_id] = pending
        queue.enter(size_bytes, now_ns)
        self.in_flight_bytes += size_bytes
        if deadline_ns != _NO_DEADLINE_NS and deadline_ns < self._deadlines.first_ns:
            self._deadlines.expect(deadline_ns)
        if worker is None:
            self._hold(pending)

    def _refuse_quarantined(self, servable: ServableId, method: data.Method, payload: Payload) -> None:
        remaining_s = self.quarantine.remaining_s(servable, method, payload)
        if remaining_s > 0:
            self._witness.quarantine_refused(servable.name)
            raise FailedPrecondition(settling.quarantined_text(servable, remaining_s))

    def _pick(self, target: Target) -> Worker:
        names = target.workers
        if len(names) == 1:
            return self._workers[names[0]]
        return self._workers[self.balance.pick([Candidate(name, self._workers[name].in_flight) for name in names])]

    def _send(self, pending: Pending, worker: Worker, now_ns: int) -> bool:
        head = _pack_request(pending.request_id, pending.deadline_ns, now_ns, pending.method, pending.alone)
        if not worker.link.send(head, pending.payload):
            return False
        pending.worker = worker
        worker.in_flight += 1
        return True

    def drop(self, pending: Pending) -> None:
        """Forget a request whose answer nobody awaits any more. Without effect once it is settled."""
        if pending.request_id in self._pending:
            self._cancel(pending)
            self._remove(pending)

    @staticmethod
    def _cancel(pending: Pending) -> None:
        """Have the worker not begin with it. A full queue loses this; then the deadline keeps it from beginning."""
        worker = pending.worker
        if worker is not None and not worker.dead:
            worker.link.send(data.pack_cancel(pending.request_id), b"")

    def _remove(self, pending: Pending) -> None:
        del self._pending[pending.request_id]
        if pending.timer is not None:
            pending.timer.cancel()
        size_bytes = len(pending.payload)
        pending.queue.leave(size_bytes)
        self.in_flight_bytes -= size_bytes
        worker = pending.worker
        if worker is None:
            self._held.pop(pending.request_id, None)
        else:
            worker.in_flight -= 1
            if worker.leaving:
                self._release_if_idle(worker)

    def _settle(self, pending: Pending, code: Code, payload: bytes) -> None:
        self._remove(pending)
        self.answered += 1
        if not pending.done():
            pending.set_result((code, payload))

    def _refuse(self, pending: Pending, error: PoolError) -> None:
        """Settle with an error that may say more than code and text."""
        self._remove(pending)
        self.answered += 1
        if not pending.done():
            pending.set_exception(error)

    def _expire(self, pending: Pending) -> None:
        if pending.worker is not None:
            self.balance.expired(pending.worker.incarnation)
        self._cancel(pending)
        waited = "" if pending.worker is not None else "; its worker died and there was no other yet"
        self._settle(pending, Code.DEADLINE_EXCEEDED, (settling.deadline_text(pending.servable) + waited).encode())

    def handle_reply(self, incarnation: Incarnation, frames: list[bytes]) -> None:
        """Replies from a worker. Those to requests that are settled, dropped or sent elsewhere are ignored."""
        try:
            answers = data.unpack_replies(frames)
        except InvalidArgument as error:
            log.warning("ignored a malformed reply %s", fields(incarnation=incarnation, error=error))
            return
        in_flight, balanced = self._pending, incarnation in self.balance
        for request_id, code, retry_after_ms, payload in answers:
            pending = in_flight.get(request_id)
            if pending is None or pending.worker is None or pending.worker.incarnation != incarnation:
                continue
            if balanced:
                self.balance.answered(incarnation, code)
            pending.queue.throughput.answered += 1
            if retry_after_ms:
                status = Status(code, payload.decode("utf-8", "replace"))
                self._refuse(pending, StatusError(status, retry_after_ms))
            else:
                self._settle(pending, code, payload)

    # -- requests that wait for a worker -------------------------------------------------------------------------

    def _hold(self, pending: Pending) -> None:
        """Keep it until a route table has a worker for it, or says that there will be none."""
        self._held[pending.request_id] = pending
        if pending.deadline_ns == data.NO_DEADLINE_NS and pending.timer is None:
            pending.timer = self._loop.call_later(self._bounds.hold_s, self._give_up, pending)

    @guarded
    def _give_up(self, pending: Pending) -> None:
        waited = f"no other was there within {self._bounds.hold_s:g} s"
        self._lose(pending, f"{settling.died_text(pending.servable)}, and {waited}")

    def _send_held(self) -> None:
        """After the routes have changed: send what can be, those that are above suspicion first."""
        for pending in in_order_of_suspicion(self._held.values()):
            self._send_again(pending)

    def _send_again(self, pending: Pending) -> None:
        """Send, hold or refuse a request that has no worker any more, or none yet."""
        try:
            target = self.routes.find(pending.spec)
            if self.quarantine.versions:
                self._refuse_quarantined(target.servable, pending.method, pending.payload)
        except FailedPrecondition as error:
            self._refuse(pending, error)
            return
        except PoolError:
            reason = self.routes.message(pending.servable)
            self._lose(pending, f"{settling.died_text(pending.servable)}, and none takes its place: {reason}")
            return
        pending.servable = target.servable
        if not target.workers:
            self._hold(pending)
            return
        self._held.pop(pending.request_id, None)
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None
        now_ns = time.monotonic_ns()
        if not self._send(pending, self._pick(target), now_ns):
            self._refuse(pending, pending.queue.full(_LINK_FULL, now_ns))

    def _lose(self, pending: Pending, text: str) -> None:
        self._settle(pending, Code.UNAVAILABLE, text.encode())

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
        self._open_queues(table)
        for servable, route in workers_of(table):
            cause = self._dead.get(route.incarnation)
            if cause is not None:
                table = without_worker(table, route.incarnation, settling.replaced_text(servable, cause))
            elif route.incarnation not in self._workers:
                link = self._connect(route, partial(self.handle_reply, route.incarnation))
                queue = self._queues[servable.name]
                self._workers[route.incarnation] = Worker(route.incarnation, servable, link, queue)
        for worker in self._workers.values():
            worker.leaving = worker.incarnation not in named
        self.balance.keep(named)
        self.routes = Routes(table)
        self._send_held()
        kept = {model.name for model in table.models}
        self._queues = {name: queue for name, queue in self._queues.items() if name in kept or queue.in_flight}
        return True

    def _open_queues(self, table: RouteTable) -> None:
        """A queue for each model of the table, by its rules."""
        for model in table.models:
            queue = self._queues.get(model.name)
            if queue is None:
                queue = self._queues[model.name] = ModelQueue(model.name, self._bounds.model_bytes)
            workers = sum(len(version.workers) for version in model.versions)
            queue.configure(model.rules, workers, self._bounds.frontends)

    def release_idle(self) -> None:
        """Let go of the workers that leave and have nothing in flight, and of those never connected to."""
        named = {worker.incarnation for _, worker in self.routes.workers()}
        never_connected = self._announced - named - self._workers.keys()
        for worker in list(self._workers.values()):
            self._release_if_idle(worker)
        for incarnation in never_connected:
            self._on_released(incarnation)
        self._announced &= named

    def _release_if_idle(self, worker: Worker) -> None:
        if worker.leaving and not worker.in_flight and self._workers.pop(worker.incarnation, None) is not None:
            worker.link.close()
            self._on_released(worker.incarnation)

    # -- deaths --------------------------------------------------------------------------------------------------

    def bury(self, death: WorkerDied) -> None:
        """A worker died: route no more to it, and settle what is in flight there once all its replies are read."""
        self._dead[death.incarnation] = death.cause
        self._announced.discard(death.incarnation)
        worker = self._workers.pop(death.incarnation, None)
        if worker is None:
            return
        worker.dead = True
        text = settling.replaced_text(worker.servable, death.cause)
        self.routes = Routes(without_worker(self.routes.table, death.incarnation, text))
        self._dying.add(worker)
        if worker.in_flight:
            worker.link.finish(partial(self._settle_death, worker, death))
        else:
            self._settle_death(worker, death)

    def _settle_death(self, worker: Worker, death: WorkerDied) -> None:
        """No reply of this worker can come any more."""
        self._dying.discard(worker)
        worker.link.close()
        sent = [pending for pending in self._pending.values() if pending.worker is worker]  # as they came
        for pending in sent:
            pending.worker = None
        queue, now_ns = worker.queue, time.monotonic_ns()
        verdicts = settling.settle(
            worker.servable,
            death,
            [(pending.request_id, pending.deaths) for pending in sent],
            queue.rules.retry_on_crash,
            lambda wanted: queue.retries.grant(wanted, queue.throughput.came_lately(now_ns), now_ns),
        )
        self._carry_out(verdicts, death.cause)
        counts = Counter(verdict.fate.value for verdict in verdicts)
        names = fields(servable=worker.servable, incarnation=worker.incarnation, cause=death.cause, **counts)
        log.info("settled the requests of a dead worker %s", names)

    def _carry_out(self, verdicts: Sequence[Verdict], cause: str) -> None:
        again = []
        for verdict in verdicts:
            pending = self._pending[verdict.request_id]
            self._witness.settled(pending.queue.name, verdict.fate)
            if verdict.fate is Fate.REFUSED:
                self._lose(pending, verdict.text)
            elif verdict.fate is Fate.POISON:
                self._put_in_quarantine(pending, cause)
                self._settle(pending, Code.FAILED_PRECONDITION, verdict.text.encode())
            else:
                pending.deaths += verdict.fate is Fate.SUSPECT
                again.append(pending)
        for pending in in_order_of_suspicion(again):
            self._send_again(pending)

    def _put_in_quarantine(self, pending: Pending, cause: str) -> None:
        rules = pending.queue.rules
        entry = self.quarantine.isolate(pending.servable, pending.method, pending.payload, rules.quarantine_s)
        mark, size_bytes = entry.fingerprint.hex(), entry.size_bytes
        what = fields(servable=pending.servable, method=pending.method.name, size_bytes=size_bytes, fingerprint=mark)
        log.error("poison request %s", f"{what} {fields(cause=cause, quarantine_s=rules.quarantine_s)}")
        self._witness.poisoned(entry, pending.method, bytes(pending.payload), rules.poison_dir)

    # -- the whole -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all links. What is still in flight gets no answer any more."""
        for worker in (*self._workers.values(), *self._dying):
            worker.link.close()

    def in_flight(self) -> dict[int, int]:
        """Requests in flight by worker incarnation."""
        return {int(worker.incarnation): worker.in_flight for worker in self._workers.values()}

    @property
    def held(self) -> int:
        """Requests that wait for a worker."""
        return len(self._held)
