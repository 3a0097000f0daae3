"""In what order the versions of one model come and go. Stateless: a snapshot in, what to do out.

TF Serving's `core/availability_preserving_policy.cc` and `core/resource_preserving_policy.cc`; which versions are
wanted is `version_policy`'s business.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum


class Presence(StrEnum):
    """Where one version stands, as far as the order of coming and going is concerned."""

    NEW = "new"
    """Nothing was started for it yet."""
    LIVE = "live"
    """It has a process, or waits for the next one."""
    FAILED = "failed"
    """It was given up and has no process."""
    GOING = "going"
    """Its processes have been told to go, and are not gone."""
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One version of the model. `available`: it is READY, and every frontend has acknowledged the route to it."""

    version: int
    aspired: bool
    presence: Presence
    available: bool


@dataclass(frozen=True, slots=True)
class Transition:
    """Versions to load, newest first, and versions to unload."""

    load: tuple[int, ...] = ()
    unload: tuple[int, ...] = ()


class TransitionPolicy(StrEnum):
    """Whether a model that changes versions answers all the time, or never has two of them in memory."""

    AVAILABILITY_PRESERVING = "availability_preserving"
    RESOURCE_PRESERVING = "resource_preserving"


def next_transition(policy: TransitionPolicy, versions: Collection[VersionSnapshot]) -> Transition:
    """What to do now; calling it again before anything changed gives the same answer."""
    return _POLICIES[policy](sorted(versions, key=lambda item: -item.version))


def _availability_preserving(versions: list[VersionSnapshot]) -> Transition:
    """Load first; unload the rest once a wanted version answers, or when none is wanted any more.

    A version that nobody wants and that was given up answers nothing, so it goes at once where a wanted one has no
    place yet, which may be its. Else it stays, to be tried again: if the wanted ones cannot be loaded, it is all there
    is.
    """
    wanted = [item for item in versions if item.aspired]
    may_unload = not wanted or any(item.available for item in wanted)
    waits = any(item.presence is Presence.NEW for item in wanted)
    leaving = {Presence.LIVE, Presence.FAILED} if may_unload else {Presence.FAILED} if waits else set()
    return Transition(_fresh(wanted), tuple(v.version for v in versions if not v.aspired and v.presence in leaving))


def _resource_preserving(versions: list[VersionSnapshot]) -> Transition:
    """Unload first; load when nothing unwanted is left in memory."""
    leftover = [item for item in versions if not item.aspired and item.presence is not Presence.GONE]
    unload = tuple(item.version for item in leftover if item.presence in {Presence.LIVE, Presence.FAILED})
    load = () if leftover else _fresh([item for item in versions if item.aspired])
    return Transition(load, unload)


def _fresh(wanted: list[VersionSnapshot]) -> tuple[int, ...]:
    return tuple(item.version for item in wanted if item.presence is Presence.NEW)


_POLICIES: dict[TransitionPolicy, Callable[[list[VersionSnapshot]], Transition]] = {
    TransitionPolicy.AVAILABILITY_PRESERVING: _availability_preserving,
    TransitionPolicy.RESOURCE_PRESERVING: _resource_preserving,
}
