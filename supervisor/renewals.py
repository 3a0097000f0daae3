"""A worker that serves is replaced by a fresh one, which loads beside it and takes over when everybody knows it. Pure.

So a slot of the same place is added for a while: it `replaces` the old one until it has taken over, by being routed to,
or because the old worker died; the old one is `succeeded_by` it until its process is gone. The manager unloads and
starts; here is who is who.
"""

from collections.abc import Iterator

from .exits import Exit
from .lifecycle import SlotEvent, SlotState
from .servable import Servable, Slot
from .wire.status import Code, Status


def begin(servable: Servable, slot: Slot, *, urgent: bool, now_s: float) -> Slot:
    """The slot that is to serve instead of `slot`: a new one, or the one that is on its way."""
    replacement = servable.replacement(slot)
    if replacement is None:
        replacement = Slot(slot.id, slot.device, slot.history, slot.claim_bytes, since_s=now_s, part=slot.part)
        replacement.urgent, replacement.replaces = urgent, slot
        servable.slots.append(replacement)
    return replacement


def due(servable: Servable, acked_epoch: int) -> Iterator[Slot]:
    """Old slots whose replacement serves: they may go now."""
    for slot in list(servable.slots):
        if slot.replaces is not None and slot.available(acked_epoch):
            old = slot.replaces
            take_over(slot, old)
            yield old


def without_room(servable: Servable) -> Iterator[Slot]:
    """Replacements that do not fit beside what they are to replace."""
    for slot in servable.slots:
        if slot.replaces is not None and slot.state is SlotState.PENDING and slot.error.code is not Code.OK:
            yield slot


def take_over(slot: Slot, old: Slot) -> None:
    """`slot` is the one of its place from now on."""
    slot.replaces, old.succeeded_by = None, slot
    slot.ever_ready = True
    # One that has no process yet is counted when it gets it.
    slot.last_exit = slot.last_exit or old.last_exit
    started = slot.state is not SlotState.PENDING
    slot.restarts = old.restarts + (1 if started or slot.last_exit is None else 0)
    slot.last_ended = slot.last_ended or old.last_ended


def take_over_from_dead(servable: Servable, slot: Slot, old: Slot, now_s: float) -> None:
    """The old worker died before it could be replaced in order."""
    take_over(slot, old)
    slot.error = old.error
    old.apply(SlotEvent.UNLOAD, now_s)
    _remove(servable, old)


def failed(servable: Servable, slot: Slot, exit_: Exit, now_s: float) -> None:
    """The replacement's worker is gone before it took over: the old one goes on."""
    if slot.error.code is Code.OK:
        slot.error = Status(Code.UNAVAILABLE, f"The replacement of {slot.id.servable} died: {exit_.cause}")
    slot.apply(SlotEvent.UNLOAD, now_s)
    _remove(servable, slot)


def forget_gone(servable: Servable) -> None:
    """Old slots whose process is gone leave what they served to their successors; given up replacements go, too."""
    for slot in list(servable.slots):
        if slot.state is SlotState.STOPPED and (slot.succeeded_by is not None or slot.replaces is not None):
            _remove(servable, slot)


def _remove(servable: Servable, slot: Slot) -> None:
    heir = slot.succeeded_by
    while heir is not None and heir.succeeded_by is not None:
        heir = heir.succeeded_by
    if heir is not None:
        heir.served_before += slot.served_before + slot.served
    servable.slots = [each for each in servable.slots if each is not slot]
