"""Keeps the slots of all servables in line with their places: makes those that lack, lets go of those not wanted. Pure.

What serves is let go of only when everything that is wanted serves, unless its device is lost or the model's policy is
to save memory. The manager says when; the rules of places themselves are `places`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from .exits import ExitKind
from .lifecycle import SlotState
from .model import Model, ModelSettings
from .placement import Place, Room
from .places import Places
from .restart import RestartHistory
from .servable import Servable, Slot
from .transition_policy import Presence, TransitionPolicy
from .wire.ids import Incarnation
from .wire.log import fields
from .workers import Workers

log = logging.getLogger(__name__)


class Arrangement:
    """The slots of `models`, which is the manager's. `new_history`: for the slots of a model with these settings."""

    def __init__(
        self,
        models: Mapping[str, Model],
        places: Places,
        workers: Workers,
        new_history: Callable[[ModelSettings], RestartHistory],
    ) -> None:
        self._models = models
        self._places = places
        self._workers = workers
        self._new_history = new_history
        self._rooms: list[Room] | None = None
        self._arranged = -1

    def reconfigured(self) -> None:
        """Every slot is to be looked at again."""
        self._arranged = -1

    def begin(self) -> None:
        """What is on the devices may have changed since."""
        self._rooms = None

    def place(self, servable: Servable, acked_epoch: int, now_s: float) -> None:
        """Make the slots that it lacks, and let go of those that it is not to have any more."""
        settings = self._models[servable.id.name].settings

        def new_slot(place: Place, part: int) -> Slot:
            history = self._new_history(settings)
            return Slot(place.slot, place.device, history, place.claim_bytes, since_s=now_s, part=part)

        was = servable.refusal
        leaving = _arrange(
            servable, settings, self._places, self._all_rooms(), new_slot=new_slot, acked_epoch=acked_epoch
        )
        for slot in leaving:
            self._let_go(slot, now_s)
        if servable.refusal not in {"", was}:
            log.error("not placed %s", fields(servable=servable.id, why=servable.refusal))

    def follow(self, acked_epoch: int, now_s: float) -> None:
        """Slots follow the configuration and the devices; where that could not be finished before, it goes on."""
        due = self._arranged != self._places.generation
        self._arranged = self._places.generation
        for servable in self._servables():
            if servable.aspired and servable.presence in {Presence.LIVE, Presence.FAILED}:
                if due or servable.unsettled:
                    self.place(servable, acked_epoch, now_s)
            elif due:
                for slot in servable.slots:
                    if slot.stays and self._places.why_lost(slot.device):
                        self._let_go(slot, now_s)

    def may_start(self, slot: Slot, now_s: float) -> bool:
        """Whether a process may start in this slot now."""
        policy = self._models[slot.id.servable.name].settings.devices
        return self._places.may_start(slot, policy, self._all_rooms(), now_s)

    def claim(self, slot: Slot, incarnation: Incarnation) -> int:
        """A process starts in this slot; TensorFlow's limit on its device in bytes, 0 for none."""
        policy = self._models[slot.id.servable.name].settings.devices
        why = self._places.renew(slot, policy, self._all_rooms())
        if why:
            log.warning("keeps the GPU memory it had %s", fields(slot=slot.id, gpu_bytes=slot.claim_bytes, why=why))
        self._places.started(slot, policy, incarnation)
        return self._places.limit_bytes(slot, policy)

    def _let_go(self, slot: Slot, now_s: float) -> None:
        """Unload it; nobody waits for what is in flight on a device that is lost."""
        self._workers.unload(slot, now_s)
        lost = self._places.why_lost(slot.device)
        if slot.state is SlotState.DRAINING and lost:
            self._workers.send_kill(slot, f"its device was lost: {lost}", ExitKind.KILLED, now_s)

    def _all_rooms(self) -> list[Room]:
        """The devices with what is on them, made once per turn. A version that was rolled back leaves its place to the
        one that serves instead.
        """
        if self._rooms is None:
            staying = (servable for servable in self._servables() if not servable.rolled_back)
            self._rooms = self._places.rooms(slot for servable in staying for slot in servable.slots)
        return self._rooms

    def _servables(self) -> Iterable[Servable]:
        for model in self._models.values():
            yield from model.newest_first()


def _arrange(
    servable: Servable,
    settings: ModelSettings,
    places: Places,
    rooms: Sequence[Room],
    *,
    new_slot: Callable[[Place, int], Slot],
    acked_epoch: int,
) -> list[Slot]:
    """Make the missing slots, in `servable.slots` and in `rooms`; the slots to unload now."""
    if any(slot.holds_place for slot in servable.slots):
        # Those that were replaced are forgotten elsewhere, with what they have served.
        servable.slots = [slot for slot in servable.slots if slot.holds_place or slot.succeeded_by or slot.replaces]
    decision = places.arrange(servable, settings.devices, rooms)

    def is_surplus(slot: Slot) -> bool:
        return slot.id in decision.drop or bool(places.why_lost(slot.device))

    for place in decision.add:
        servable.slots.append(new_slot(place, servable.free_part(is_surplus)))
    servable.wanted_slots, servable.refusal = decision.wanted, decision.refusal
    going = {SlotState.STOPPED, SlotState.DRAINING}
    living = [slot for slot in servable.slots if slot.state not in going]
    surplus = [slot for slot in living if is_surplus(slot)]
    kept = [slot for slot in living if slot.stays and not is_surplus(slot)]
    complete = len(kept) == decision.wanted and all(slot.available(acked_epoch) for slot in kept)
    at_once = complete or (settings.transition is TransitionPolicy.RESOURCE_PRESERVING and not decision.refusal)
    leaving = [slot for slot in surplus if at_once or places.why_lost(slot.device) or slot.state is not SlotState.READY]
    servable.unsettled = bool(decision.refusal) or len(servable.slots) > len(kept)
    return leaving
