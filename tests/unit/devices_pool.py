"""A manager over `devices_world`'s GPUs and processes, and what holds of each of its turns whatever was asked of it.

What is so is told by that world and by the slots' own claims, never by the code that decides over them.
"""

from collections import Counter

from modelpool.supervisor.commands import Kill, Spawn, Stop
from modelpool.supervisor.devices import Device, Inventory
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.places import LEAST_UNKNOWN_BYTES, Places
from modelpool.supervisor.process import Exit
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.servable import Servable, Slot
from modelpool.supervisor.transition_policy import Presence
from modelpool.supervisor.wire.ids import Incarnation
from tests.unit.devices_world import CUDA_BYTES, GpuHost, claims_on
from tests.unit.manager_world import FRONTEND
from tests.unit.refusal_text import Full, full_devices, named_devices

# States of a slot that has a claim and no process.
_WAITING = {SlotState.PENDING, SlotState.BACKOFF, SlotState.FAILED}


class PoolOnGpus:
    """Fake processes on the GPUs of a host, started and ended as the manager says; those told to go take their time."""

    def begin(self, host: GpuHost) -> None:
        self.host = host
        self.nvml = RealNvml(self.host.library)
        self.places = Places(Inventory.of(self.nvml.look()))
        self.now_s = 1000.0
        self.alive: dict[Incarnation, Spawn] = {}
        self.doomed: set[Incarnation] = set()
        self.policies: dict[str, DevicePolicy] = {}
        self.measured: set[str] = set()
        self.manager = Manager(
            ManagerOptions(
                max_loading=4,
                endpoint=lambda incarnation: f"ipc:///fake/w{incarnation}",
                jitter=lambda: 0.0,
                restart=RestartPolicy(max_load_retries=2, load_retry_interval_s=1.0),
                places=self.places,
            )
        )
        self.manager.board.join(FRONTEND)

    def advance(self) -> None:
        """The manager's turn, and what it orders; what always holds of a turn."""
        before = [(servable, slot, slot.state) for servable in self.servables() for slot in servable.slots]
        claims = {id(slot): slot.claim_bytes for _, slot, _ in before}
        promised = {uuid: self.promised(uuid) for uuid in self.host.read_bytes}
        commands = self.manager.advance(self.now_s)
        for command in commands:
            match command:
                case Spawn():
                    self.start_process(command, claims)
                case Kill(incarnation) | Stop(incarnation):
                    self.doomed |= {incarnation} & self.alive.keys()
                    if incarnation in self.host.processes:
                        self.host.processes[incarnation].doomed = True
        for uuid, bytes_before in promised.items():
            device = self.host.device(uuid)
            assert device is not None
            if self.promised(uuid) > bytes_before:
                free_bytes = device.total_bytes - self.host.foreign[uuid].low_bytes
                assert self.promised(uuid) <= free_bytes, "over budget"
        self.check_moves(before)
        self.check_unknown(before, claims)
        if commands:
            self.advance()

    def start_process(self, spawn: Spawn, claims: dict[int, int]) -> None:
        device = spawn.device
        self.alive[spawn.incarnation] = spawn
        if device.is_gpu:
            assert device.cuda_visible_devices in self.host.usable, "a process on a device that is lost"
            self.check_limit(spawn, claims)
            self.check_memory(spawn)
            self.host.start(spawn)
        self.manager.workers.spawned(spawn.incarnation, spawn.incarnation)

    def check_limit(self, spawn: Spawn, claims: dict[int, int]) -> None:
        """What the model declares is of the process; one that had more before keeps that where less has no room."""
        assert spawn.memory_limit_bytes > 0, "a process that may take all of the GPU"
        slot = self.manager.workers.slot(spawn.incarnation)
        declared_bytes = self.policies[spawn.slot.servable.name].memory_bytes
        if declared_bytes and slot is not None:
            may_take_bytes = CUDA_BYTES + spawn.memory_limit_bytes
            assert may_take_bytes <= max(declared_bytes, claims.get(id(slot), 0)), "more than was declared"

    def check_memory(self, spawn: Spawn) -> None:
        """There is room by the last look, beside what is still to be taken; and the dead have given theirs back."""
        uuid = spawn.device.cuda_visible_devices
        ours = self.host.on(uuid)
        coming = [max(0, each.may_take_bytes - each.read_bytes) for each in ours if not each.doomed and not each.died_s]
        may_take_bytes = CUDA_BYTES + spawn.memory_limit_bytes
        used_bytes = self.host.read_bytes[uuid] + sum(coming)
        assert used_bytes + may_take_bytes <= spawn.device.memory_bytes, "a process without room"
        assert not self.host.unfreed(uuid, self.now_s), "a load before the memory of the dead was free"

    def promised(self, uuid: str) -> int:
        """Of a device. One that is to replace another has no place of its own before it starts."""
        slots = [slot for servable in self.servables() for slot in servable.slots]
        waiting = [slot for slot in slots if slot.state in _WAITING and slot.replaces is None]
        return claims_on(
            self.host, uuid, [slot.claim_bytes for slot in waiting if slot.device.cuda_visible_devices == uuid]
        )

    def check_moves(self, before: list[tuple[Servable, Slot, SlotState]]) -> None:
        """As much stays as may, and no more comes than lacks then."""
        known = {id(slot) for _, slot, _ in before}
        for servable in self.servables():
            if not servable.aspired or servable.id.name not in self.policies:
                continue
            policy = self.policies[servable.id.name]
            usable = Counter(
                slot.device.id
                for each, slot, state in before
                if each is servable and slot.replaces is None and state not in {SlotState.DRAINING, SlotState.STOPPED}
                if self.may_be_on(policy, slot.device) and slot.succeeded_by is None
            )
            new = Counter(slot.device.id for slot in servable.slots if id(slot) not in known and not slot.replaces)
            let_go = Counter(
                slot.device.id
                for each, slot, state in before
                if each is servable and state is SlotState.READY and slot.state is SlotState.DRAINING
                if self.may_be_on(policy, slot.device) and slot.succeeded_by is None and slot.replaces is None
            )
            if policy.devices == ("all",):
                assert all(new[device] <= max(0, policy.replicas - usable[device]) for device in new)
                assert all(let_go[device] <= max(0, usable[device] - policy.replicas) for device in let_go)
            else:
                assert new.total() <= max(0, policy.replicas - usable.total()), "more came than lacked"
                assert let_go.total() <= max(0, usable.total() - policy.replicas), "what could stay was let go of"

    def check_unknown(self, before: list[tuple[Servable, Slot, SlotState]], claims: dict[int, int]) -> None:
        """What declares nothing, and was never measured, gets half of what is free, where that is worth anything."""
        known = {id(slot) for _, slot, _ in before}
        for servable in self.servables():
            name = servable.id.name
            for slot in servable.slots if name not in self.measured and name in self.policies else ():
                if id(slot) in known or self.policies[name].memory_bytes or not slot.claim_bytes or slot.replaces:
                    continue
                uuid = slot.device.cuda_visible_devices
                others = [
                    min(other.claim_bytes, claims[id(other)])
                    for each in self.servables()
                    for other in each.slots
                    if id(other) in claims and other.device.cuda_visible_devices == uuid
                    if other.state not in {SlotState.DRAINING, SlotState.STOPPED} and other.replaces is None
                ]
                free_bytes = slot.device.memory_bytes - self.host.foreign[uuid].low_bytes - sum(others)
                assert slot.claim_bytes <= max(LEAST_UNKNOWN_BYTES, free_bytes // 2)

    def may_be_on(self, policy: DevicePolicy, device: Device) -> bool:
        """It is there, and the model may be on it."""
        if device.is_gpu and device.cuda_visible_devices not in self.host.usable:
            return False
        if policy.devices[0] in {"auto", "all"}:
            return device.is_gpu or not self.host.gpus
        return any(name in {device.id, device.cuda_visible_devices} for name in policy.devices)

    def die(self, incarnation: Incarnation) -> None:
        del self.alive[incarnation]
        self.doomed.discard(incarnation)
        self.host.died(incarnation, self.now_s)
        self.manager.exited(incarnation, Exit(None, 9, "killed"), self.now_s)

    def servables(self) -> list[Servable]:
        return [servable for model in self.manager.models.values() for servable in model.newest_first()]

    # -- where everything rests ------------------------------------------------------------------------------

    def check_refusals(self, *, resting: bool = True) -> None:
        """What was refused has no room, and what would make room, by the refusal, would.

        Before everything rests, a version that has not begun may wait with an older refusal until it is its turn.
        """
        for servable in self.servables():
            going = servable.presence in {Presence.GOING, Presence.GONE}  # it is placed anew when it is gone
            waits = going or (not resting and servable.presence is Presence.NEW)
            if not servable.refusal or not servable.aspired or waits:
                continue
            policy = self.policies[servable.id.name]
            said = {each.device: each for each in full_devices(servable.refusal)}
            for device in self.places.inventory.devices:
                on = sum(slot.stays and slot.device == device for slot in servable.slots)
                if not self.may_be_on(policy, device) or (policy.devices == ("all",) and on >= policy.replicas):
                    continue
                assert device.id in named_devices(servable.refusal)
                if device.id in said and self.host.foreign[device.cuda_visible_devices].told:
                    self.check_advice(servable, device, policy.memory_bytes, said[device.id])

    def check_advice(self, servable: Servable, device: Device, declared_bytes: int, said: Full) -> None:
        uuid = device.cuda_visible_devices
        tenants = [
            slot
            for each in self.servables()
            for slot in each.slots
            if slot.device.cuda_visible_devices == uuid and slot.state is not SlotState.STOPPED
        ]
        free_bytes = device.memory_bytes - self.host.foreign[uuid].low_bytes - sum(s.claim_bytes for s in tenants)
        need_bytes = declared_bytes or said.needs_bytes - said.shown_to_bytes
        assert abs(max(0, free_bytes) - said.free_bytes) <= said.shown_to_bytes
        assert free_bytes < (declared_bytes or said.needs_bytes), "refused where there is room"
        names = set(said.leaving)
        leaving = [slot for slot in tenants if {str(slot.id), str(slot.id.servable)} & names]
        if names:
            assert free_bytes + sum(slot.claim_bytes for slot in leaving) >= need_bytes, "advice that does not help"
        else:
            assert free_bytes + sum(slot.claim_bytes for slot in tenants) < (declared_bytes or said.needs_bytes)
