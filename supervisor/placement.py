"""Where the replicas of a servable go. Pure: rooms and wishes in, a decision with its reasons out.

A slot once placed stays where it is as long as its device is allowed and there (a reload moves nothing that it need
not). What is missing goes to the device that has room and, by the model's wish, the least or the most on it already.
What does not fit is refused with numbers, and with what would have to go. Knows nothing of processes or NVML.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .devices import Device
from .wire.ids import ServableId, SlotId

AUTO, ALL = "auto", "all"
GIB = 1 << 30
_MIB = 1 << 20


class Order(StrEnum):
    """How devices fill up: evenly, or one after the other so that whole devices stay free."""

    SPREAD = "spread"
    PACK = "pack"


class Isolation(StrEnum):
    """What separates models. There is one way; the key is there for those that may come."""

    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What a model asks for. `devices`: "auto" (a GPU, or the CPU of a host without), "all" (each GPU), or names.

    `replicas`: so many in all; on each device with "all". `memory_bytes`: of a process on a GPU; 0: not declared.
    """

    devices: tuple[str, ...] = (AUTO,)
    replicas: int = 1
    memory_bytes: int = 0
    order: Order = Order.SPREAD


@dataclass(frozen=True, slots=True)
class Tenant:
    """A slot that has a claim on a device's memory."""

    slot: SlotId
    claim_bytes: int


@dataclass(slots=True)
class Room:
    """A device with what is on it. `budget_bytes` is for all our slots together; unlimited where `device` has none."""

    device: Device
    budget_bytes: int = 0
    lost: str = ""
    tenants: list[Tenant] = field(default_factory=list)

    @property
    def accounted(self) -> bool:
        return self.device.memory_bytes > 0

    @property
    def spare_bytes(self) -> int:
        """What no tenant claims; below 0 where others have taken what was there for the tenants."""
        return self.budget_bytes - sum(tenant.claim_bytes for tenant in self.tenants)

    @property
    def free_bytes(self) -> int:
        return max(0, self.spare_bytes)

    def fits(self, need_bytes: int) -> bool:
        return not self.accounted or need_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True)
class Need:
    """What a process takes on one device; or it cannot run there at all, and `refusal` says why."""

    claim_bytes: int
    refusal: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A new slot."""

    slot: SlotId
    device: Device
    claim_bytes: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Slots to make and slots to let go of; the others stay. `wanted` in all; `refusal`: why some are missing."""

    wanted: int
    add: tuple[Place, ...] = ()
    drop: tuple[SlotId, ...] = ()
    refusal: str = ""


def place(
    servable: ServableId,
    policy: DevicePolicy,
    rooms: Sequence[Room],
    *,
    mine: Sequence[SlotId],
    need: Callable[[Room], Need],
    taken: Collection[int] = (),
) -> Decision:
    """Decide for one servable. `mine`: its slots that are not being unloaded; `taken`: replica numbers not to be used.

    New places are entered in `rooms`.
    """
    allowed = _allowed(policy, rooms)
    alive = [room for room in allowed if not room.lost]
    each = policy.devices == (ALL,)
    wanted = policy.replicas * (max(1, len(alive)) if each else 1)
    limit = policy.replicas if each else wanted
    kept = _kept(mine, {room.device.id for room in alive}, wanted, limit)
    added: list[Place] = []
    used = {*taken, *(slot.replica for slot in mine)}
    numbers = (number for number in itertools.count() if number not in used)
    while len(kept) + len(added) < wanted:
        on = [slot.device for slot in kept] + [new.device.id for new in added]
        open_rooms = [room for room in alive if on.count(room.device.id) < limit]
        chosen = _choose(open_rooms, policy.order, on, need)
        if chosen is None:
            missing = wanted - len(kept) - len(added)
            why = _no_device(policy, rooms, allowed) or _no_room(servable, allowed, open_rooms, need)
            return Decision(wanted, tuple(added), _dropped(mine, kept), _counted(servable, missing, wanted, why))
        room, claim_bytes = chosen
        new = Place(SlotId(servable, room.device.id, next(numbers)), room.device, claim_bytes)
        room.tenants.append(Tenant(new.slot, claim_bytes))
        added.append(new)
    return Decision(wanted, tuple(added), _dropped(mine, kept))


def unknown_names(policy: DevicePolicy, devices: Iterable[Device]) -> tuple[str, ...]:
    """The names among the policy's that no device has."""
    known = list(devices)
    return tuple(
        name for name in policy.devices if name not in {AUTO, ALL} and not any(d.is_called(name) for d in known)
    )


