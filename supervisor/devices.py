"""The devices of this host. The only module that knows NVML; everything else sees `Device` values.

A host without NVIDIA devices, or without their driver, has the CPU alone, which is said once by the caller.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import pynvml

from .wire.status import PoolError


class DeviceError(PoolError):
    """NVML is there but does not answer."""


@dataclass(frozen=True, slots=True)
class Device:
    """`id` as operators name it ("cpu", "gpu:0"); `cuda_visible_devices` pins a process to it."""

    id: str
    cuda_visible_devices: str


CPU = Device("cpu", "-1")


class Nvml(Protocol):
    """What is asked of NVML."""

    def gpu_uuids(self) -> tuple[str, ...]:
        """UUIDs in NVML's order; empty without NVIDIA driver. Raises DeviceError."""


class RealNvml:
    """NVML by `nvidia-ml-py`."""

    def gpu_uuids(self) -> tuple[str, ...]:
        try:
            pynvml.nvmlInit()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return ()
        except pynvml.NVMLError as error:
            raise DeviceError(f"NVML does not start: {error}") from error
        try:
            count = pynvml.nvmlDeviceGetCount()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            return tuple(_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles)
        except pynvml.NVMLError as error:
            raise DeviceError(f"NVML lists no devices: {error}") from error
        finally:
            pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


def inventory(nvml: Nvml) -> tuple[Device, ...]:
    """The GPUs, or the CPU where there is none. Raises DeviceError."""
    gpus = tuple(Device(f"gpu:{index}", uuid) for index, uuid in enumerate(nvml.gpu_uuids()))
    return gpus or (CPU,)


def least_loaded(devices: Collection[Device], slots: Collection[Device]) -> Device:
    """The device with the fewest slots, the first one among equals. `devices` must not be empty."""
    taken = list(slots)
    return min(devices, key=taken.count)
