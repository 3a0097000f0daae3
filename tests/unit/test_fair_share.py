"""Who gives way on the CPUs, look by look."""

import itertools
import math
import random
from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.fair_share import (
    ALMOST,
    DOUBT_S,
    EQUALLY_MUCH,
    FREE_S,
    HEAD_START,
    LINGER_S,
    LOOKS,
    MOST,
    NO_EQUAL_S,
    SHORT,
    SLACK,
    TOO_MUCH,
    FairShare,
    Usage,
    neighbours,
)
from tests.unit.fair_share_world import PERIOD_S, SURE, Looks, busy

# So many looks it takes at least to know one; one that was an equal, and one with a head start.
AT_LEAST, EQUAL_AT_LEAST, AHEAD_AT_LEAST = (
    math.ceil(much / (MOST - SLACK)) for much in (TOO_MUCH, EQUALLY_MUCH, TOO_MUCH - HEAD_START)
)
# And of three, for one and a half times its share: smaller shares fluctuate more.
OF_THREE = 9


def test_who_uses_more_than_its_share_gives_way_while_another_works() -> None:
    looks = Looks()
    assert looks.see(a=0.0, b=0.4) == set()
    assert looks.until({"b"}, a=0.3, b=0.8) == AT_LEAST + 1, "of what is left beside the frontends"
    assert looks.see(a=0.5, b=0.4) == {"b"}, "what it gets now is not what it wants"


def test_once_in_a_while_is_chance() -> None:
    looks = Looks()
    for _ in range(20):
        assert looks.see(a=0.05, b=1.9, times=1) == set(), "however much it is"
        assert looks.see(a=0.8, b=0.8, times=3) == set()


def test_no_few_looks_decide_however_much_it_is() -> None:
    assert Looks().until({"b"}, a=0.03, b=1.9) == AT_LEAST == 4


def of_two(more: float, together: float = 1.0) -> dict[str, float]:
    """What two use, b so many shares more than its own."""
    return {"a": together / 2 * (1 - more), "b": together / 2 * (1 + more)}


def test_a_small_excess_that_lasts_is_too_much() -> None:
    """As of a flood of `conv` beside `mlp` at 5,000/s, of which one used 0.57 and the other 0.37 CPUs."""
    known = []
    for seed in range(20):
        noise, looks = random.Random(seed), Looks()
        seen = (looks.see(times=1, **of_two(noise.gauss(0.21, 0.2), 0.94)) for _ in range(100))
        known.append(1 + sum(1 for _ in itertools.takewhile(lambda giving: giving != {"b"}, seen)))
    assert sorted(known)[10] <= 25
    assert max(known) <= 100


@pytest.mark.parametrize("seed", range(20))
def test_equals_that_are_a_little_apart_are_not_set_apart_within_a_minute(seed: int) -> None:
    noise, looks = random.Random(seed), Looks()
    for _ in range(round(60 / PERIOD_S)):
        assert looks.see(times=1, **of_two(noise.gauss(0.1, 0.12))) == set()


@pytest.mark.parametrize(("models", "seed"), [*itertools.product([3, 4], range(10))])
def test_more_equals_than_two_fluctuate_more(models: int, seed: int) -> None:
    """By the root of their number, where each look is of some slices of CPU time that go to them by chance."""
    noise, looks = random.Random(seed), Looks()
    for _ in range(round(60 / PERIOD_S)):
        slices = noise.choices("abcd"[:models], k=40)
        assert looks.see(times=1, **{name: 1.6 / 40 * slices.count(name) for name in "abcd"[:models]}) == set()


def test_what_was_too_much_before_all_others_went_is_forgotten() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4, times=AT_LEAST - 1)
    looks.see(b=0.4, times=1)
    assert looks.see(a=0.3, b=1.4, times=1) == set(), "once is chance"


def test_what_was_too_much_before_it_went_is_forgotten() -> None:
    looks = Looks()
    looks.see(a=0.2, b=0.2, c=1.2, times=AT_LEAST - 1)
    looks.see(a=0.5, b=0.5, times=1)
    assert looks.until({"c"}, a=0.2, b=0.2, c=1.2) == AT_LEAST


def test_who_was_busy_before_another_came_is_known_sooner() -> None:
    looks = Looks()
    looks.see(b=1.2, times=1)
    assert looks.until({"b"}, a=0.3, b=1.2) == AHEAD_AT_LEAST == 2
    looks = Looks()
    looks.see(b=0.4, times=20)
    assert looks.until({"b"}, a=0.3, b=1.2) == AT_LEAST, "it was hardly busy"
    looks = Looks()
    looks.see(b=1.2, times=20)
    assert looks.until({"a"}, a=1.2, b=0.3) == AT_LEAST, "the other one was"


