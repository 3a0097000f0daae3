"""What becomes of the requests of a dead worker: each rule of the design, and the core that carries it out."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend.in_flight import Awaited, Bounds
from modelpool.frontend.quarantine import fingerprint
from modelpool.frontend.retry_budget import RESERVE, RetryBudget
from modelpool.frontend.settling import Fate, Lookalikes, Verdict, settle
from modelpool.frontend.throughput import SPAN_NS, Throughput
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import Quarantined, WorkerDied
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.route_table import RequestRules, RetryOnCrash, VersionRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, FailedPrecondition, Overloaded
from tests.unit.core_bench import Bench, in_loop

S = ServableId("m", 1)
ONCE, NEVER = RetryOnCrash.ONCE, RetryOnCrash.NEVER
RETURNING = VersionRoute(1, ServableState.LOADING, Code.UNAVAILABLE, "killed", (), returning=True)


def death(executing: tuple[int, ...] = (), finished: tuple[int, ...] = ()) -> WorkerDied:
    return WorkerDied(Incarnation(7), "killed by SIGKILL", executing, finished)


def fates(verdicts: object) -> dict[int, Fate]:
    assert isinstance(verdicts, list)
    return {verdict.request_id: verdict.fate for verdict in verdicts}


# -- the rules ---------------------------------------------------------------------------------------------------------


def test_the_table_of_the_design() -> None:
    sent = [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
    told = death(executing=(2, 5, 99), finished=(3, 6, 98))
    assert fates(settle(S, told, sent, ONCE, lambda wanted: wanted)) == {
        1: Fate.QUEUED,
        2: Fate.SUSPECT,
        3: Fate.ANSWER_LOST,
        4: Fate.QUEUED,
        5: Fate.POISON,
        6: Fate.ANSWER_LOST,
    }
    assert fates(settle(S, told, sent[:3], NEVER, lambda wanted: wanted)) == {
        1: Fate.QUEUED,
        2: Fate.REFUSED,
        3: Fate.REFUSED,
    }


def test_the_texts() -> None:
    told = death(executing=(1,), finished=(2,))
    begins = "The worker of model m version 1 died"
    again = '(killed by SIGKILL); it was not tried again: retry_on_crash is "never"'
    never = settle(S, told, [(1, 0), (2, 0)], NEVER, lambda wanted: wanted)
    assert [verdict.text for verdict in never] == [
        f"{begins} while it executed this request {again}",
        f"{begins} when it had executed this request, before the answer came {again}",
    ]
    (over,) = settle(S, told, [(1, 0)], ONCE, lambda _: 0)
    assert over == Verdict(
        1,
        Fate.REFUSED,
        f"{begins} while it executed this request (killed by SIGKILL); it was not tried again: more than one in 10 "
        "requests of the model would have been, of late",
    )


def test_the_budget_of_one_whole_batch_and_then_of_a_tenth() -> None:
    budget = RetryBudget()
    assert budget.grant(1000, 0, 0) == 1000
    assert budget.grant(5, 9000, 1) == 0
    assert budget.grant(50, 9200, 1) == 20
    assert budget.grant(50, 9200, 2) == 0
    assert budget.grant(7, 0, SPAN_NS + 2) == 7
    assert budget.grant(RESERVE, 0, SPAN_NS + 3) == RESERVE - 7


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 500), st.integers(0, SPAN_NS // 3)), max_size=40))
def test_a_window_never_has_more_retries_than_its_budget(deaths: list[tuple[int, int, int]]) -> None:
    budget, now_ns, granted = RetryBudget(), 0, []
    for wanted, came, later_ns in deaths:
        now_ns += later_ns
        spent = sum(count for at_ns, count in granted if at_ns > now_ns - SPAN_NS)
        count = budget.grant(wanted, came, now_ns)
        assert 0 <= count <= wanted
        assert not spent or not count or spent + count <= RESERVE + came // 10
        granted.append((now_ns, count))


def test_throughput_forgets() -> None:
    lately, second = Throughput(), 10**9
    assert (lately.rate(0), lately.came_lately(0)) == (0.0, 0)
    for number in range(100):
        lately.came += 10
        lately.answered += 5
        lately.mark(number * second)
    now_ns = 99 * second
    assert lately.came_lately(now_ns) == 100
    assert lately.rate(now_ns) == 5.0
    assert lately.came_lately(now_ns + 1000 * second) == 0


@given(st.lists(st.binary(max_size=600)), st.binary(max_size=600))
def test_lookalikes_are_the_same(suspects: list[bytes], payload: bytes) -> None:
    same = Lookalikes(suspects)
    assert (payload in same) == (payload in suspects)
    assert all(bytes(bytearray(suspect)) in same for suspect in suspects)


# -- the core ----------------------------------------------------------------------------------------------------------


def outcome(pending: Awaited) -> tuple[Code, str]:
    code, raw = pending.answer.result()
    return code, raw.decode()


def test_the_queued_go_to_a_sibling_at_once_and_suspects_alone_behind_them() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7, 8)
        batch = [bench.submit(payload=b"%d" % number) for number in range(6)]
        sent = {pending.request_id: pending for pending in batch}
        own = bench.links[7].ids
        bench.die(7, executing=own[:1])
        assert bench.links[7].closed
        again = [(head.request_id, head.alone) for head in bench.links[8].sent[3:]]
        assert again == [(own[1], False), (own[2], False), (own[0], True)]
        for request_id in list(sent):
            bench.reply(8, request_id)
        assert all(outcome(pending) == (Code.OK, "") for pending in sent.values())
        assert sorted(fate for _, fate in bench.witness.fates) == [Fate.QUEUED, Fate.QUEUED, Fate.SUSPECT]

    in_loop(test)


def test_innocents_go_before_suspects_and_those_before_what_looks_the_same() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        same, guilty, other = (bench.submit(payload=payload) for payload in (b"bad", b"bad", b"good"))
        bench.die(7, executing=[guilty.request_id])
        late = bench.submit(payload=b"bad")
        assert bench.core.held == 4
        bench.route(8)
        assert [(head.request_id, head.alone) for head in bench.links[8].sent] == [
            (other.request_id, False),
            (guilty.request_id, True),
            (same.request_id, True),
            (late.request_id, True),
        ]

    in_loop(test)


def test_poison_is_refused_and_so_is_what_is_the_same_for_a_while() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(quarantine_s=60.0, poison_dir="/p"))
        bench.route(7)
        batch = [bench.submit(payload=b"%d" % (number % 4)) for number in range(32)]
        bench.die(7, executing=[pending.request_id for pending in batch])
        bench.route(8)
        guilty = batch[1]
        for pending in batch[:1]:
            bench.reply(8, pending.request_id)
        bench.die(8, executing=[guilty.request_id], finished=[batch[0].request_id])
        code, text = outcome(guilty)
        assert code is Code.FAILED_PRECONDITION
        assert text.endswith("when the request was tried once more, alone; it is refused as poison")
        (poison,) = bench.witness.poison
        assert poison[1:] == (b"1", "/p")
        assert poison[0].fingerprint == fingerprint(Method.PREDICT, b"1")
        bench.route(9)
        same = [pending for pending in batch if pending.payload == b"1" and pending is not guilty]
        assert len(same) == 7
        for pending in same:
            error = pending.answer.exception()
            assert isinstance(error, FailedPrecondition)
            assert "is the same as one that killed two workers of model m version 1" in error.message
        innocent = [pending for pending in batch[1:] if pending.payload != b"1"]
        assert sorted(bench.links[9].ids) == [pending.request_id for pending in innocent]
        assert all(head.alone for head in bench.links[9].sent)
        for pending in innocent:
            bench.reply(9, pending.request_id)
        assert all(outcome(pending) == (Code.OK, "") for pending in innocent)
        with pytest.raises(FailedPrecondition, match="refused for another 60 s"):
            bench.submit(payload=b"1")
        bench.submit(payload=b"2")
        assert bench.witness.refused == 8

    in_loop(test)


def test_what_came_after_a_suspect_and_is_the_same_is_refused_with_it() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        guilty = bench.submit(payload=b"bad")
        bench.die(7, executing=[guilty.request_id])
        bench.route(8)
        late = bench.submit(payload=b"bad")
        bench.die(8, executing=[guilty.request_id])
        bench.route(9)
        assert isinstance(late.answer.exception(), FailedPrecondition)
        assert bench.links[9].sent == []

    in_loop(test)


def test_a_quarantine_that_another_frontend_found() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        until_ns = time.monotonic_ns() + 10**12
        bench.core.quarantine.add(Quarantined("m", 1, fingerprint(Method.PREDICT, b"1"), 1, until_ns))
        bench.core.quarantine.add(Quarantined("m", 2, fingerprint(Method.PREDICT, b"2"), 1, until_ns))
        bench.core.quarantine.add(Quarantined("m", 1, fingerprint(Method.PREDICT, b"3"), 1, 1))
        with pytest.raises(FailedPrecondition):
            bench.submit(payload=b"1")
        bench.submit(payload=b"2")
        bench.submit(payload=b"3")

    in_loop(test)


def test_never_executes_nothing_twice() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(NEVER))
        bench.route(7)
        finished, executing, queued = (bench.submit() for _ in range(3))
        bench.die(7, executing=[executing.request_id], finished=[finished.request_id])
        for pending in (finished, executing):
            code, text = outcome(pending)
            assert code is Code.UNAVAILABLE
            assert text.endswith('it was not tried again: retry_on_crash is "never"')
        bench.route(8)
        assert bench.links[8].ids == [queued.request_id]
        assert not bench.links[8].sent[0].alone

    in_loop(test)


def test_replies_that_the_dead_worker_had_sent_are_read_first() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(NEVER))
        bench.route(7)
        bench.links[7].slow_end = True
        first, second = bench.submit(), bench.submit()
        bench.die(7, finished=[first.request_id])
        bench.route(8)
        assert bench.links[8].sent == []
        bench.core.drop(second)
        assert bench.links[7].cancelled == []
        bench.reply(7, first.request_id, b"at last")
        on_finished = bench.links[7].on_finished
        assert on_finished is not None
        on_finished()
        assert outcome(first) == (Code.OK, "at last")
        assert bench.links[7].closed
        assert bench.links[8].sent == []

    in_loop(test)


def test_requests_wait_for_the_next_worker_within_their_deadline() -> None:
    async def test() -> None:
        bench = Bench(RequestRules(max_queued_requests=3))
        bench.route(7)
        before = bench.submit()
        bench.die(7)
        bench.publish(bench.model(RETURNING))
        hasty = bench.submit(time.monotonic_ns() + 10_000_000)
        gone = bench.submit()
        with pytest.raises(Overloaded):
            bench.submit()
        code, _ = await asyncio.wait_for(hasty.answer, 5)
        assert code is Code.DEADLINE_EXCEEDED
        bench.core.drop(gone)
        assert bench.core.held == 1
        bench.route(8)
        assert bench.links[8].ids == [before.request_id]
        assert bench.core.held == 0

    in_loop(test)


def test_a_wait_without_a_deadline_has_an_end() -> None:
    async def test() -> None:
        bench = Bench(bounds=Bounds(hold_s=0.01))
        bench.route(7)
        pending = bench.submit()
        bench.die(7)
        code, raw = await asyncio.wait_for(pending.answer, 5)
        assert code is Code.UNAVAILABLE
        assert raw == b"The worker of model m version 1 died, and no other was there within 0.01 s"

    in_loop(test)


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ((), "it is not configured any more"),
        ((VersionRoute(1, ServableState.END, Code.UNAVAILABLE, "21 deaths within 60 s", ()),), "21 deaths within 60 s"),
        ((VersionRoute(1, ServableState.LOADING, Code.NOT_FOUND, "no model", ()),), "no model"),
    ],
)
def test_who_waits_for_a_version_that_does_not_come_back_is_told_why(
    versions: tuple[VersionRoute, ...], reason: str
) -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        pending = bench.submit()
        bench.die(7)
        bench.publish(*map(bench.model, versions))
        text = f"The worker of model m version 1 died, and none takes its place: {reason}"
        assert outcome(pending) == (Code.UNAVAILABLE, text)
        assert bench.core.in_flight_bytes == bench.core.held == 0

    in_loop(test)


def test_a_sibling_that_is_full_is_an_answer() -> None:
    async def test() -> None:
        bench = Bench()
        bench.route(7)
        pending = bench.submit()
        bench.route(7, 8)
        bench.links[8].full = True
        bench.die(7)
        assert isinstance(pending.answer.exception(), Overloaded)

    in_loop(test)
