"""Brings the slots of a servable in line with its place: makes those that it lacks, names those to let go of. Pure.

What serves is let go of only when everything that is wanted serves, unless its device is lost or the model's policy is
to save memory. Called by the manager, whose slots these are.
"""

from collections.abc import Callable, Sequence

from .lifecycle import SlotState
from .model import ModelSettings
from .placement import Place, Room
from .places import Places
from .servable import Servable, Slot
from .transition_policy import TransitionPolicy


def arrange(
    servable: Servable,
    settings: ModelSettings,
    places: Places,
    rooms: Sequence[Room],
    *,
    new_slot: Callable[[Place], Slot],
    acked_epoch: int,
) -> list[Slot]:
    """Make the missing slots, in `servable.slots` and in `rooms`; the slots to unload now."""
    if any(slot.holds_place for slot in servable.slots):
        # Those that were replaced are forgotten elsewhere, with what they have served.
        servable.slots = [slot for slot in servable.slots if slot.holds_place or slot.succeeded_by or slot.replaces]
    decision = places.arrange(servable, settings.devices, rooms)
    for place in decision.add:
        servable.slots.append(new_slot(place))
    servable.wanted_slots, servable.refusal = decision.wanted, decision.refusal
    going = {SlotState.STOPPED, SlotState.DRAINING}

    def is_surplus(slot: Slot) -> bool:
        return slot.id in decision.drop or bool(places.why_lost(slot.device))

    living = [slot for slot in servable.slots if slot.state not in going]
    surplus = [slot for slot in living if is_surplus(slot)]
    kept = [slot for slot in living if slot.stays and not is_surplus(slot)]
    complete = len(kept) == decision.wanted and all(slot.available(acked_epoch) for slot in kept)
    at_once = complete or (settings.transition is TransitionPolicy.RESOURCE_PRESERVING and not decision.refusal)
    leaving = [slot for slot in surplus if at_once or places.why_lost(slot.device) or slot.state is not SlotState.READY]
    servable.unsettled = bool(decision.refusal) or len(servable.slots) > len(kept)
    return leaving
