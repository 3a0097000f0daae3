"""The order in which versions come and go."""

from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor.transition_policy import (
    Presence,
    Transition,
    TransitionPolicy,
    VersionSnapshot,
    next_transition,
)

AVAILABILITY, RESOURCE = TransitionPolicy.AVAILABILITY_PRESERVING, TransitionPolicy.RESOURCE_PRESERVING


def seen(
    version: int, *, aspired: bool, presence: Presence = Presence.LIVE, available: bool = False
) -> VersionSnapshot:
    return VersionSnapshot(version, aspired, presence, available)


def test_a_new_version_is_loaded_while_the_old_one_serves() -> None:
    versions = [seen(1, aspired=False, available=True), seen(2, aspired=True, presence=Presence.NEW)]
    assert next_transition(AVAILABILITY, versions) == Transition(load=(2,))


def test_the_old_one_goes_when_the_new_one_answers() -> None:
    versions = [seen(1, aspired=False, available=True), seen(2, aspired=True, available=True)]
    assert next_transition(AVAILABILITY, versions) == Transition(unload=(1,))


def test_the_old_one_stays_while_the_new_one_has_failed() -> None:
    versions = [seen(1, aspired=False, available=True), seen(2, aspired=True, presence=Presence.FAILED)]
    assert next_transition(AVAILABILITY, versions) == Transition()


def test_an_old_one_that_is_being_restarted_stays_too() -> None:
    versions = [seen(1, aspired=False), seen(2, aspired=True)]
    assert next_transition(AVAILABILITY, versions) == Transition()


def test_nothing_wanted_unloads_all() -> None:
    versions = [seen(1, aspired=False, available=True), seen(2, aspired=False)]
    assert next_transition(AVAILABILITY, versions) == Transition(unload=(2, 1))


def test_resource_preserving_unloads_first_and_waits_for_the_exit() -> None:
    new = seen(2, aspired=True, presence=Presence.NEW)
    old = seen(1, aspired=False, available=True)
    assert next_transition(RESOURCE, [old, new]) == Transition(unload=(1,))
    assert next_transition(RESOURCE, [seen(1, aspired=False, presence=Presence.GOING), new]) == Transition()
    assert next_transition(RESOURCE, [seen(1, aspired=False, presence=Presence.GONE), new]) == Transition(load=(2,))


def test_newest_first() -> None:
    versions = [seen(version, aspired=True, presence=Presence.NEW) for version in (3, 9, 1)]
    assert next_transition(AVAILABILITY, versions).load == (9, 3, 1)


snapshots = st.lists(
    st.builds(
        VersionSnapshot,
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from(list(Presence)),
        st.booleans(),
    ).filter(lambda item: not item.available or item.presence is Presence.LIVE),
    unique_by=lambda item: item.version,
)


@given(st.sampled_from(list(TransitionPolicy)), snapshots)
def test_laws(policy: TransitionPolicy, versions: list[VersionSnapshot]) -> None:
    by_version = {item.version: item for item in versions}
    transition = next_transition(policy, versions)
    assert all(by_version[v].aspired and by_version[v].presence is Presence.NEW for v in transition.load)
    assert not any(by_version[v].aspired for v in transition.unload)
    answering = {v for v, item in by_version.items() if item.available}
    wanted = {v for v, item in by_version.items() if item.aspired}
    if policy is AVAILABILITY and answering and wanted:
        assert answering - set(transition.unload), "the last version that answers is never unloaded"
    if policy is RESOURCE and transition.load:
        assert all(item.aspired or item.presence is Presence.GONE for item in versions)
