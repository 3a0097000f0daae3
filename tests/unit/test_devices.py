"""The seam to NVML, driven by fakes."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from modelpool.supervisor import devices
from modelpool.supervisor.devices import CPU, Device, DeviceError, RealNvml


class FakeNvml:
    def __init__(self, *uuids: str) -> None:
        self._uuids = uuids

    def gpu_uuids(self) -> tuple[str, ...]:
        return self._uuids


def fake_pynvml(uuids: list[str | bytes], fail: Exception | None = None) -> Any:
    def init() -> None:
        if fail is not None:
            raise fail

    return SimpleNamespace(
        NVMLError=pynvml.NVMLError,
        NVMLError_LibraryNotFound=pynvml.NVMLError_LibraryNotFound,
        NVMLError_DriverNotLoaded=pynvml.NVMLError_DriverNotLoaded,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(uuids),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: uuids[handle],
    )


def test_a_host_without_gpus_has_its_cpu() -> None:
    assert devices.inventory(FakeNvml()) == (CPU,)


def test_gpus_are_pinned_by_uuid() -> None:
    assert devices.inventory(FakeNvml("GPU-a", "GPU-b")) == (Device("gpu:0", "GPU-a"), Device("gpu:1", "GPU-b"))


def test_uuids_are_read_as_text_whatever_the_binding_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "pynvml", fake_pynvml([b"GPU-a", "GPU-b"]))
    assert RealNvml().gpu_uuids() == ("GPU-a", "GPU-b")


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    monkeypatch.setattr(devices, "pynvml", fake_pynvml([], pynvml.NVMLError(error)))
    assert RealNvml().gpu_uuids() == ()


def test_a_driver_that_fails_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "pynvml", fake_pynvml([], pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)))
    with pytest.raises(DeviceError, match="NVML does not start"):
        RealNvml().gpu_uuids()


def test_the_least_loaded_device_is_taken_and_the_first_among_equals() -> None:
    one, two = Device("gpu:0", "a"), Device("gpu:1", "b")
    assert devices.least_loaded((one, two), []) == one
    assert devices.least_loaded((one, two), [one]) == two
    assert devices.least_loaded((one, two), [one, two, two]) == one
