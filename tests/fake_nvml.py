"""A scripted NVML: the functions of `pynvml` that are used, over GPUs that a test makes, fills and breaks."""

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1 << 30


@dataclass
class FakeGpu:
    """A GPU, or with `gpu` set a MIG instance of one. `error`: what NVML answers instead (a code of pynvml)."""

    uuid: str
    total_bytes: int = 8 * GIB
    product: str = "Fake H1"
    driver_bytes: int = 0
    processes: dict[int, int | None] = field(default_factory=dict)
    """Bytes by the pid that NVML names, which in a container is not ours."""
    held_bytes: dict[object, int] = field(default_factory=dict)
    """What is held by processes that NVML does not name."""
    utilization: int | None = 0
    ecc: int | None = 0
    mig: "dict[int, FakeGpu] | None" = None
    gpu: "FakeGpu | None" = None
    error: int = 0
    index: int = 0

    @property
    def used_bytes(self) -> int:
        return self.driver_bytes + sum(size or 0 for size in self.processes.values()) + sum(self.held_bytes.values())


@dataclass
class FakeEventSet:
    """The GPUs whose events it has."""

    gpus: list[FakeGpu] = field(default_factory=list)


class FakeLibrary:
    """Stands in for the module `pynvml`."""

    def __init__(self, *gpus: FakeGpu, start_error: int = 0) -> None:
        self.gpus = list(gpus)
        self.start_error = start_error
        self.list_error = 0
        self.processes_error = 0
        self.event_sets: list[FakeEventSet] = []
        self.events: deque[tuple[FakeGpu, int, int]] = deque()
        self.watched: list[FakeGpu] = []
        self.inits = 0
        for index, gpu in enumerate(gpus):
            gpu.index = index
            for instance in (gpu.mig or {}).values():
                instance.gpu = gpu

    def xid(self, gpu: FakeGpu, number: int) -> None:
        self.events.append((gpu, pynvml.nvmlEventTypeXidCriticalError, number))

    # -- pynvml ----------------------------------------------------------------------------------------------

    def nvmlInit(self) -> None:
        _check(self.start_error)
        self.inits += 1

    def nvmlShutdown(self) -> None:
        self.inits -= 1

    def nvmlDeviceGetCount(self) -> int:
        _check(self.list_error)
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return _answering(self.gpus[index])

    def nvmlDeviceGetIndex(self, gpu: FakeGpu) -> int:
        return _answering(gpu).index

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str | bytes:
        return _answering(gpu).uuid.encode() if gpu.index % 2 else gpu.uuid  # bindings have given both

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return _answering(gpu).product

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(total=_answering(gpu).total_bytes, used=gpu.used_bytes)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if _answering(gpu).gpu is not None:
            _check(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return [int(gpu.mig is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7 if _answering(gpu).mig is not None else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        instances = _answering(gpu).mig or {}
        if index not in instances:
            _check(pynvml.NVML_ERROR_NOT_FOUND)
        return instances[index]

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        _check(self.processes_error)
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in _answering(gpu).processes.items()]

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        if _answering(gpu).utilization is None:
            _check(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=gpu.utilization)

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, kind: int, counter: int) -> int:
        assert (kind, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        if _answering(gpu).ecc is None:
            _check(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu.ecc or 0

    def nvmlEventSetCreate(self) -> Any:
        self.event_sets.append(FakeEventSet())
        return self.event_sets[-1]

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, kinds: int, event_set: Any) -> None:
        assert kinds == pynvml.nvmlEventTypeXidCriticalError
        event_set.gpus.append(gpu)
        self.watched.append(gpu)

    def nvmlEventSetWait_v2(self, event_set: Any, timeout_ms: int) -> Any:
        assert timeout_ms == 0
        for at, (gpu, kind, number) in enumerate(self.events):
            if any(gpu is each for each in event_set.gpus):
                del self.events[at]
                return SimpleNamespace(device=gpu, eventType=kind, eventData=number)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)


def _answering(gpu: FakeGpu) -> FakeGpu:
    _check(gpu.error or (gpu.gpu.error if gpu.gpu is not None else 0))
    return gpu


def _check(code: int) -> None:
    if code:
        raise pynvml.NVMLError(code)
