"""Restarts that somebody asked for: which workers are meant, and how it ended in each slot. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .lifecycle import SlotState
from .model import Model
from .servable import Servable, Slot
from .wire.client_messages import Restarted, RestartOf
from .wire.ids import Incarnation
from .wire.status import OK, Code, NotFound, Status, truncated


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart by hand that goes on: it has ended when `slot` has, or fails to have, an incarnation after `after`."""

    slot: Slot
    after: Incarnation

    @classmethod
    def of(cls, slot: Slot, last: Incarnation) -> "Restart":
        """Of one that begins now, `last` being the newest incarnation of all, with the next worker in `slot`."""
        if slot.replaces is not None and slot.incarnation is not None:
            return cls(slot, Incarnation(slot.incarnation - 1))  # a replacement was on its way already: it will do
        return cls(slot, last)

    def outcome(self, acked_epoch: int) -> Status | None:
        """How it ended; None while it goes on."""
        slot = self.slot
        if slot.incarnation is not None and slot.incarnation > self.after:
            serves = slot.available(acked_epoch) and slot.replaces is None
            return OK if serves else None
        if slot.state is SlotState.STOPPED:
            return slot.error if slot.error != OK else Status(Code.ABORTED, f"{slot.id.servable} was unloaded")
        if slot.incarnation is None and slot.last_ended is not None and slot.last_ended > self.after:
            return slot.error
        return None


def wanted(models: Iterable[Model], name: str, version: int | None) -> list[Servable]:
    """The servables whose workers are meant: of all versions, or of one. Raises NotFound when there are none."""
    servables = [each for model in models if model.name == name and model.configured for each in model.newest_first()]
    found = [each for each in servables if version in {None, each.id.version} and each.aspired and each.slots]
    if not found:
        raise NotFound(f"no worker of model {name}" + ("" if version is None else f" version {version}"))
    return found


def reply(order: RestartOf, restarts: Sequence[Restart], acked_epoch: int) -> Restarted:
    """What to answer: how the restart of each slot ended, or that it goes on."""
    lines, code = [], Code.OK
    for restart in restarts:
        slot, status = restart.slot, restart.outcome(acked_epoch)
        where = f"{slot.id.servable} on {slot.device.id}"
        if status is None:
            code = Code.DEADLINE_EXCEEDED
            lines.append(f"{where}: not ready within {order.timeout_s:g} s, it goes on: {slot.state}")
        elif status != OK:
            code = status.code
            lines.append(f"{where}: {status.code.name}: {status.message}")
        else:
            spent_s = (slot.load_s or 0.0) + (slot.warmup_s or 0.0)
            lines.append(f"{where}: pid {slot.pid} serves, loaded and warm in {spent_s:.1f} s")
    return Restarted(order.token, code, truncated("\n".join(lines)))
