"""The places that workers can have, as the manager asks for them: what fits where, what may start now. Event loop only.

Puts together the devices (`devices`), the rules (`placement`), the processes (`ledger`) and what was measured before
(`memory_book`). Holds no slot itself: the manager's slots say what is taken.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from . import placement
from .devices import CPU, Device, Inventory, Snapshot
from .ledger import SLACK_BYTES, Ledger
from .memory_book import MemoryBook
from .placement import Decision, DevicePolicy, Need, Room, Tenant, amount
from .servable import Servable, Slot
from .wire.ids import Incarnation, ServableId
from .wire.log import fields
from .wire.status import OK, Code, Status

log = logging.getLogger(__name__)

# What a model that was never measured must find free at least; of what it finds it may take half.
LEAST_UNKNOWN_BYTES = 1 << 30
# A model that declares nothing may take so much more than it was measured to need: bigger batches come.
MARGIN = 1.5
# Less than this beside CUDA's own is no use to TensorFlow.
_LEAST_LIMIT_BYTES = 64 << 20


class Places:
    """`fraction`: per_process_gpu_memory_fraction, TensorFlow's share of a GPU per process; 0 for none.

    `runs_on_cpu`: whether what lies in a version's folder can use no GPU, wherever it is placed.
    """

    def __init__(
        self,
        inventory: Inventory | None = None,
        book: MemoryBook | None = None,
        fraction: float = 0.0,
        runs_on_cpu: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.inventory = inventory or Inventory()
        self.book = book or MemoryBook()
        self.ledger = Ledger()
        self._fraction = fraction
        self._runs_on_cpu = runs_on_cpu
        self.ledger.read(self.inventory.readings.values(), 0.0)
        self.generation = 0
        """Grows when slots may have to move."""

    # -- what happens ----------------------------------------------------------------------------------------

    def look(self, snapshot: Snapshot, taken_s: float) -> bool:
        """NVML was read, beginning at `taken_s`; whether the book has news to be kept."""
        for xid in snapshot.xids:
            log.error("the driver reports an error %s", fields(device=xid.gpu, xid=xid.number))
        lost_before, silent_before = self.inventory.lost, self.inventory.silent
        if self.inventory.update(snapshot):
            self.generation += 1
        for id_ in self.inventory.lost.keys() - lost_before.keys():
            log.error("device lost %s", fields(device=id_, why=self.inventory.lost[id_]))
        for id_ in lost_before.keys() - self.inventory.lost.keys():
            log.info("device is back %s", fields(device=id_))
        for id_ in self.inventory.silent.keys() - silent_before.keys():
            log.error("GPU cannot be used %s", fields(device=id_, why=self.inventory.silent[id_]))
        news = False
        for each in self.ledger.read(snapshot.readings, taken_s):
            product = each.device.product
            news |= self.book.note(each.slot.servable, product, each.process_bytes, each.peak_bytes)
            log.info("measured %s", fields(slot=each.slot, gpu_bytes=each.process_bytes, peak_bytes=each.peak_bytes))
        return news

    # -- placement -------------------------------------------------------------------------------------------

    def rooms(self, slots: Iterable[Slot]) -> list[Room]:
        """Every device with what is, or is going to be, on it."""
        rooms = {
            device.id: Room(
                device,
                max(0, device.memory_bytes - self.ledger.foreign_bytes(device.id)),
                self.inventory.lost.get(device.id, ""),
            )
            for device in self.inventory.devices
        }
        for slot in slots:
            # Not of a MIG instance whose name another one has now.
            if slot.holds_place and slot.device.id in rooms and slot.device.is_same(rooms[slot.device.id].device):
                rooms[slot.device.id].tenants.append(Tenant(slot.id, slot.claim_bytes))
        return list(rooms.values())

    def arrange(self, servable: Servable, policy: DevicePolicy, rooms: Sequence[Room]) -> Decision:
        """Which slots to make, and which of those on living devices to let go of; new ones are entered in `rooms`."""
        if policy.devices == (placement.AUTO,) and self.inventory.gpus and self._runs_on_cpu(servable.path):
            policy = replace(policy, devices=(CPU.id,))
        mine = [slot.id for slot in servable.slots if slot.stays and not self.why_lost(slot.device)]
        numbers = {slot.id.replica for slot in servable.slots}
        return placement.place(
            servable.id, policy, rooms, mine=mine, need=self.need(servable.id, policy), taken=numbers
        )

    def need(self, servable: ServableId, policy: DevicePolicy) -> Callable[[Room], Need]:
        """What a process of the servable takes, by room."""

        def of(room: Room) -> Need:
            product = room.device.product
            if not room.accounted:
                return Need(0)
            overhead_bytes = self.book.overhead_bytes(product)
            if policy.memory_bytes:
                if policy.memory_bytes < overhead_bytes + _LEAST_LIMIT_BYTES:
                    return Need(policy.memory_bytes, _too_little(policy.memory_bytes, overhead_bytes, room))
                return Need(policy.memory_bytes)
            if self._fraction:
                # Where that much cannot be had, TensorFlow takes less (BFCAllocator::Extend).
                most_bytes = max(room.budget_bytes - SLACK_BYTES, overhead_bytes + _LEAST_LIMIT_BYTES)
                return Need(min(int(self._fraction * room.device.memory_bytes) + overhead_bytes, most_bytes))
            measured_bytes = self.book.need_bytes(servable, product)
            if measured_bytes is not None:
                return Need(max(int(measured_bytes * MARGIN), overhead_bytes + _LEAST_LIMIT_BYTES))
            return Need(max(LEAST_UNKNOWN_BYTES, room.free_bytes // 2), note=" or more, as it was never measured")

        return of

    def limit_bytes(self, slot: Slot, policy: DevicePolicy) -> int:
        """TensorFlow's limit in a process that may take `slot.claim_bytes` in all; 0 for none of ours."""
        if not slot.claim_bytes or (self._fraction and not policy.memory_bytes):
            return 0
        return max(_LEAST_LIMIT_BYTES, slot.claim_bytes - self.book.overhead_bytes(slot.device.product))

    # -- starting --------------------------------------------------------------------------------------------

    def started(self, slot: Slot, policy: DevicePolicy, incarnation: Incarnation) -> None:
        """A process is about to be started in this slot."""
        self.ledger.started(
            incarnation, slot.id, slot.device, known=self._is_known(slot, policy), claim_bytes=slot.claim_bytes
        )

    def _is_known(self, slot: Slot, policy: DevicePolicy) -> bool:
        measured = self.book.need_bytes(slot.id.servable, slot.device.product) is not None
        return bool(policy.memory_bytes or self._fraction) or measured

    def may_start(self, slot: Slot, policy: DevicePolicy, rooms: Iterable[Room], now_s: float) -> bool:
        """Whether a process may start in this slot now; `slot.waits_for` says why not.

        What our own slots claim was settled by placement, but for those that are to replace another; that somebody
        else has taken memory since is an error of the slot, too.
        """
        device = slot.device
        if slot.error.message and slot.error.message == slot.waits_for:
            slot.error = OK
        slot.waits_for = self.why_lost(device)
        if slot.waits_for or not device.memory_bytes:
            return not slot.waits_for
        if self._fraction and not policy.memory_bytes and slot.replaces is None:
            self.renew(slot, policy, rooms)  # its share is what others have left of it
        known = self._is_known(slot, policy)
        slot.waits_for = self.ledger.busy(device, now_s, known=known, urgent=slot.ever_ready)
        free_bytes = device.memory_bytes - self.ledger.used_bytes(device.id)
        if slot.replaces is not None:
            free_bytes = min(free_bytes, *(_free_beside(slot, room) for room in rooms if room.device.id == device.id))
        if not slot.waits_for and free_bytes < slot.claim_bytes:
            needs = f"needs {amount(slot.claim_bytes, up=True)}, free on {device.id} {amount(free_bytes)} at the moment"
            slot.waits_for = f"{slot.id.servable}: {needs}"
            slot.error = Status(Code.RESOURCE_EXHAUSTED, slot.waits_for)
        elif not slot.waits_for and free_bytes < slot.claim_bytes + self.ledger.coming_bytes(device):
            slot.waits_for = f"what others that are being loaded on {device.id} take"
        return not slot.waits_for

    def renew(self, slot: Slot, policy: DevicePolicy, rooms: Iterable[Room]) -> str:
        """Before a process starts: its claim by what is known now, where that fits; where it does not, why."""
        why = ""
        for room in rooms:
            if room.device.id == slot.device.id and room.accounted:
                beside = replace(room, tenants=_others(slot, room))
                need = self.need(slot.id.servable, policy)(beside)
                if not need.refusal and beside.fits(need.claim_bytes):
                    slot.claim_bytes = need.claim_bytes
                else:
                    needs = f"needs {amount(need.claim_bytes, up=True)}, free on {room.device.id}"
                    why = need.refusal or f"{needs} {amount(beside.free_bytes)}"
                room.tenants = [*beside.tenants, Tenant(slot.id, slot.claim_bytes)]
        return why

    def why_lost(self, device: Device) -> str:
        """Why no process can be on it; "" for one that is there. MIG instances may be made anew under an old name."""
        if device.id in self.inventory.lost:
            return self.inventory.lost[device.id]
        uuids = {each.cuda_visible_devices for each in self.inventory.devices}
        return "" if device.cuda_visible_devices in uuids else f"{device.id} is another device now"


def _others(slot: Slot, room: Room) -> list[Tenant]:
    """All tenants but this slot; the one that it is to replace has the same name, and stays."""
    others = list(room.tenants)
    own = Tenant(slot.id, slot.claim_bytes)
    if own in others:
        others.remove(own)
    return others


def _free_beside(slot: Slot, room: Room) -> int:
    return replace(room, tenants=_others(slot, room)).free_bytes


def _too_little(declared_bytes: int, overhead_bytes: int, room: Room) -> str:
    return (
        f"gpu_memory_mb declares {amount(declared_bytes)}, of which CUDA itself takes {amount(overhead_bytes)} on "
        f"{room.device.product or room.device.id}"
    )
