"""Whether the threads of a process wait for each other, decided by what they did, look by look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.wire.gathering import (
    AGAIN_LIMIT_S,
    AGAIN_S,
    ANOTHER,
    FRONTEND,
    LONG_NS,
    PERIOD_S,
    RARELY,
    SOONER,
    WORKER,
    Gathering,
    Rules,
    Turns,
)

TURNS = 1000
RAN_NS = 200_000
CALM = 0.5
"""Of what threads ran they waited so much, where all is well."""


class Looks:
    """A decision, looked at each period."""

    def __init__(self, rules: Rules = FRONTEND) -> None:
        self.gathering = Gathering(rules)
        self.now_s = 50.0

    def see(self, waits: float = CALM, *, calls: float = TURNS, count: int = TURNS, ran_ns: int = RAN_NS) -> bool:
        """`waits`: so many times as long as they ran."""
        self.now_s += PERIOD_S
        turns = Turns(count, count * ran_ns, round(count * ran_ns * waits))
        return self.gathering.look(self.now_s, turns, round(calls))

    def off_for(self, waits: float, count: int = TURNS) -> float:
        """For how long it was left off, in seconds, when it is on and they wait so long again."""
        assert not self.see(waits, count=count)
        looks = 1
        while not self.see(waits, count=count):
            looks += 1
            assert looks * PERIOD_S <= 2 * AGAIN_LIMIT_S
        return looks * PERIOD_S


TOO_LONG = FRONTEND.patience + 0.1


def test_a_process_gathers_from_the_first_look_on_that_says_something() -> None:
    looks = Looks()
    assert not looks.see(count=RARELY - 1), "next to nothing was done"
    assert looks.see(count=RARELY, calls=0)


@pytest.mark.parametrize("rules", [FRONTEND, WORKER])
def test_it_is_left_off_where_threads_wait_for_much_longer_than_they_run(rules: Rules) -> None:
    looks = Looks(rules)
    assert looks.see(calls=10 * TURNS)
    assert looks.see(rules.patience, calls=10 * TURNS)
    assert not looks.see(rules.patience + 0.1, calls=10 * TURNS)


def test_short_waits_matter_to_nobody_however_short_the_turns_are() -> None:
    looks = Looks()
    ran_ns = 10_000
    looks.see()
    assert looks.see(LONG_NS / ran_ns, ran_ns=ran_ns)
    assert not looks.see(LONG_NS / ran_ns + 0.1, ran_ns=ran_ns)


def test_it_is_tried_again_ever_more_seldom() -> None:
    looks = Looks()
    looks.see()
    spans = [looks.off_for(TOO_LONG) for _ in range(9)]
    assert spans[:4] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S, 8 * AGAIN_S]
    assert spans[-2:] == [AGAIN_LIMIT_S, AGAIN_LIMIT_S]


def test_what_went_well_for_as_long_as_it_was_left_off_begins_anew() -> None:
    looks = Looks()
    looks.see()
    for _ in range(3):
        looks.off_for(TOO_LONG)
    for _ in range(round(4 * AGAIN_S / PERIOD_S)):
        assert looks.see()
    assert looks.off_for(TOO_LONG) == AGAIN_S
    assert looks.see(), "and that was just now, so the next one"
    assert looks.off_for(TOO_LONG) == 2 * AGAIN_S


def test_a_period_that_went_badly_is_none_that_went_well() -> None:
    looks = Looks()
    looks.see()
    assert looks.off_for(TOO_LONG) == AGAIN_S
    for _ in range(round(AGAIN_S / PERIOD_S) - 1):
        assert looks.see()
    assert looks.off_for(TOO_LONG) == 2 * AGAIN_S


@pytest.mark.parametrize("times", [1.1 * ANOTHER, 0.9 / ANOTHER], ids=["more", "less"])
def test_another_load_is_tried_sooner(times: float) -> None:
    looks = Looks()
    looks.see()
    for _ in range(5):
        looks.off_for(TOO_LONG)
    assert not looks.see(TOO_LONG)
    for _ in range(round(32 * AGAIN_S / SOONER / PERIOD_S)):
        assert not looks.see(), "the same load"
    assert looks.see(count=round(times * TURNS))


def test_pauses_in_what_goes_well_are_no_reason_to_wait() -> None:
    looks = Looks()
    looks.see()
    for _ in range(4):
        looks.off_for(TOO_LONG)
    for _ in range(round(8 * AGAIN_S / PERIOD_S)):
        assert looks.see()
        assert looks.see(), "it has gone well for a period"
        assert not looks.see(count=RARELY - 1)
    assert looks.see()
    assert looks.off_for(TOO_LONG) == AGAIN_S, "and all of it counts"


def test_having_other_numbers_of_turns_while_left_off_is_no_other_load() -> None:
    looks = Looks()
    looks.see(count=TURNS)
    for _ in range(9):
        assert not looks.see(TOO_LONG, count=TURNS)
        looks_off = 1
        while not looks.see(CALM, count=round(1.1 * ANOTHER * TURNS)):
            looks_off += 1
    assert looks_off * PERIOD_S == AGAIN_LIMIT_S


def test_one_that_comes_and_goes_is_no_other_load_again_and_again() -> None:
    looks, tries, was_on = Looks(), 0, False
    for look in range(round(120 / PERIOD_S)):
        on = looks.see(TOO_LONG if was_on else CALM, count=TURNS if look // 4 % 2 else TURNS // 4)
        tries += on and not was_on
        was_on = on
    assert 8 < tries <= 16


def test_a_worker_gathers_only_while_several_calls_come_at_a_time() -> None:
    looks = Looks(WORKER)
    assert not looks.see(calls=WORKER.several * TURNS - 1)
    assert looks.see(calls=WORKER.several * TURNS)
    assert looks.see(calls=WORKER.few * TURNS)
    assert not looks.see(calls=WORKER.few * TURNS - 1)
    assert not looks.see(calls=WORKER.few * TURNS), "it would have had to go on"
    assert looks.see(calls=WORKER.several * TURNS), "that is no reason to wait"


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 20), st.integers(0, 20_000)), max_size=60))
def test_at_any_look(seen: list[tuple[int, float, int]]) -> None:
    """Nothing goes on after threads had to wait for long; it is never left off for longer than the limit."""
    looks = Looks()
    for count, waits, calls in seen:
        was_on = looks.gathering.on
        on = looks.see(waits, calls=calls, count=count)
        if count < RARELY:
            assert not on
        elif was_on:
            assert on is not (waits > FRONTEND.patience and waits * RAN_NS > LONG_NS + 1)
    for _ in range(round(AGAIN_LIMIT_S / PERIOD_S) + 1):
        looks.see()
    assert looks.gathering.on
