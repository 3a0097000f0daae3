"""Who gives way on the CPUs and gets next to nothing, look by look."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.fair_share import LINGER_S, RELIEF_S, STARVED_S
from tests.unit.fair_share_world import PERIOD_S, Looks


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