def _allowed(policy: DevicePolicy, rooms: Sequence[Room]) -> list[Room]:
    """The rooms of the devices that the model may use, lost ones included."""
    if policy.devices in {(AUTO,), (ALL,)}:
        gpus = [room for room in rooms if room.device.is_gpu]
        return gpus or list(rooms)
    return [room for room in rooms if any(room.device.is_called(name) for name in policy.devices)]


def _kept(mine: Sequence[SlotId], alive: set[str], wanted: int, per_device: int) -> list[SlotId]:
    """The slots that stay, lowest numbers first."""
    kept: list[SlotId] = []
    for slot in sorted((slot for slot in mine if slot.device in alive), key=lambda slot: slot.replica):
        if len(kept) < wanted and [other.device for other in kept].count(slot.device) < per_device:
            kept.append(slot)
    return kept


def _dropped(mine: Sequence[SlotId], kept: Sequence[SlotId]) -> tuple[SlotId, ...]:
    return tuple(slot for slot in mine if slot not in kept)


def _choose(
    rooms: Sequence[Room], order: Order, on: Sequence[str], need: Callable[[Room], Need]
) -> tuple[Room, int] | None:
    """The room for the next replica; replicas of one servable keep apart where they can."""
    needs = [(room, need(room)) for room in rooms]
    fitting = [(room, each.claim_bytes) for room, each in needs if not each.refusal and room.fits(each.claim_bytes)]
    if not fitting:
        return None

    def rank(item: tuple[Room, int]) -> tuple[float, ...]:
        room, _ = item
        apart = on.count(room.device.id)
        if order is Order.PACK:
            return (apart, room.free_bytes if room.accounted else math.inf, -len(room.tenants))
        return (apart, len(room.tenants), -room.free_bytes)

    return min(fitting, key=rank)


# -- reasons ---------------------------------------------------------------------------------------------------------


def _counted(servable: ServableId, missing: int, wanted: int, why: str) -> str:
    return f"{servable}: {f'{missing} of {wanted} replicas: ' if wanted > 1 else ''}{why}"


def _no_device(policy: DevicePolicy, rooms: Sequence[Room], allowed: Sequence[Room]) -> str:
    """Why the model has no device at all; "" when it has one."""
    if any(not room.lost for room in allowed):
        return ""
    if allowed:
        return _lost(allowed)
    return f"devices names {', '.join(policy.devices)}; this host has {', '.join(room.device.id for room in rooms)}"


def _no_room(
    servable: ServableId, allowed: Sequence[Room], open_rooms: Sequence[Room], need: Callable[[Room], Need]
) -> str:
    reasons = [_room_reason(room, need(room), servable) for room in open_rooms]
    return "; ".join([*reasons, *([_lost(allowed)] if any(room.lost for room in allowed) else [])])


def _lost(rooms: Sequence[Room]) -> str:
    return "; ".join(f"{room.device.id} is lost ({room.lost})" for room in rooms if room.lost)


def _room_reason(room: Room, need: Need, servable: ServableId) -> str:
    if need.refusal:
        return f"on {room.device.id}: {need.refusal}"
    text = f"needs {amount(need.claim_bytes, up=True)}{need.note}, free on {room.device.id} {amount(room.free_bytes)}"
    if need.claim_bytes > room.budget_bytes:
        return f"{text}, which would not be enough if it were empty ({amount(room.budget_bytes)})"
    leaving = _to_unload(room, need.claim_bytes - room.spare_bytes)
    names = ", ".join(str(slot.servable if slot.servable != servable else slot) for slot in leaving)
    return f"{text}, would fit there after unloading {names}"


def _to_unload(room: Room, missing_bytes: int) -> list[SlotId]:
    """The smallest tenant whose claim is enough; several, biggest first, where none is."""
    enough = [tenant for tenant in room.tenants if tenant.claim_bytes >= missing_bytes]
    if enough:
        return [min(enough, key=lambda tenant: tenant.claim_bytes).slot]
    chosen: list[SlotId] = []
    for tenant in sorted(room.tenants, key=lambda tenant: -tenant.claim_bytes):
        if missing_bytes > 0:
            chosen.append(tenant.slot)
            missing_bytes -= tenant.claim_bytes
    return chosen


def amount(size_bytes: int, *, up: bool = False) -> str:
    """Memory as people read it. Free memory is never shown as more than it is; what is needed (`up`) not as less."""
    rounded = math.ceil if up else math.floor
    if size_bytes >= GIB:
        return f"{rounded(size_bytes / GIB * 10) / 10:.1f} GiB"
    return f"{rounded(size_bytes / _MIB)} MiB"
