"""Who gives way on the CPUs, look by look."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.fair_share import LINGER_S, LOOKS, SHORT, TOO_MUCH, FairShare, Usage

PERIOD_S = 0.1


def busy() -> float:
    return 0.0


class Looks:
    """A share, looked at each PERIOD_S."""

    def __init__(self) -> None:
        self.share = FairShare()

    def see(self, idle: Callable[[], float] = busy, times: int = LOOKS, **cpus: float) -> set[str]:
        """As many times as it takes to be sure."""
        usage = {name: Usage(each, 100) for name, each in cpus.items()}
        for _ in range(times - 1):
            self.share.look(usage, PERIOD_S, idle)
        return set(self.share.look(usage, PERIOD_S, idle))


def test_who_uses_more_than_its_share_gives_way_while_another_works() -> None:
    looks = Looks()
    assert looks.see(a=0.0, b=1.9) == set()
    assert looks.see(a=0.3, b=0.8, times=LOOKS - 1) == set()
    assert looks.see(a=0.3, b=0.8, times=1) == {"b"}, "of what is left beside the frontends"
    assert looks.see(a=0.5, b=0.4) == {"b"}, "what it gets now is not what it wants"


def test_once_in_a_while_is_chance() -> None:
    looks = Looks()
    for _ in range(5):
        assert looks.see(a=0.3, b=0.8, times=LOOKS - 1) == set()
        assert looks.see(a=0.8, b=0.8, times=1) == set()


def test_while_cpus_are_idle_nobody_gives_way() -> None:
    looks = Looks()
    assert looks.see(lambda: SHORT + 0.01, a=0.1, b=1.0) == set()
    assert looks.see(lambda: SHORT, a=0.1, b=1.0) == {"b"}


def test_equals_are_not_set_apart() -> None:
    looks = Looks()
    for a in (0.8, 1.0, 1.2):
        assert looks.see(a=a, b=2.0 - a) == set()


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
    looks.see(a=0.3, b=1.7)
    assert looks.see(a=1.7, b=0.2) == {"a", "b"}


def test_weights_divide_the_cpus() -> None:
    share = FairShare()
    usage = {"a": Usage(2.5, 100), "b": Usage(1.2, 25)}
    assert [share.look(usage, PERIOD_S, busy) for _ in range(LOOKS)][-1] == {"b"}


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
            assert cpus[name] > TOO_MUCH * (sum(cpus.values()) - 0.04) / 3
            assert idle / 2 <= SHORT
        before = giving