def test_who_was_an_equal_is_not_known_sooner_for_having_been_busy() -> None:
    looks = Looks()
    looks.until({"b"}, a=0.3, b=1.2)
    looks.until(set(), a=1.2, b=0.3)
    looks.see(b=1.9, times=20)
    assert looks.until({"b"}, a=0.3, b=1.2) == EQUAL_AT_LEAST == 8


def test_equals_that_begin_together_have_no_head_start() -> None:
    looks = Looks()
    looks.see(a=0.0, b=0.0)
    assert looks.until({"b"}, a=0.3, b=1.2) == AT_LEAST


def test_being_busy_before_is_no_excess_for_long() -> None:
    looks = Looks()
    looks.see(b=1.2)
    looks.see(a=0.7, b=0.7, times=math.ceil(HEAD_START / SLACK))
    assert looks.until({"b"}, a=0.3, b=1.2) == AT_LEAST


def test_while_cpus_are_idle_an_excess_wears_off() -> None:
    """A gap of a look does not begin it anew, as one look with a fifth of the CPUs idle is chance, too."""
    looks = Looks()
    looks.see(a=0.3, b=1.2, times=AT_LEAST - 1)
    assert looks.see(lambda: 0.2, a=0.3, b=1.2, times=1) == set()
    assert looks.until({"b"}, a=0.3, b=1.2) == 1
    looks = Looks()
    looks.see(a=0.3, b=1.2, times=AT_LEAST - 1)
    worn_off = math.ceil((AT_LEAST - 1) * (MOST - SLACK) / SLACK)
    assert looks.see(lambda: 0.2, a=0.3, b=1.2, times=worn_off) == set()
    assert looks.until({"b"}, a=0.3, b=1.2) == AT_LEAST


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
    assert seen == [AT_LEAST + 1, EQUAL_AT_LEAST + 1, EQUAL_AT_LEAST + 1]
    assert looks.until({"a"}, a=1.0, b=0.4) == AT_LEAST + 1, "it was not this one"


def test_so_are_those_to_which_other_programs_leave_too_little_to_have_their_share_of_all_cpus() -> None:
    looks = Looks()
    assert looks.until({"b"}, a=0.2, b=0.5) == AT_LEAST + 1
    looks.until(set(), a=0.5, b=0.2)
    assert looks.until({"b"}, a=0.2, b=0.5) == EQUAL_AT_LEAST + 1


def test_a_flood_that_gave_way_for_long_was_no_equal() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.4)
    assert looks.see(a=1.0, b=0.4) == set()
    assert looks.until({"b"}, a=0.3, b=1.4) == EQUAL_AT_LEAST
    looks.see(a=0.3, b=1.4, times=round(NO_EQUAL_S / PERIOD_S))
    looks.see(b=1.4, times=round(LINGER_S / PERIOD_S) + 1)
    assert looks.until({"b"}, a=0.3, b=1.4) == AHEAD_AT_LEAST


@pytest.mark.parametrize(("after_s", "often"), [(FREE_S - 3.0, EQUAL_AT_LEAST + 1), (FREE_S + 1.0, AT_LEAST + 1)])
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
    assert looks.see(a=0.2, b=0.7, c=0.1, times=OF_THREE) == {"b", "c"}
    assert looks.see(a=0.55, b=0.3, c=0.3) == {"b", "c"}
    assert looks.see(a=0.65, b=0.3, c=0.3) == set(), "all three are"


