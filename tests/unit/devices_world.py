"""What is so on the GPUs of a host, by the fake NVML and the test's own account, to hold the pool's view against.

Processes of the pool take CUDA's part at once, and of TensorFlow's all that their limit allows when they load; others
take and give back what they like; the dead keep theirs until the driver frees it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pynvml

from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.ledger import CONFIRM_S
from modelpool.supervisor.wire.ids import Incarnation
from tests.fake_nvml import FakeGpu, FakeLibrary

GIB = 1 << 30
HOST_PIDS = 100_000
STRANGER = 9_000_000
CUDA_BYTES = 512 << 20
# So many looks without an answer, and a GPU is lost.
SILENT_LOOKS = 3
# Of NVIDIA's catalog: the GPU needs a reset.
FATAL_XID = 79
# One process has failed; the GPU has not.
HARMLESS_XID = 13


@dataclass(eq=False)
class Process:
    """A worker on a GPU. `limit_bytes`: TensorFlow's. `squeezed`: others took memory while it was on its way."""

    spawn: Spawn
    gpu: FakeGpu
    pid: int
    squeezed: bool = False
    blurred: bool = False
    """In its time memory came free that was not its own: by the total, that looks like its own."""
    doomed: bool = False
    died_s: float | None = None
    freed: bool = False
    named: bool = False
    """NVML has been read when it had its pid, which is ours."""
    read_bytes: int = 0
    """What it held at the last look."""

    @property
    def may_take_bytes(self) -> int:
        return CUDA_BYTES + self.spawn.memory_limit_bytes

    @property
    def held_bytes(self) -> int:
        return self.gpu.processes.get(self.pid) or 0

    def waited(self, now_s: float) -> bool:
        """It is dead for so long that nobody waits for its memory any more."""
        return self.died_s is not None and now_s - self.died_s >= CONFIRM_S


@dataclass
class Foreign:
    """Between what bounds others' memory was since it could last be told; and whether it could be at the last look."""

    low_bytes: int
    high_bytes: int
    told: bool = True


