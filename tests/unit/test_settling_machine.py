"""A core, workers that execute, die and come back, and clients that leave, in any order that hypothesis can think of.

The workers keep the contract of a real one: each takes its requests in their order, executes several at a time but for
those that are to be alone, and notes in its flight recorder what it has begun and what it has finished. Some payloads
are deadly. At the end every request that was accepted has had exactly one answer, and nothing was executed that must
not be.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelpool.frontend.in_flight import Awaited, Bounds
from modelpool.frontend.retry_budget import RESERVE
from modelpool.frontend.settling import Fate
from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import NO_DEADLINE_NS
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute, RequestRules, RetryOnCrash, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, FailedPrecondition, Overloaded, PoolError
from tests.unit.core_bench import Bench, FakeLink

RULES = {
    "once": RequestRules(RetryOnCrash.ONCE, quarantine_s=3600.0, max_queued_requests=20),
    "never": RequestRules(RetryOnCrash.NEVER, quarantine_s=3600.0, max_queued_requests=20),
}
DEADLY = frozenset({b"bad", b"worse"})
PAYLOADS = st.sampled_from([*(bytes((letter,)) for letter in b"abcdefghijklmnop"), *sorted(DEADLY)])
MODELS = st.sampled_from(sorted(RULES))
SIZES = st.integers(1, 4)
PICK = st.integers(0, 1000)


@dataclass
class Worker:
    """A process: what it has read, what it executes, what it has finished and whether the answer has left."""

    incarnation: int
    model: str
    read: int = 0
    executing: list[tuple[int, bytes]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    unsent: list[int] = field(default_factory=list)

    def take(self, link: FakeLink, size: int) -> None:
        """Begin with the next requests in their order: several, or one that is to be alone."""
        while self.read < len(link.sent) and len(self.executing) < size:
            head, payload = link.sent[self.read], link.payloads[self.read]
            if head.alone and self.executing:
                return
            self.read += 1
            if head.request_id in link.cancelled:
                continue
            self.executing.append((head.request_id, payload))
            if head.alone:
                return


class Settling(RuleBasedStateMachine):
    """`accepted` has every request that was accepted; `executed` counts how often each was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.workers: dict[str, list[Worker]] = {name: [] for name in RULES}
        self.last_incarnation = 0
        self.accepted: list[Awaited] = []
        self.dropped: set[int] = set()
        self.executed: Counter[int] = Counter()
        self.killed_by: Counter[int] = Counter()
        self.unlucky: set[int] = set()
        self.gone: set[str] = set()
        self.poison: set[tuple[str, bytes]] = set()

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            self.loop.close()

    def _do(self, action: object) -> None:
        """In the loop, since the core makes futures and timers; and let their callbacks run."""

        async def run() -> None:
            assert callable(action)
            action()
            await asyncio.sleep(0)

        self.loop.run_until_complete(run())

    @initialize()
    def start(self) -> None:
        def make() -> None:
            self.bench = Bench(bounds=Bounds(hold_s=3600.0))

        self._do(make)
        for name in RULES:
            self._start_worker(name)
        self._publish()

    def _start_worker(self, name: str) -> None:
        self.last_incarnation += 1
        self.workers[name].append(Worker(self.last_incarnation, name))

    def _publish(self) -> None:
        models = []
        for name, rules in RULES.items():
            if name in self.gone:
                version = VersionRoute(1, ServableState.END, Code.UNAVAILABLE, "given up", ())
            elif self.workers[name]:
                routes = tuple(WorkerRoute(Incarnation(worker.incarnation), "") for worker in self.workers[name])
                version = VersionRoute(1, ServableState.AVAILABLE, Code.OK, "", routes)
            else:
                version = VersionRoute(1, ServableState.LOADING, Code.UNAVAILABLE, "died", (), returning=True)
            models.append(ModelRoute(name, (version,), {}, rules=rules))
        self._do(lambda: self.bench.publish(*models))

    def _any_worker(self, name: str, pick: int) -> Worker | None:
        workers = self.workers[name]
        return workers[pick % len(workers)] if workers else None

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(name=MODELS, payloads=st.lists(PAYLOADS, min_size=1, max_size=8), deadline=st.booleans())
    def submit(self, name: str, payloads: list[bytes], deadline: bool) -> None:
        for payload in payloads:
            self._submit(name, payload, deadline)

    def _submit(self, name: str, payload: bytes, deadline: bool) -> None:
        deadline_ns = time.monotonic_ns() + 3600 * 10**9 if deadline else NO_DEADLINE_NS

        def send() -> None:
            try:
                self.accepted.append(self.bench.submit(deadline_ns, model=name, payload=payload))
            except Overloaded:
                assert sum(not each.answer.done() for each in self._of(name)) >= RULES[name].max_queued_requests
            except FailedPrecondition:
                assert (name, payload) in self.poison
            except PoolError:
                assert name in self.gone
            else:
                assert (name, payload) not in self.poison

        self._do(send)

    @rule(name=MODELS, pick=PICK, size=SIZES)
    def begin(self, name: str, pick: int, size: int) -> None:
        """A worker takes its next requests; a deadly one kills it."""
        worker = self._any_worker(name, pick)
        if worker is None or worker.executing:
            return
        link = self.bench.links[worker.incarnation]
        worker.take(link, size)
        for request_id, payload in worker.executing:
            self.executed[request_id] += 1
            assert (name, payload) not in self.poison or request_id in self.dropped
        if any(payload in DEADLY for _, payload in worker.executing):
            self._die(worker)

    @rule(name=MODELS, pick=PICK, sends=st.booleans())
    def finish(self, name: str, pick: int, sends: bool) -> None:
        """A worker has executed what it had begun; its answers leave now, or later, or never."""
        worker = self._any_worker(name, pick)
        if worker is None:
            return
        ids = [request_id for request_id, _ in worker.executing]
        worker.executing = []
        worker.finished += ids
        worker.unsent += ids
        if sends:
            self._send_answers(worker)

    def _send_answers(self, worker: Worker) -> None:
        ids, worker.unsent = worker.unsent, []
        for request_id in ids:
            self._do(lambda request_id=request_id: self.bench.reply(worker.incarnation, request_id))

    @rule(name=MODELS, pick=PICK, written=st.booleans())
    def kill(self, name: str, pick: int, written: bool) -> None:
        """From outside, whatever it does. `written`: its last answers are on their way and will be read."""
        worker = self._any_worker(name, pick)
        if worker is not None:
            self.unlucky |= {request_id for request_id, _ in worker.executing}
            self._die(worker, written)

    @rule(name=MODELS, pick=PICK, size=SIZES, written=st.booleans())
    def die_with_answers(self, name: str, pick: int, size: int, written: bool) -> None:
        """It executes some, and dies with their answers: in its memory, or written and still unread."""
        self.begin(name, pick, size)
        worker = self._any_worker(name, pick)
        if worker is not None:
            self.finish(name, pick, False)
            self._die(worker, written)

    @rule(name=MODELS)
    def serve(self, name: str) -> None:
        """All workers come back, execute and answer for a while."""
        self.come_back(name, False)
        for _ in range(3):
            for pick in range(len(self.workers[name])):
                self.begin(name, pick, 4)
                self.finish(name, pick, True)

    def _die(self, worker: Worker, written: bool = False) -> None:
        self.workers[worker.model].remove(worker)
        executing = [request_id for request_id, _ in worker.executing]
        self.killed_by.update(executing)
        link = self.bench.links[worker.incarnation]
        link.slow_end = written
        self._do(lambda: self.bench.die(worker.incarnation, executing, worker.finished))
        if written:
            read = [each for each in self.accepted if each.request_id in worker.unsent and not each.answer.done()]
            self._send_answers(worker)
            if link.on_finished is not None:
                self._do(link.on_finished)
            assert all(each.request_id in self.dropped or each.answer.result()[0] is Code.OK for each in read)
        for entry, payload, _ in self.bench.witness.poison:
            self.poison.add((entry.name, payload))

    @rule(name=MODELS, more=st.booleans())
    def come_back(self, name: str, more: bool) -> None:
        """The next incarnation, or a second replica, is ready."""
        if len(self.workers[name]) < 1 + more:
            self._start_worker(name)
            self.gone.discard(name)
        self._publish()

    @rule(name=MODELS)
    def give_up(self, name: str) -> None:
        """The version is FAILED: too many deaths."""
        if not self.workers[name]:
            self.gone.add(name)
            self._publish()

    @precondition(lambda self: self.accepted)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        """A client is gone."""
        pending = self.accepted[pick % len(self.accepted)]
        if not pending.answer.done():
            self.dropped.add(pending.request_id)
            self._do(lambda: self.bench.core.drop(pending))

    @precondition(lambda self: self.accepted)
    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        pending = self.accepted[pick % len(self.accepted)]
        if not pending.answer.done() and pending.request_id not in self.dropped:
            self.unlucky.add(pending.request_id)
            self._do(lambda: self.bench.core._expire(pending))
            assert pending.answer.result()[0] is Code.DEADLINE_EXCEEDED

    # -- what must hold ------------------------------------------------------------------------------------------------

    def _of(self, name: str) -> list[Awaited]:
        return [each for each in self.accepted if each.servable.name == name and each.request_id not in self.dropped]

    @invariant()
    def what_must_not_be_executed_twice_is_not(self) -> None:
        for pending in self.accepted:
            if pending.servable.name == "never":
                assert self.executed[pending.request_id] <= 1

    @invariant()
    def nobody_kills_more_than_twice(self) -> None:
        assert all(count <= 2 for count in self.killed_by.values())

    @invariant()
    def what_is_in_flight_is_counted(self) -> None:
        waiting = [each for each in self.accepted if not each.answer.done() and each.request_id not in self.dropped]
        assert self.bench.core.in_flight_bytes == sum(len(each.payload) for each in waiting)
        assert self.bench.core.held <= len(waiting)

    @invariant()
    def retries_stay_within_their_budget(self) -> None:
        suspects = Counter(model for model, fate in self.bench.witness.fates if fate is Fate.SUSPECT)
        for name, count in suspects.items():
            # The first death's, at most four, pass without being asked; the test takes less than one window.
            assert count <= RESERVE + len(self._of(name)) // 10 + 4

    def _end(self) -> None:
        """Let everybody come back and answer: then every request has had its one answer."""
        for _ in range(100):
            for name in RULES:
                if not self.workers[name]:
                    self.come_back(name, False)
                for worker in list(self.workers[name]):
                    self.finish(name, self.workers[name].index(worker), True)
                    self.begin(name, self.workers[name].index(worker), 4)
            if all(each.answer.done() or each.request_id in self.dropped for each in self.accepted):
                break
        settled = [each for each in self.accepted if each.request_id not in self.dropped]
        assert all(each.answer.done() for each in settled)
        assert self.bench.core.answered == len(settled)
        assert self.bench.core.in_flight_bytes == self.bench.core.held == 0
        for pending in settled:
            self._check_answer(pending)
        for link in self.bench.links.values():
            assert all(isinstance(head, data.RequestHeader) for head in link.sent)

    def _check_answer(self, pending: Awaited) -> None:
        """A harmless request is answered, but for those that had bad luck or wait for a version that is given up."""
        error = pending.answer.exception()
        code = error.status.code if isinstance(error, PoolError) else pending.answer.result()[0]
        harmless = pending.payload not in DEADLY
        once = pending.servable.name == "once"
        if code is Code.OK:
            assert harmless
            assert self.executed[pending.request_id]
        elif code is Code.FAILED_PRECONDITION:
            assert once
            # A harmless request that was killed twice from outside is taken for poison, and so is what is the same.
            unlucky = {each.payload for each in self.accepted if each.request_id in self.unlucky}
            assert not harmless or pending.payload in unlucky


TestSettling = Settling.TestCase
TestSettling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