def test_who_was_busy_when_the_flood_began_is_not_taken_for_it_for_long() -> None:
    """The flood gets what the frontends and other programs leave, which may be far less than its share of all CPUs."""
    looks = Looks()
    assert looks.see(a=0.4, b=0.05) == {"a"}
    assert looks.see(a=0.1, b=0.7, times=round(DOUBT_S / PERIOD_S) - 1) == {"a"}
    assert looks.see(a=0.1, b=0.7, times=2) == set(), "equals again"
    looks.until({"b"}, a=0.3, b=0.6, limit=7)
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
    looks.until({"b", "c"}, a=0.1, b=0.8, c=0.8, limit=OF_THREE)
    returns, before = [], {"b", "c"}
    for look in range(1000):
        b = 0.3 if "b" in before else 0.9
        now = looks.see(a=0.1, b=b, c=1.1 - b / 2, times=1)
        returns += [look] if "b" not in now and "b" in before else []
        before = now
    gaps = [(later - earlier) * PERIOD_S for earlier, later in itertools.pairwise(returns)]
    assert len(gaps) == 5
    for gap_s, wait_s in zip(gaps, (2, 4, 8, 16, 32), strict=True):
        assert wait_s <= gap_s <= wait_s + (SURE + 2 * LOOKS) * PERIOD_S


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
    assert began < 2 * SURE
    assert all("b" in giving for giving in seen[began:]), "which is the largest"
    returned = [look * PERIOD_S for look, (old, new) in enumerate(itertools.pairwise(seen)) if "c" in old - new]
    gaps = [later - earlier for earlier, later in itertools.pairwise(returned)]
    assert len(gaps) == 6
    for gap_s, wait_s in zip(gaps, (2, 4, 8, 16, 32, 64), strict=True):
        assert wait_s <= gap_s + 1e-6 <= wait_s + (SURE + 2 * LOOKS) * PERIOD_S


def test_a_flood_that_came_back_waits_for_longer_also_when_nobody_gave_way_meanwhile() -> None:
    looks = Looks()
    returns = []
    for _ in range(4):
        c_before_b = looks.until({"b", "c"}, a=0.05, b=0.75, c=0.75) - OF_THREE
        seen = (looks.see(times=1, a=0.3, b=0.6, c=0.1) for _ in range(100))
        returns.append(PERIOD_S * (c_before_b + sum(1 for _ in itertools.takewhile({"b", "c"}.__eq__, seen))))
        assert looks.share.giving_way == {"b"}
        assert looks.see(a=0.75, b=0.05, c=0.75, times=OF_THREE) == set(), "equals again"
    for waited_s, wait_s in zip(returns, (0, 2, 4, 8), strict=True):
        assert wait_s <= waited_s + LOOKS * PERIOD_S <= wait_s + 2 * LOOKS * PERIOD_S


def test_who_was_free_for_long_comes_back_at_once() -> None:
    looks = Looks()
    for _ in range(4):
        looks.until({"b", "c"}, a=0.2, b=0.7, c=0.7, limit=2 * OF_THREE)
        assert looks.see(a=0.3, b=0.6, c=0.1) == {"b"}
        assert looks.see(lambda: 0.8, a=0.3, c=0.3, times=round(DOUBT_S / PERIOD_S) + 10) == set()


def test_neighbours_have_cpus_in_common_or_a_neighbour() -> None:
    pinned = {"a": {0, 1}, "b": {2, 3}, "c": {3, 4}}
    assert neighbours(pinned) == {frozenset({0, 1}): ["a"], frozenset({2, 3, 4}): ["b", "c"]}
    assert neighbours(pinned | {"d": {1, 2}}) == {frozenset(range(5)): ["a", "b", "c", "d"]}


def test_weights_divide_the_cpus() -> None:
    share = FairShare(4)
    usage = {"a": Usage(2.5, 100), "b": Usage(1.2, 25)}
    assert [share.look(usage, PERIOD_S, busy) for _ in range(OF_THREE)][-1] == {"b"}


def test_one_that_is_gone_is_forgotten() -> None:
    looks = Looks()
    looks.see(a=0.3, b=1.6)
    assert looks.see(a=1.9) == set()
    assert looks.see(a=0.3, b=0.3) == set()


def some_time() -> st.SearchStrategy[tuple[float, float, float, float, int]]:
    """What three use, what is idle, and for how many looks."""
    return st.tuples(*[st.floats(0, 2)] * 3, st.sampled_from([0.0, SHORT, 0.2, 0.8]), st.integers(1, 6))


@given(st.lists(some_time(), max_size=30))
def test_at_any_look(seen: list[tuple[float, float, float, float, int]]) -> None:
    """Nobody begins to give way without being beyond its share just now by more than is the rule, or for nobody."""
    looks = Looks()
    before: set[str] = set()
    for a, b, c, idle in itertools.chain.from_iterable([(*each,)] * times for *each, times in seen):
        cpus = {"a": a, "b": b, "c": c}
        giving = looks.see(lambda idle=idle: idle, times=1, **cpus)  # type: ignore[misc]
        for name in giving - before:
            # One that is alone among the free may have its share of all CPUs; housekeeping counts for nobody.
            together = max(0.0, sum(cpus.values()) - 0.04)
            most = (1 + SLACK) * together / 3
            assert cpus[name] > (min(most, ALMOST * 2 / 3) if len(before) == 2 else most)
            assert idle <= SHORT
        assert giving != {"a", "b", "c"}
        before = giving
