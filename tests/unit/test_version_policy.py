"""Version policies: laws over any set of versions, and TF Serving's corner cases."""

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.version_policy import All, Latest, Specific, absent, aspired

versions = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5), max_size=12)


def test_examples() -> None:
    assert aspired(Latest(), (1, 10, 9)) == (10,)
    assert aspired(Latest(2), (1, 10, 9)) == (9, 10)
    assert aspired(All(), (3, 1, 2)) == (1, 2, 3)
    assert aspired(Specific((2, 7)), (1, 2, 3)) == (2,)
    assert absent(Specific((7, 2, 5)), (1, 2, 3)) == (5, 7)
    assert aspired(Specific(()), (1,)) == ()


def test_latest_zero_counts_as_one() -> None:
    assert aspired(Latest(0), (1, 2)) == (2,)


@settings(max_examples=50)
@given(versions, st.integers(0, 15))
def test_latest_takes_the_highest(available: list[int], number: int) -> None:
    wanted = aspired(Latest(number), available)
    left = set(available) - set(wanted)
    assert len(wanted) == min(max(number, 1), len(set(available)))
    assert all(old < new for old in left for new in wanted)


@settings(max_examples=50)
@given(versions)
def test_all_takes_everything(available: list[int]) -> None:
    assert aspired(All(), available) == tuple(sorted(set(available)))


@settings(max_examples=50)
@given(versions, versions)
def test_specific_splits_into_aspired_and_absent(available: list[int], named: list[int]) -> None:
    policy = Specific(tuple(named))
    wanted, missing = set(aspired(policy, available)), set(absent(policy, available))
    assert wanted | missing == set(named)
    assert wanted <= set(available)
    assert not missing & set(available)


@settings(max_examples=50)
@given(
    versions, st.one_of(st.builds(Latest, st.integers(0, 5)), st.just(All()), st.builds(Specific, versions.map(tuple)))
)
def test_every_policy_is_idempotent_ordered_and_blind_to_order(
    available: list[int], policy: Latest | All | Specific
) -> None:
    wanted = aspired(policy, available)
    assert list(wanted) == sorted(set(wanted))
    assert aspired(policy, wanted) == wanted
    assert aspired(policy, list(reversed(available))) == wanted


@settings(max_examples=50)
@given(versions)
def test_only_specific_can_miss_a_version(available: list[int]) -> None:
    assert absent(Latest(3), available) == absent(All(), available) == ()
