"""The seam to NVML: the only module that knows `pynvml`. It reads; what that means is decided elsewhere.

A host without NVIDIA devices, or without their driver, gives empty snapshots. A GPU that fails to answer is reported
with its error, under the names by which it was known before. Blocks: to be called in one thread at a time.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pynvml

from .devices import Device, DeviceError, Reading, Snapshot, Xid, gpu_of

# Xids of a GPU that one look takes in; what is left comes with the next.
_MAX_XIDS = 64
_GONE = "NVML does not list it any more"
_NO_INSTANCE = "it is in MIG mode and has no instance"


class RealNvml:
    """NVML by `nvidia-ml-py`. `library` has its functions; tests bring a scripted one."""

    def __init__(self, library: Any = pynvml) -> None:
        self._library = library
        self._started = False
        self._known: dict[str, Device] = {}
        self._watched: dict[str, tuple[str, Any]] = {}
        """By UUID: the GPU's name and its event set, None where it tells no events."""

    def look(self) -> Snapshot:
        """Everything that NVML says now. Raises DeviceError."""
        if not self._started and not self._start():
            return Snapshot()
        try:
            count = self._library.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise DeviceError(f"NVML lists no devices: {error}") from error
        readings = {each.device.id: each for index in range(count) for each in self._gpu(index)}
        for id_, device in self._known.items():
            readings.setdefault(id_, Reading(device, error=_GONE, gone=True))
        self._known |= {id_: each.device for id_, each in readings.items() if each.device.cuda_visible_devices}
        return Snapshot(tuple(readings.values()), tuple(self._xids()))

    def close(self) -> None:
        """Let go of the library."""
        if self._started:
            self._started = False
            self._watched.clear()
            _or_none(self._library.nvmlShutdown)

    def _start(self) -> bool:
        """False without an NVIDIA driver."""
        try:
            self._library.nvmlInit()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return False
        except pynvml.NVMLError as error:
            raise DeviceError(f"NVML does not start: {error}") from error
        self._started = True
        return True

    def _gpu(self, index: int) -> Iterator[Reading]:
        """The GPU, or in MIG mode its instances; as it was known before when it does not answer."""
        name = f"gpu:{index}"
        try:
            handle = self._library.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(self._library.nvmlDeviceGetUUID(handle))
            self._watch(name, handle, uuid)
            found = list(self._instances(name, handle) if self._in_mig_mode(handle) else [(name, handle)])
        except pynvml.NVMLError as error:
            known = [device for device in self._known.values() if gpu_of(device.id) == name]
            yield from (_failed(device, error) for device in known or [Device(name, "")])
            return
        if not found:
            yield Reading(self._known.get(name, Device(name, "")), error=_NO_INSTANCE, gone=True)
        for id_, each in found:
            yield self._reading(id_, each)

    def _in_mig_mode(self, handle: Any) -> bool:
        mode = _or_none(self._library.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE

    def _instances(self, name: str, handle: Any) -> Iterator[tuple[str, Any]]:
        for index in range(self._library.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                yield f"{name}:mig:{index}", self._library.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
                continue  # a place where no instance was made

    def _reading(self, id_: str, handle: Any) -> Reading:
        device = self._known.get(id_, Device(id_, ""))
        try:
            memory = self._library.nvmlDeviceGetMemoryInfo(handle)
            uuid, product = self._library.nvmlDeviceGetUUID(handle), self._library.nvmlDeviceGetName(handle)
            device = Device(id_, _text(uuid), _text(product), int(memory.total))
        except pynvml.NVMLError as error:
            return _failed(device, error)
        processes = _or_none(self._library.nvmlDeviceGetComputeRunningProcesses, handle)
        utilization = _or_none(self._library.nvmlDeviceGetUtilizationRates, handle)
        kind, counter = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        return Reading(
            device,
            used_bytes=int(memory.used),
            # A process that is there holds something: 0 means that NVML cannot say, as in some containers.
            processes=None if processes is None else {int(each.pid): each.usedGpuMemory or None for each in processes},
            utilization_percent=None if utilization is None else int(utilization.gpu),
            ecc_errors=_or_none(self._library.nvmlDeviceGetTotalEccErrors, handle, kind, counter),
        )

    # -- events ----------------------------------------------------------------------------------------------

    def _watch(self, name: str, handle: Any, uuid: str) -> None:
        """Have the Xids of this GPU told; not every GPU and driver can.

        In an event set of its own: of one that has fallen off the bus NVML does not say any more which it was, and
        others' events would wait behind its error.
        """
        if uuid in self._watched:
            return
        kinds, events = pynvml.nvmlEventTypeXidCriticalError, _or_none(self._library.nvmlEventSetCreate)
        if events is not None:
            _or_none(self._library.nvmlDeviceRegisterEvents, handle, kinds, events)
        self._watched[uuid] = (name, events)

    def _xids(self) -> Iterator[Xid]:
        for name, events in self._watched.values():
            for _ in range(_MAX_XIDS if events is not None else 0):
                event = _or_none(self._library.nvmlEventSetWait_v2, events, 0)
                if event is None:
                    break
                if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                    yield Xid(name, int(event.eventData))


def _failed(device: Device, error: Exception) -> Reading:
    gone = isinstance(error, (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired))
    return Reading(device, error=str(error), gone=gone)


def _or_none(call: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML says, or None where it cannot say: unsupported, not allowed, no event, or the device is lost."""
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value
