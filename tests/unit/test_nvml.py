"""The seam to NVML, over a scripted library: what is read, and what is made of its errors."""

import pynvml
import pytest

from modelpool.supervisor.devices import Device, DeviceError, Reading, Snapshot, Xid
from modelpool.supervisor.nvml import RealNvml
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary


def mig_gpu(**instances: int) -> FakeGpu:
    """A GPU in MIG mode with instances of so many GiB."""
    made = {int(at[1:]): FakeGpu(f"MIG-{at}", size * GIB, "Fake H1 MIG") for at, size in instances.items()}
    return FakeGpu("GPU-m", utilization=None, ecc=None, mig=made)


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_means_no_gpus(error: int) -> None:
    assert RealNvml(FakeLibrary(start_error=error)).look() == Snapshot()


def test_a_driver_that_fails_is_an_error_with_its_reason() -> None:
    library = FakeLibrary(FakeGpu("GPU-a"), start_error=pynvml.NVML_ERROR_UNKNOWN)
    nvml = RealNvml(library)
    with pytest.raises(DeviceError, match="NVML does not start"):
        nvml.look()
    library.start_error = 0
    assert len(nvml.look().readings) == 1
    library.list_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    with pytest.raises(DeviceError, match="NVML lists no devices"):
        nvml.look()


def test_what_is_read_of_gpus() -> None:
    busy = FakeGpu("GPU-a", 16 * GIB, driver_bytes=GIB, processes={7: 2 * GIB, 8: None}, utilization=90, ecc=3)
    nvml = RealNvml(library := FakeLibrary(busy, FakeGpu("GPU-b", utilization=None, ecc=None)))
    first, second = nvml.look().readings
    device = Device("gpu:0", "GPU-a", "Fake H1", 16 * GIB)
    assert first == Reading(device, 3 * GIB, {7: 2 * GIB, 8: None}, utilization_percent=90, ecc_errors=3)
    assert second == Reading(Device("gpu:1", "GPU-b", "Fake H1", 8 * GIB))
    nvml.look()
    assert library.inits == 1
    nvml.close()
    assert library.inits == 0


def test_a_process_that_holds_nothing_is_one_of_which_nvml_cannot_say() -> None:
    (reading,) = RealNvml(FakeLibrary(FakeGpu("GPU-a", processes={7: 0, 8: GIB}))).look().readings
    assert reading.processes == {7: None, 8: GIB}


def test_no_list_of_processes_is_not_an_empty_one() -> None:
    nvml = RealNvml(library := FakeLibrary(FakeGpu("GPU-a", processes={7: GIB})))
    library.processes_error = pynvml.NVML_ERROR_NO_PERMISSION
    (reading,) = nvml.look().readings
    assert (reading.processes, reading.used_bytes, reading.error) == (None, GIB, "")


def test_in_mig_mode_the_instances_are_the_devices() -> None:
    nvml = RealNvml(FakeLibrary(mig_gpu(_0=5, _3=10), FakeGpu("GPU-b")))
    assert [each.device for each in nvml.look().readings] == [
        Device("gpu:0:mig:0", "MIG-_0", "Fake H1 MIG", 5 * GIB),
        Device("gpu:0:mig:3", "MIG-_3", "Fake H1 MIG", 10 * GIB),
        Device("gpu:1", "GPU-b", "Fake H1", 8 * GIB),
    ]
    (reading,) = RealNvml(FakeLibrary(mig_gpu())).look().readings
    assert (reading.device, reading.error) == (Device("gpu:0", ""), "it is in MIG mode and has no instance")


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, True),
        (pynvml.NVML_ERROR_RESET_REQUIRED, True),
        (pynvml.NVML_ERROR_UNKNOWN, False),
    ],
)
def test_a_gpu_that_does_not_answer_keeps_its_name(error: int, gone: bool) -> None:
    gpus = [mig_gpu(_0=5, _1=5), FakeGpu("GPU-b")]
    nvml = RealNvml(FakeLibrary(*gpus))
    before = nvml.look()
    for gpu in gpus:
        gpu.error = error
    after = nvml.look()
    assert [each.device for each in after.readings] == [each.device for each in before.readings]
    assert all(each.error and each.gone is gone for each in after.readings)
    for gpu in gpus:
        gpu.error = 0
    assert nvml.look() == before


def test_one_that_never_answered_has_no_uuid() -> None:
    nvml = RealNvml(FakeLibrary(FakeGpu("GPU-a", error=pynvml.NVML_ERROR_GPU_IS_LOST), FakeGpu("GPU-b")))
    first, second = nvml.look().readings
    assert (first.device, first.gone) == (Device("gpu:0", ""), True)
    assert second.device.cuda_visible_devices == "GPU-b"


def test_what_is_not_listed_any_more_is_gone() -> None:
    library = FakeLibrary(mig := mig_gpu(_0=5, _1=5), FakeGpu("GPU-b"))
    nvml = RealNvml(library)
    nvml.look()
    library.gpus.pop()
    assert mig.mig is not None
    del mig.mig[1]
    readings = {each.device.id: each for each in nvml.look().readings}
    assert {id_ for id_, each in readings.items() if each.gone} == {"gpu:0:mig:1", "gpu:1"}


def test_xids_are_told_once() -> None:
    library = FakeLibrary(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    nvml = RealNvml(library)
    assert nvml.look().xids == ()
    assert nvml.look().xids == ()
    assert library.watched == library.gpus
    library.xid(library.gpus[1], 79)
    library.events.append((library.gpus[0], pynvml.nvmlEventTypeDoubleBitEccError, 1))
    library.xid(library.gpus[0], 31)
    assert nvml.look().xids == (Xid("gpu:0", 31), Xid("gpu:1", 79))
    assert nvml.look().xids == ()


def test_the_xid_of_a_gpu_that_fell_off_the_bus_is_told_under_its_name() -> None:
    """NVML does not say of such a GPU any more which it is."""
    gpus = [FakeGpu("GPU-a"), FakeGpu("GPU-b")]
    nvml = RealNvml(library := FakeLibrary(*gpus))
    nvml.look()
    gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
    library.xid(gpus[1], 79)
    assert nvml.look().xids == (Xid("gpu:1", 79),)


def test_after_it_was_closed_it_starts_anew() -> None:
    nvml = RealNvml(library := FakeLibrary(gpu := FakeGpu("GPU-a")))
    nvml.look()
    nvml.close()
    nvml.look()
    library.xid(gpu, 31)
    assert nvml.look().xids == (Xid("gpu:0", 31),)
