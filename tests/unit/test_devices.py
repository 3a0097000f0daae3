"""Devices under their names, and what makes one lost."""

from collections.abc import Sequence

import pytest

from modelpool.supervisor.devices import CPU, FATAL_XIDS, SILENT_LOOKS, Device, Inventory, Reading, Snapshot, Xid

A = Device("gpu:0", "GPU-a", "H1", 100)
MIG = Device("gpu:1:mig:0", "MIG-b", "H1 MIG", 50)
ERROR = "it does not speak"


def snapshot(*readings: Reading, xids: Sequence[Xid] = ()) -> Snapshot:
    return Snapshot(readings, tuple(xids))


def test_a_host_without_gpus_has_its_cpu() -> None:
    found = Inventory.of(Snapshot())
    assert (found.devices, found.gpus, found.lost) == ((CPU,), (), {})


def test_a_gpu_that_never_answered_is_no_device_but_is_known_of() -> None:
    found = Inventory.of(snapshot(Reading(Device("gpu:0", ""), error=ERROR, gone=True)))
    assert (found.devices, found.silent) == ((CPU,), {"gpu:0": ERROR})
    assert found.update(snapshot(Reading(A)))
    assert (found.devices, found.silent) == ((A, CPU), {})


def test_names() -> None:
    assert A.is_called("gpu:0")
    assert A.is_called("GPU-a")
    assert not A.is_called("gpu:1")
    assert CPU.is_called("cpu")
    assert not CPU.is_called("-1")
    assert (A.is_gpu, CPU.is_gpu) == (True, False)


def test_devices_come_and_are_in_order() -> None:
    found = Inventory.of(snapshot(Reading(MIG)))
    assert found.devices == (MIG, CPU)
    tenth = Device("gpu:10", "GPU-t", "H1", 100)
    assert found.update(snapshot(Reading(tenth), Reading(MIG), Reading(A)))
    assert found.devices == (A, MIG, tenth, CPU)
    assert not found.update(snapshot(Reading(A), Reading(MIG), Reading(tenth)))


def test_one_that_fell_off_the_bus_is_lost_at_once() -> None:
    found = Inventory.of(snapshot(Reading(A), Reading(MIG)))
    assert found.update(snapshot(Reading(A, error="GPU is lost", gone=True), Reading(MIG)))
    assert found.lost == {"gpu:0": "GPU is lost"}
    assert found.update(snapshot(Reading(A), Reading(MIG)))
    assert found.lost == {}


def test_other_errors_must_repeat_themselves() -> None:
    found = Inventory.of(snapshot(Reading(A)))
    for _ in range(SILENT_LOOKS - 1):
        assert not found.update(snapshot(Reading(A, error=ERROR)))
    assert not found.update(snapshot(Reading(A)))
    for _ in range(SILENT_LOOKS - 1):
        assert not found.update(snapshot(Reading(A, error=ERROR)))
    assert found.update(snapshot(Reading(A, error=ERROR)))
    assert found.lost == {"gpu:0": ERROR}


@pytest.mark.parametrize("number", sorted(FATAL_XIDS))
def test_after_a_fatal_xid_no_instance_of_the_gpu_comes_back(number: int) -> None:
    found = Inventory.of(snapshot(Reading(A), Reading(MIG)))
    assert found.update(snapshot(Reading(A), Reading(MIG), xids=[Xid("gpu:1", number)]))
    assert found.lost == {"gpu:1:mig:0": f"Xid {number}"}
    assert not found.update(snapshot(Reading(A), Reading(MIG)))
    assert set(found.lost) == {"gpu:1:mig:0"}


@pytest.mark.parametrize("number", [13, 31, 43, 45, 63, 74, 92, 94, 109, 154])
def test_xids_of_a_process_take_no_gpu_away(number: int) -> None:
    found = Inventory.of(snapshot(Reading(A)))
    assert not found.update(snapshot(Reading(A), xids=[Xid("gpu:0", number)]))
    assert found.lost == {}


def test_what_went_is_not_back_because_its_gpu_falls_silent() -> None:
    found = Inventory.of(snapshot(Reading(MIG)))
    assert found.update(snapshot(Reading(MIG, error="no such instance", gone=True)))
    found.update(snapshot(Reading(MIG, error=ERROR)))
    assert set(found.lost) == {"gpu:1:mig:0"}
    assert found.update(snapshot(Reading(MIG)))
    assert found.lost == {}
