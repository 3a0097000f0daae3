"""The devices of this host as plain data: what there is, what was read of it, and which of it is lost. Pure.

`nvml` is the only module that asks NVIDIA's library; everything else sees these values. Operators name devices
"cpu", "gpu:0" (NVML's order, that of nvidia-smi), "gpu:0:mig:1", or by UUID; processes are pinned by UUID alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .wire.status import PoolError

FATAL_XIDS = frozenset({46, 48, 61, 62, 64, 79, 95, 110, 119, 120, 140, 143, 151, 156, 158})
"""Xids after which the GPU needs a reset, or the host a restart, before it can be used again.

By NVIDIA's Xid catalog (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, for Ampere and newer):
those whose immediate action is RESET_GPU, RESTART_VM or RESTART_BM; 48, whose text says so; and 61, which the catalog
for older GPUs has (the micro-controller stopped). Not among them: what speaks of one process, whose death is all there
is to handle (13, 31, 43, 45, 94: RESTART_APP or IGNORE); what leaves the GPU usable (63, 92); what speaks of NVLink
(74, 136, 144 to 150, 155), which a worker on one GPU does without; and 109 (a context switch took too long), which the
catalog would have reset, and NVIDIA's device plugin for Kubernetes takes for the application's. 154 only says what
follows from another one.
"""
# A device that answers with some other error so often in a row is lost; one that NVML calls lost is so at once.
SILENT_LOOKS = 3


class DeviceError(PoolError):
    """NVML is there but does not answer."""


@dataclass(frozen=True, slots=True)
class Device:
    """`cuda_visible_devices` pins a process to it ("-1" for the CPU). `memory_bytes` of 0: memory is not accounted."""

    id: str
    cuda_visible_devices: str
    product: str = ""
    memory_bytes: int = 0

    @property
    def is_gpu(self) -> bool:
        return self.cuda_visible_devices != CPU.cuda_visible_devices

    def is_same(self, other: "Device") -> bool:
        """The same piece of hardware: names of MIG instances are given anew, UUIDs are not."""
        return self.cuda_visible_devices == other.cuda_visible_devices

    def is_called(self, name: str) -> bool:
        """Whether an operator means this one."""
        return name == self.id or (name == self.cuda_visible_devices and self.is_gpu)


CPU = Device("cpu", "-1")


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU or MIG instance at one moment. `error`: it does not answer, its numbers mean nothing; `gone`: for good.

    `used_bytes` is everybody's, the driver's own included. `processes`: bytes by pid, None where NVML does not say (or
    in its place, when there is no list to be had); in a container the pids are the host's and match nobody's.
    `ecc_errors`: uncorrected ones since the driver's start.
    """

    device: Device
    used_bytes: int = 0
    processes: Mapping[int, int | None] | None = field(default_factory=dict)
    utilization_percent: int | None = None
    ecc_errors: int | None = None
    error: str = ""
    gone: bool = False

    def names(self, pid: int | None) -> bool:
        """Whether NVML has this process among those on the device."""
        return pid is not None and self.processes is not None and pid in self.processes

    def held_by(self, pid: int | None) -> int | None:
        """What this process holds; None where NVML does not say."""
        return None if pid is None or self.processes is None else self.processes.get(pid)

    @property
    def unnamed_bytes(self) -> int | None:
        """What is in use beside what NVML attributes to processes; None where it does not say that of all."""
        sizes = [None] if self.processes is None else list(self.processes.values())
        named = [size for size in sizes if size is not None]
        return self.used_bytes - sum(named) if len(named) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class Xid:
    """The driver's report of an error on a GPU, by the GPU's id ("gpu:0")."""

    gpu: str
    number: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All GPUs at one moment, and the Xids that came since the last one. Empty without an NVIDIA driver."""

    readings: tuple[Reading, ...] = ()
    xids: tuple[Xid, ...] = ()


class Nvml(Protocol):
    """What is asked of NVML. Blocks, and may hang with the driver: for a thread."""

    def look(self) -> Snapshot:
        """Raises DeviceError."""


class Inventory:
    """The devices that were ever seen, what was read of them last, and why one is lost."""

    def __init__(self, devices: Sequence[Device] = (CPU,)) -> None:
        self.devices = tuple(devices)
        self.readings: dict[str, Reading] = {}
        self.lost: dict[str, str] = {}
        self.silent: dict[str, str] = {}
        """GPUs that are there and have never answered, so that nothing is known of them, and why."""
        self._broken: dict[str, str] = {}
        self._silent: dict[str, int] = {}

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Inventory":
        """What a first look found; the CPU is always there."""
        found = cls()
        found.update(snapshot)
        return found

    @property
    def gpus(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.is_gpu)

    def update(self, snapshot: Snapshot) -> bool:
        """Take note; whether a device came, was lost, or is back. After a fatal Xid none comes back by itself."""
        before = (self.devices, self.lost)
        for xid in snapshot.xids:
            if xid.number in FATAL_XIDS:
                self._broken.setdefault(xid.gpu, f"Xid {xid.number}")
        known = {device.id: device for device in self.devices}
        known |= {each.device.id: each.device for each in snapshot.readings if each.device.cuda_visible_devices}
        gpus = sorted((device for device in known.values() if device.is_gpu), key=_in_order)
        self.devices = (*gpus, *(device for device in self.devices if not device.is_gpu))
        self.readings = {each.device.id: each for each in snapshot.readings}
        for id_, reading in self.readings.items():
            self._silent[id_] = self._silent.get(id_, 0) + 1 if reading.error else 0
        self.silent = {id_: each.error for id_, each in self.readings.items() if not each.device.cuda_visible_devices}
        self.lost = {device.id: why for device in gpus if (why := self._why_lost(device.id))}
        return before != (self.devices, self.lost)

    def _why_lost(self, id_: str) -> str:
        if gpu_of(id_) in self._broken:
            return self._broken[gpu_of(id_)]
        reading = self.readings.get(id_)
        if reading is None or not reading.error:
            return ""
        # One that is lost comes back by an answer alone: a MIG instance that went does not when its GPU falls silent.
        lost = reading.gone or self._silent[id_] >= SILENT_LOOKS or id_ in self.lost
        return reading.error if lost else ""


def gpu_of(device_id: str) -> str:
    """The GPU that a device is, or is a MIG instance of: "gpu:0" for "gpu:0:mig:1"."""
    return ":".join(device_id.split(":")[:2])


def _in_order(device: Device) -> tuple[int, ...]:
    return tuple(int(part) for part in device.id.split(":") if part.isdigit())