@dataclass
class GpuHost:
    """`contained`: NVML names pids that are not ours."""

    gpus: list[FakeGpu]
    contained: bool
    library: FakeLibrary = field(init=False)
    processes: dict[Incarnation, Process] = field(default_factory=dict)
    usable: set[str] = field(default_factory=set)
    """UUIDs of the devices that were there, and not lost, at the last look."""
    read_bytes: dict[str, int] = field(default_factory=dict)
    """By UUID: what was in use at the last look."""
    foreign: dict[str, Foreign] = field(default_factory=dict)
    _ever: dict[str, FakeGpu] = field(default_factory=dict)
    _fatal: set[str] = field(default_factory=set)
    _silent: dict[str, int] = field(default_factory=dict)
    _grown: set[str] = field(default_factory=set)
    _made: int = 0

    def __post_init__(self) -> None:
        self.library = FakeLibrary(*self.gpus)
        self.looked(0.0)

    # -- devices ---------------------------------------------------------------------------------------------

    def devices(self) -> list[FakeGpu]:
        """The GPUs, or their MIG instances."""
        return [each for gpu in self.gpus for each in (gpu.mig.values() if gpu.mig is not None else [gpu])]

    def device(self, uuid: str) -> FakeGpu | None:
        """Also one that was there once."""
        self._ever |= {each.uuid: each for each in self.devices()}
        return self._ever.get(uuid)

    def break_gpu(self, gpu: FakeGpu, how: str) -> None:
        """`how`: "fatal" or "harmless" for an Xid, "bus", "silent", "back"."""
        if how in {"fatal", "harmless"}:
            self.library.xid(gpu, FATAL_XID if how == "fatal" else HARMLESS_XID)
            self._fatal |= {gpu.uuid} if how == "fatal" else set()
        else:
            gpu.error = {"bus": pynvml.NVML_ERROR_GPU_IS_LOST, "silent": pynvml.NVML_ERROR_UNKNOWN}.get(how, 0)

    def repartition(self, index: int) -> None:
        """A MIG instance goes, or another one is made in its place."""
        for gpu in self.gpus:
            if gpu.mig is not None and not gpu.error:
                gone = gpu.mig.pop(index, None)
                self._made += 1
                if gone is None or index % 2:
                    gpu.mig[index] = FakeGpu(f"MIG-new{self._made}", 3 * GIB, gpu=gpu)

    def is_lost(self, gpu: FakeGpu) -> bool:
        """By what has been told at the last look."""
        return gpu.uuid in self._fatal or self._silent.get(gpu.uuid, 0) >= SILENT_LOOKS

    # -- memory ----------------------------------------------------------------------------------------------

    def stranger_holds(self, gpu: FakeGpu, wanted_bytes: int) -> None:
        """Somebody else's process has so much now, as far as there is so much."""
        before = gpu.processes.pop(STRANGER, 0) or 0
        holds = min(wanted_bytes, gpu.total_bytes - gpu.used_bytes)
        gpu.processes |= {STRANGER: holds} if holds else {}
        for process in self.on(gpu.uuid):
            process.squeezed |= holds > before
            process.blurred |= holds != before
        self._grown |= {gpu.uuid} if holds > before else set()

    def start(self, spawn: Spawn) -> None:
        gpu = self.device(spawn.device.cuda_visible_devices)
        assert gpu is not None
        process = Process(spawn, gpu, spawn.incarnation + (HOST_PIDS if self.contained else 0))
        process.squeezed = gpu.uuid in self._grown
        free_bytes = gpu.total_bytes - gpu.used_bytes
        assert process.squeezed or free_bytes >= CUDA_BYTES
        gpu.processes[process.pid] = min(CUDA_BYTES, free_bytes)
        self.processes[spawn.incarnation] = process

    def load(self, incarnation: Incarnation) -> bool:
        """It takes all that its limit allows; whether there was so much, which only others may have prevented."""
        process = self.processes.get(incarnation)
        if process is None:
            return True
        more_bytes = process.may_take_bytes - process.held_bytes
        if process.gpu.used_bytes + more_bytes <= process.gpu.total_bytes:
            process.gpu.processes[process.pid] = process.may_take_bytes
            return True
        assert process.squeezed, "more was promised than there is"
        return False

    def died(self, incarnation: Incarnation, now_s: float) -> None:
        if incarnation in self.processes:
            self.processes[incarnation].died_s = now_s

    def free(self, process: Process) -> None:
        """The driver gives back what the dead process held."""
        process.gpu.processes.pop(process.pid, None)
        process.freed = True
        for other in self.on(process.gpu.uuid):
            other.blurred |= other is not process

    def on(self, uuid: str) -> list[Process]:
        return [process for process in self.processes.values() if process.gpu.uuid == uuid]

    def dead(self) -> list[Process]:
        """Those whose memory is not free yet."""
        return [each for each in self.processes.values() if each.died_s is not None and not each.freed]

    def unfreed(self, uuid: str, now_s: float) -> list[Process]:
        """The dead whose memory is to be waited for. Not where it cannot be told from what came free meanwhile."""
        told = [each for each in self.on(uuid) if each.named or not each.blurred]
        return [each for each in told if each.died_s is not None and not each.freed and not each.waited(now_s)]

    # -- looks -----------------------------------------------------------------------------------------------

    def looked(self, now_s: float) -> None:
        """The pool has read NVML: what it can know now. To be called before it reads."""
        for gpu in self.gpus:
            self._silent[gpu.uuid] = self._silent.get(gpu.uuid, 0) + 1 if gpu.error else 0
            if gpu.error == pynvml.NVML_ERROR_GPU_IS_LOST:
                self._silent[gpu.uuid] += SILENT_LOOKS
            known = {uuid for uuid in self.usable if (one := self.device(uuid)) and (one is gpu or one.gpu is gpu)}
            self.usable -= known
            if self.is_lost(gpu):
                continue
            there = [gpu] if gpu.mig is None else list(gpu.mig.values())
            self.usable |= known if gpu.error else {each.uuid for each in there}
            for each in [] if gpu.error else there:
                self._read(each, now_s)

    def _read(self, device: FakeGpu, now_s: float) -> None:
        self._grown.discard(device.uuid)
        self.read_bytes[device.uuid] = device.used_bytes
        ours = self.on(device.uuid)
        for process in ours:
            process.read_bytes = process.held_bytes
            process.named |= process.held_bytes > 0 and not self.contained
        given_up = sum(each.held_bytes for each in ours if each.waited(now_s))
        dead_bytes = sum(each.held_bytes for each in ours if each.died_s is not None)
        others_bytes = device.used_bytes - sum(each.held_bytes for each in ours)
        held = [each for each in ours if not each.waited(now_s) and not (each.freed and each.named)]
        told = all(each.died_s is None and each.named for each in held)
        low, high = others_bytes, others_bytes + dead_bytes
        if told:
            self.foreign[device.uuid] = Foreign(others_bytes + given_up, others_bytes + given_up)
        else:
            was = self.foreign.setdefault(device.uuid, Foreign(low, high))
            # What the total says of ours may be others' where pids are hidden: then it can be told no more.
            low = 0 if self.contained else low
            self.foreign[device.uuid] = Foreign(min(was.low_bytes, low), max(was.high_bytes, high), told=False)


def claims_on(host: GpuHost, uuid: str, waiting: Iterable[int]) -> int:
    """What is promised of a device: to living processes by their limits, to slots that wait for one by their claims."""
    living = [each.may_take_bytes for each in host.on(uuid) if each.died_s is None]
    return sum(living) + sum(waiting)
