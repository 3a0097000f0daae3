"""Who gives way on the CPUs, look by look."""

import itertools
import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.fair_share import (
    DOUBT_S,
    EQUALLY_OFTEN,
    FREE_S,
    LINGER_S,
    LOOKS,
    NO_EQUAL_S,
    RELIEF_S,
    SHORT,
    STARVED_S,
    TOO_MUCH,
    TOO_OFTEN,
    FairShare,
    Usage,
    neighbours,
)

PERIOD_S = 0.1


def busy() -> float:
    return 0.0


class Looks:
    """A share, looked at each PERIOD_S, or less often."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.share = FairShare(2)
        self.period_s = period_s

    def see(self, idle: Callable[[], float] = busy, times: int = TOO_OFTEN, **cpus: float) -> set[str]:
        """As many times as it takes to be sure."""
        usage = {name: Usage(each, 100) for name, each in cpus.items()}
        for _ in range(times - 1):
            self.share.look(usage, self.period_s, idle)
        return set(self.share.look(usage, self.period_s, idle))

    def until(self, giving_way: AbstractSet[str], limit: int = 2 * EQUALLY_OFTEN, **cpus: float) -> int:
        """How many looks it takes until just these give way."""
        return next(looks for looks in range(1, limit + 1) if self.see(times=1, **cpus) == giving_way)


def test_who_uses_more_than_its_share_gives_way_while_another_works() -> None:
    looks = Looks()
    assert looks.see(a=0.0, b=1.9) == set()
    assert looks.see(a=0.3, b=0.8, times=TOO_OFTEN - 1) == set()
    assert looks.see(a=0.3, b=0.8, times=1) == {"b"}, "of what is left beside the frontends"
    assert looks.see(a=0.5, b=0.4) == {"b"}, "what it gets now is not what it wants"


def test_once_in_a_while_is_chance() -> None:
    looks = Looks()
    for _ in range(5):
        assert looks.see(a=0.3, b=0.8, times=TOO_OFTEN - 1) == set()
        assert looks.see(a=0.8, b=0.8, times=1) == set()


def test_what_was_too_much_before_all_others_went_is_forgotten() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4, times=TOO_OFTEN - 1)
    looks.see(b=1.9, times=20)
    assert looks.see(a=0.3, b=1.4, times=1) == set(), "once is chance"


def test_while_cpus_are_idle_nobody_gives_way() -> None:
    looks = Looks()
    assert looks.see(lambda: SHORT + 0.01, a=0.1, b=1.0) == set()
    assert looks.see(lambda: SHORT, a=0.1, b=1.0) == {"b"}


def test_equals_are_not_set_apart() -> None:
    looks = Looks()
    for a in (0.8, 1.0, 1.2):
        assert looks.see(a=a, b=2.0 - a) == set()


def test_equals_that_were_set_apart_by_chance_are_not_again_and_again() -> None:
    looks = Looks()
    seen = []
    for _ in range(3):
        seen.append(looks.until({"b"}, a=0.4, b=1.0))
        assert looks.until(set(), a=1.0, b=0.4) == LOOKS, "equals again, as soon as ever"
        looks.see(b=1.0, times=30)  # a is being restarted
        looks.see(a=0.7, b=0.7)
    assert seen == [TOO_OFTEN, EQUALLY_OFTEN, EQUALLY_OFTEN]
    assert looks.until({"a"}, a=1.0, b=0.4) == TOO_OFTEN, "it was not this one"


def test_so_are_those_to_which_other_programs_leave_too_little_to_have_their_share_of_all_cpus() -> None:
    looks = Looks()
    assert looks.until({"b"}, a=0.2, b=0.5) == TOO_OFTEN
    looks.until(set(), a=0.5, b=0.2)
    assert looks.until({"b"}, a=0.2, b=0.5) == EQUALLY_OFTEN


def test_a_flood_that_gave_way_for_long_was_no_equal() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    assert looks.see(a=1.0, b=0.4) == set()
    assert looks.until({"b"}, a=0.3, b=1.4) == EQUALLY_OFTEN
    looks.see(a=0.3, b=1.4, times=round(NO_EQUAL_S / PERIOD_S))
    looks.see(b=1.4, times=round(LINGER_S / PERIOD_S) + 1)
    assert looks.until({"b"}, a=0.3, b=1.4) == TOO_OFTEN


@pytest.mark.parametrize(("after_s", "often"), [(FREE_S - 3.0, EQUALLY_OFTEN), (FREE_S + 1.0, TOO_OFTEN)])
def test_one_that_was_an_equal_may_be_a_flood_after_a_while(after_s: float, often: int) -> None:
    looks = Looks()
    looks.see(a=0.4, b=1.0)
    assert looks.see(a=1.0, b=0.4) == set()
    looks.see(a=0.7, b=0.7, times=round(after_s / PERIOD_S))
    assert looks.until({"b"}, a=0.4, b=1.0) == often


def test_a_gap_between_requests_is_no_end() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.6)
    assert looks.see(a=0.0, b=2.0, times=round(LINGER_S / PERIOD_S) - 1) == {"b"}
    assert looks.see(a=0.0, b=2.0, times=2) == set()


def test_idle_cpus_end_it_after_a_while() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.6)
    assert looks.see(lambda: 0.8, a=0.3, b=0.1, times=3) == {"b"}
    assert looks.see(lambda: 0.8, a=0.3, b=0.1, times=1) == set()
    assert looks.see(a=0.3, b=1.6) == {"b"}
    assert looks.see(a=0.3, b=1.6) == {"b"}, "nothing is left of the last one's end"


def test_idle_is_asked_for_only_where_several_work() -> None:
    def never() -> float:
        raise AssertionError

    assert Looks().see(never, a=0.01, b=1.9) == set()


def test_two_floods_are_equals_again() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    assert looks.see(a=0.85, b=0.2) == {"b"}, "it may have its share of all CPUs"
    assert looks.see(a=0.95, b=0.2) == set()


def test_a_second_flood_of_three() -> None:
    looks = Looks()
    assert looks.see(a=0.2, b=0.2, c=1.0) == {"c"}
    assert looks.see(a=0.2, b=0.7, c=0.1) == {"b", "c"}
    assert looks.see(a=0.55, b=0.3, c=0.3) == {"b", "c"}
    assert looks.see(a=0.65, b=0.3, c=0.3) == set(), "all three are"


def test_who_was_busy_when_the_flood_began_is_not_taken_for_it_for_long() -> None:
    """The flood gets what the frontends and other programs leave, which may be far less than its share of all CPUs."""
    looks = Looks()
    assert looks.see(a=0.4, b=0.05) == {"a"}
    assert looks.see(a=0.1, b=0.7, times=round(DOUBT_S / PERIOD_S) - 1) == {"a"}
    assert looks.see(a=0.1, b=0.7, times=2) == set(), "equals again"
    assert looks.see(a=0.3, b=0.6) == {"b"}
    assert looks.see(a=0.4, b=0.3, times=50) == {"b"}


def test_who_has_fallen_behind_the_flood_may_catch_up() -> None:
    looks = Looks()
    looks.see(a=0.2, b=0.9)
    assert looks.see(a=0.8, b=0.3, times=round(DOUBT_S / PERIOD_S) - 2) == {"b"}
    assert looks.see(a=0.4, b=0.7, times=50) == {"b"}


def test_who_has_much_work_beside_the_flood_is_doubted_ever_more_seldom() -> None:
    looks = Looks()
    looks.see(a=0.2, b=0.9)
    doubts = []
    for look in range(700):
        if not looks.see(a=0.8, b=0.3, times=1):
            doubts.append(look)
            looks.until({"b"}, a=0.2, b=0.9)
    assert len(doubts) == 6
    for (earlier, later), wait_s in zip(itertools.pairwise(doubts), (2, 4, 8, 16, 32), strict=True):
        assert wait_s <= (later - earlier) * PERIOD_S <= wait_s + 3 * PERIOD_S


def test_others_that_take_what_the_flood_leaves_make_nobody_else_a_flood() -> None:
    looks = Looks()
    looks.see(a=0.4, b=1.1)
    assert looks.see(a=0.4, b=0.1, times=50) == {"b"}


def test_light_ones_come_back_from_beside_the_flood() -> None:
    looks = Looks()
    assert looks.see(a=0.3, b=0.1, c=0.05) == {"a"}
    assert looks.see(a=0.2, b=0.1, c=1.2) == {"a", "c"}
    assert looks.see(a=0.2, b=0.1, c=1.0) == {"c"}
    assert looks.see(a=0.3, b=0.1, c=0.9, times=50) == {"c"}


def test_one_with_few_threads_beside_another_flood_comes_back_ever_more_seldom() -> None:
    """On one thread it cannot have its share there, and does not go without taking too much when it comes back."""
    looks = Looks()
    looks.see(a=0.1, b=0.8, c=0.8)
    assert looks.share.giving_way == {"b", "c"}
    returns, before = [], {"b", "c"}
    for look in range(1000):
        b = 0.3 if "b" in before else 0.9
        now = looks.see(a=0.1, b=b, c=1.1 - b / 2, times=1)
        returns += [look] if "b" not in now and "b" in before else []
        before = now
    gaps = [(later - earlier) * PERIOD_S for earlier, later in itertools.pairwise(returns)]
    assert len(gaps) == 5
    for gap_s, wait_s in zip(gaps, (2, 4, 8, 16, 32), strict=True):
        assert wait_s <= gap_s <= wait_s + (TOO_OFTEN + 2 * LOOKS) * PERIOD_S


def divided(giving: AbstractSet[str], wants: float) -> dict[str, float]:
    """Two floods of 6 and 2 threads beside one that wants little, and a busy thread of another program."""
    threads = {"b": 6, "c": 2, "other": 1}
    cpus, left = {"a": wants}, 1.6 - wants
    for rank in (threads.keys() - giving, threads.keys() & giving):
        each = min(1.0, left / max(1, sum(threads[name] for name in rank)))
        cpus |= {name: each * threads[name] for name in rank}
        left -= sum(cpus[name] for name in rank)
    del cpus["other"]
    return cpus


def test_two_floods_that_get_little_beside_other_programs_are_both_floods() -> None:
    """What both use together is less than the share of one, and it is their threads that divide it."""
    looks = Looks()
    seen = [frozenset(looks.see(times=1, **divided(looks.share.giving_way, 0.3))) for _ in range(1800)]
    began = seen.index(frozenset("bc"))
    assert began < 2 * TOO_OFTEN
    assert all("b" in giving for giving in seen[began:]), "which is the largest"
    returned = [look * PERIOD_S for look, (old, new) in enumerate(itertools.pairwise(seen)) if "c" in old - new]
    gaps = [later - earlier for earlier, later in itertools.pairwise(returned)]
    assert len(gaps) == 6
    for gap_s, wait_s in zip(gaps, (2, 4, 8, 16, 32, 64), strict=True):
        assert wait_s <= gap_s + 1e-6 <= wait_s + (TOO_OFTEN + 2 * LOOKS) * PERIOD_S


def test_a_flood_that_came_back_waits_for_longer_also_when_nobody_gave_way_meanwhile() -> None:
    looks = Looks()
    returns = []
    for _ in range(4):
        c_before_b = looks.until({"b", "c"}, a=0.2, b=0.7, c=0.7) - TOO_OFTEN
        seen = (looks.see(times=1, a=0.3, b=0.6, c=0.1) for _ in range(100))
        returns.append(PERIOD_S * (c_before_b + sum(1 for _ in itertools.takewhile({"b", "c"}.__eq__, seen))))
        assert looks.share.giving_way == {"b"}
        assert looks.see(a=0.7, b=0.1, c=0.7) == set(), "equals again"
    for waited_s, wait_s in zip(returns, (0, 2, 4, 8), strict=True):
        assert wait_s <= waited_s + LOOKS * PERIOD_S <= wait_s + 2 * LOOKS * PERIOD_S


def test_who_was_free_for_long_comes_back_at_once() -> None:
    looks = Looks()
    for _ in range(4):
        assert looks.see(a=0.2, b=0.7, c=0.7) == {"b", "c"}
        assert looks.see(a=0.3, b=0.6, c=0.1) == {"b"}
        assert looks.see(lambda: 0.8, a=0.3, c=0.3, times=round(DOUBT_S / PERIOD_S) + 10) == set()


def test_who_gets_next_to_nothing_is_starved_for_a_while_or_until_it_gives_way_no_more() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    for _ in range(3):
        looks.see(a=0.3, b=0.01, times=round(STARVED_S / PERIOD_S) - 1)
        assert looks.share.starved == set()
        looks.see(a=0.3, b=0.01, times=1)
        assert looks.share.starved == {"b"}
        looks.see(a=0.3, b=0.3, times=round(RELIEF_S / PERIOD_S) - 2)
        assert looks.share.starved == {"b"}
        looks.see(a=0.3, b=0.3)
        assert looks.share.starved == set()
    looks.see(a=0.3, b=0.01, times=round(STARVED_S / PERIOD_S))
    assert looks.share.starved == {"b"}
    looks.see(a=0.0, b=1.9, times=round(LINGER_S / PERIOD_S) + 1)
    assert looks.share.starved == set()


@pytest.mark.parametrize("period_s", [0.1, 0.1003, 0.13, 0.3, 1.2])
def test_who_gets_nothing_at_all_is_starved_and_not_without_work(period_s: float) -> None:
    looks = Looks(period_s)
    looks.see(a=0.3, b=1.4)
    assert looks.see(a=0.85, b=0.0, times=math.ceil(STARVED_S / period_s)) == {"b"}
    assert looks.share.starved == {"b"}
    assert looks.see(a=0.85, b=0.1, times=1) == {"b"}
    assert looks.share.starved == {"b"}
    assert looks.see(a=0.85, b=0.1, times=20) == {"b"}
    assert looks.share.starved == set()


def test_who_has_no_work_any_more_is_starved_only_for_a_while() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    looks.see(a=0.85, b=0.0, times=round((STARVED_S + LINGER_S) / PERIOD_S) + 1)
    assert looks.share.giving_way == looks.share.starved == set()


def test_neighbours_have_cpus_in_common_or_a_neighbour() -> None:
    pinned = {"a": {0, 1}, "b": {2, 3}, "c": {3, 4}}
    assert neighbours(pinned) == {frozenset({0, 1}): ["a"], frozenset({2, 3, 4}): ["b", "c"]}
    assert neighbours(pinned | {"d": {1, 2}}) == {frozenset(range(5)): ["a", "b", "c", "d"]}


def test_weights_divide_the_cpus() -> None:
    share = FairShare(4)
    usage = {"a": Usage(2.5, 100), "b": Usage(1.2, 25)}
    assert [share.look(usage, PERIOD_S, busy) for _ in range(TOO_OFTEN)][-1] == {"b"}


def test_one_that_is_gone_is_forgotten() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.6)
    assert looks.see(a=1.9) == set()
    assert looks.see(a=0.3, b=0.3) == set()


@given(st.lists(st.tuples(*[st.floats(0, 2)] * 4), max_size=30))
def test_at_any_look(seen: list[tuple[float, float, float, float]]) -> None:
    """Nobody begins to give way without having just used too much, or for nobody."""
    looks = Looks()
    before: set[str] = set()
    for a, b, c, idle in seen:
        cpus = {"a": a, "b": b, "c": c}
        giving = looks.see(lambda idle=idle: idle / 2, times=1, **cpus)  # type: ignore[misc]
        for name in giving - before:
            others = sum(each for other, each in cpus.items() if other not in before)
            assert cpus[name] > TOO_MUCH * (others - 0.04) / 3
            assert idle / 2 <= SHORT
        assert giving != {"a", "b", "c"}
        before = giving


def test_one_that_gets_something_only_while_it_is_starved_is_so_most_of_the_time() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    starved = 0
    for _ in range(300):
        looks.see(times=1, a=0.4, b=0.1 if looks.share.starved else 0.0)
        starved += "b" in looks.share.starved
    assert starved >= 0.7 * 300
    assert looks.share.giving_way == {"b"}


@given(st.lists(st.booleans(), max_size=60))
def test_whoever_gets_something_as_it_is_is_not_starved_for_long(others: list[bool]) -> None:
    """`others`: whether other programs left it nothing before."""
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    for takes in others:
        looks.see(times=1, a=0.4, b=0.1 if looks.share.starved or not takes else 0.0)
    assert looks.see(times=round(RELIEF_S / PERIOD_S) + 1, a=0.4, b=0.1) == {"b"}
    assert looks.share.starved == set()
