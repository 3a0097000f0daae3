"""Checks on a real GPU what the tests check on a scripted one, step by step, with numbers.

Inventory and memory against nvidia-smi; pinning by UUID, what a process takes, and when the memory of a killed one is
confirmed free, with processes that hold GPU memory (`cuda_holder`). Where modelpool is not installed,
`python3 scripts/gpu_check.py` works with nvidia-ml-py only.

Exit code 0: all is well; 1: something is not as it should be, or nvidia-smi is not there; 4: there is no GPU.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import nvidia_smi
from cuda_holder import CudaHolder, HolderError
from nvidia_smi import MIB, SmiError, SmiReport

try:
    from modelpool.supervisor.devices import Device, Inventory, Nvml, Reading, Snapshot
except ImportError:
    import checks

    checks.link_components()
    sys.path.insert(0, str(checks.ROOT / "build" / "ns"))
    from modelpool.supervisor.devices import Device, Inventory, Nvml, Reading, Snapshot

from modelpool.supervisor.memory_book import MemoryBook
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.placement import DevicePolicy, amount
from modelpool.supervisor.places import Places
from modelpool.supervisor.restart import RestartHistory, RestartPolicy
from modelpool.supervisor.servable import Servable, Slot
from modelpool.supervisor.wire.ids import Incarnation, ServableId, SlotId
from modelpool.supervisor.wire.status import PoolError

NO_GPU_EXIT_CODE = 4
# What two readings of a device that nobody uses may differ by.
SLACK_BYTES = 128 * MIB
# What our figure and nvidia-smi's may differ by: it rounds, and asks a moment later.
_SAME_BYTES = 16 * MIB
HOLD_BYTES = 1024 * MIB
FREE_WITHIN_S = 20.0
LOOK_S = 0.05
NOBODY = "GPU-00000000-0000-0000-0000-000000000000"


class Holder(Protocol):
    """A process that holds memory of the device that it was pinned to."""

    pid: int
    uuid: str
    """What CUDA calls the one device that it sees; "" where it does not say."""

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone. Raises HolderError."""


class Check:
    """Expectations, printed one by one, and how many did not hold."""

    def __init__(self) -> None:
        self.failures = 0

    def expect(self, what: str, holds: bool, detail: str = "") -> None:
        """One line of the transcript."""
        self.failures += not holds
        print(f"  {'ok    ' if holds else 'FAILED'} {what}{f': {detail}' if detail else ''}", flush=True)


class GpuCheck(Check):
    """The checks, in order. `hold_memory`: of the device of a UUID; raises HolderError. `ask_smi` raises SmiError."""

    def __init__(
        self,
        nvml: Nvml,
        hold_memory: Callable[[str, int], Holder],
        ask_smi: Callable[[], SmiReport],
        size_bytes: int,
    ) -> None:
        super().__init__()
        self._nvml = nvml
        self._hold = hold_memory
        self._ask_smi = ask_smi
        self._size_bytes = size_bytes

    def run(self) -> int:
        """Everything, device by device; the exit code."""
        found = Inventory.of(self._nvml.look())
        if not found.gpus:
            print("There is no GPU on this host: NVML finds no NVIDIA driver, or no device. Nothing was checked.")
            return NO_GPU_EXIT_CODE
        print(f"inventory, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}")
        for device in found.gpus:
            reading = found.readings[device.id]
            memory = f"{amount(device.memory_bytes)}, used {amount(reading.used_bytes)}"
            state = f"busy {reading.utilization_percent} %, uncorrected ECC errors {reading.ecc_errors}"
            print(f"  {device.id} {device.cuda_visible_devices} {device.product}: {memory}")
            print(f"    processes {len(reading.processes or ())}, {state}")
        self._compare(found)
        self._pinned_to_nobody()
        for device in found.gpus:
            # As NVML is here, and as in a container, where it names the host's pids.
            for hide_pids in (False, True):
                print(f"{device.id}{', pids hidden as in a container' if hide_pids else ''}")
                try:
                    self._check_device(device, hide_pids)
                except HolderError as error:
                    self.expect("a process holds memory, and goes when it is killed", False, str(error))
        print(f"{self.failures} failed" if self.failures else "All is as it should be.")
        return 1 if self.failures else 0

    def _compare(self, found: Inventory) -> None:
        """Our figures of whole GPUs against nvidia-smi's."""
        try:
            smi = self._ask_smi()
        except SmiError as error:
            self.expect("nvidia-smi answers", False, str(error))
            return
        print(f"against nvidia-smi, driver {smi.driver}")
        for device in found.gpus:
            if ":mig:" not in device.id:
                compare(self, smi, found.readings[device.id])

    def _pinned_to_nobody(self) -> None:
        """That a process sees one device says nothing of its pinning on a host that has one."""
        print("pinning")
        what = "a process that is pinned to a GPU that is not there sees none"
        try:
            self._hold(NOBODY, MIB).kill()
        except HolderError as error:
            self.expect(what, str(error) == "sees 0 devices", str(error))
        else:
            self.expect(what, False, "it holds memory")

    def _check_device(self, device: Device, hide_pids: bool) -> None:
        places, policy = Places(Inventory.of(self._look(hide_pids)), MemoryBook()), DevicePolicy((device.id,))
        slot = Slot(SlotId(ServableId("check", 1), device.id), device, RestartHistory(RestartPolicy(), lambda: 0.0))
        before = self._used(places)
        places.started(slot, policy, Incarnation(1))
        with self._held(device) as holder:
            self._pinned(device, holder)
            places.ledger.spawned(Incarnation(1), holder.pid)
            places.ledger.ready(Incarnation(1), 0, time.monotonic())
            places.look(self._look(hide_pids), time.monotonic())
            self._measured(places, holder)
            others = [each.id for each in self._grown(before, self._used(places)) if each.id != device.id]
            self.expect("no other device has more in use", not others, ", ".join(others))
            if not hide_pids:
                self._compare(places.inventory)
            self._refusal(places, device)
            self._unconfirmed(places, device, hide_pids)
        self._confirmed(places, device, hide_pids)

    def _measured(self, places: Places, holder: Holder) -> None:
        taken_bytes = places.ledger.measured_bytes(Incarnation(1))
        overhead_bytes = taken_bytes - self._size_bytes
        detail = f"{taken_bytes >> 20} MiB for {self._size_bytes >> 20}, so CUDA takes {overhead_bytes >> 20} MiB"
        self.expect("what the process takes was measured", 0 <= overhead_bytes < 4096 * MIB, detail)
        named = any(reading.names(holder.pid) for reading in places.inventory.readings.values())
        print(f"    NVML {'names' if named else 'does not name'} its pid {holder.pid}")

    def _unconfirmed(self, places: Places, device: Device, hide_pids: bool) -> None:
        """The ledger is told of a death that has not been yet: the memory is not free."""
        places.ledger.exited(Incarnation(1), time.monotonic())
        places.look(self._look(hide_pids), time.monotonic())
        waits = places.ledger.busy(device, time.monotonic(), known=True, urgent=True)
        self.expect("while it is held the next load waits", "not confirmed free" in waits, waits)

    def _pinned(self, device: Device, holder: Holder) -> None:
        if holder.uuid:
            named = device.cuda_visible_devices.partition("-")[2]
            self.expect("CUDA sees the device of this UUID", holder.uuid in named or ":mig:" in device.id, holder.uuid)

    def _refusal(self, places: Places, device: Device) -> None:
        """A model that needs more than there is."""
        policy = DevicePolicy((device.id,), memory_bytes=device.memory_bytes + MIB)
        refusal = places.arrange(Servable(ServableId("huge", 1), ""), policy, places.rooms([])).refusal
        self.expect("what does not fit is refused with numbers", refusal.startswith("huge/1: needs "), refusal)

    def _confirmed(self, places: Places, device: Device, hide_pids: bool) -> None:
        """Look until the ledger has seen the memory free."""
        died_s = time.monotonic()
        while time.monotonic() - died_s < FREE_WITHIN_S:
            taken_s = time.monotonic()
            places.look(self._look(hide_pids), taken_s)
            if not places.ledger.unconfirmed():
                after_ms = (time.monotonic() - died_s) * 1000
                free = amount(device.memory_bytes - places.ledger.used_bytes(device.id))
                self.expect("the memory was confirmed free", True, f"after {after_ms:.0f} ms, {free} free")
                return
            time.sleep(LOOK_S)
        self.expect("the memory was confirmed free", False, f"not within {FREE_WITHIN_S:g} s")

    def _look(self, hide_pids: bool) -> Snapshot:
        snapshot = self._nvml.look()
        if not hide_pids:
            return snapshot
        return replace(snapshot, readings=tuple(_hidden(reading) for reading in snapshot.readings))

    @staticmethod
    def _used(places: Places) -> dict[Device, int]:
        return {device: places.ledger.used_bytes(device.id) for device in places.inventory.gpus}

    @staticmethod
    def _grown(before: Mapping[Device, int], after: Mapping[Device, int]) -> list[Device]:
        return [device for device, used in after.items() if used > before.get(device, used) + SLACK_BYTES]

    @contextlib.contextmanager
    def _held(self, device: Device) -> Iterator[Holder]:
        holder = self._hold(device.cuda_visible_devices, self._size_bytes)
        try:
            yield holder
        finally:
            holder.kill()


def _hidden(reading: Reading) -> Reading:
    return replace(reading, processes={-1 - number: None for number, _ in enumerate(reading.processes or ())})


def compare(check: Check, smi: SmiReport, ours: Reading) -> None:
    """One whole GPU, and the processes on it, against nvidia-smi's figures."""
    uuid, theirs = ours.device.cuda_visible_devices, smi.gpus.get(ours.device.cuda_visible_devices)
    check.expect(f"{ours.device.id} is listed as {uuid}", theirs is not None, theirs.name if theirs else "")
    if theirs is None:
        return
    detail = f"{theirs.total_bytes >> 20} and {ours.device.memory_bytes >> 20} MiB"
    check.expect("the same size", abs(theirs.total_bytes - ours.device.memory_bytes) <= MIB, detail)
    # What NVML says is in use includes what the driver reserves.
    used_bytes = theirs.used_bytes + (theirs.reserved_bytes or 0)
    off_bytes = 1024 * MIB if theirs.reserved_bytes is None else _SAME_BYTES
    reserved = "?" if theirs.reserved_bytes is None else theirs.reserved_bytes >> 20
    detail = f"{theirs.used_bytes >> 20} + {reserved} reserved and {ours.used_bytes >> 20} MiB"
    check.expect("the same use", abs(used_bytes - ours.used_bytes) <= off_bytes, detail)
    named, theirs_named = dict(ours.processes or {}), dict(smi.processes.get(uuid, {}))
    same = named.keys() == theirs_named.keys() and all(
        abs((named[pid] or 0) - (theirs_named[pid] or 0)) <= _SAME_BYTES for pid in named
    )
    check.expect("the same processes", same, f"{_listed(theirs_named)} and {_listed(named)}")


def _listed(processes: Mapping[int, int | None]) -> str:
    sizes = (f"{pid}: {'?' if size is None else size >> 20} MiB" for pid, size in sorted(processes.items()))
    return ", ".join(sizes) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--size_mb", type=int, default=HOLD_BYTES // MIB, help="what each process holds, in MiB")
    given = parser.parse_args()
    try:
        return GpuCheck(RealNvml(), CudaHolder, nvidia_smi.ask, given.size_mb * MIB).run()
    except PoolError as error:
        print(f"NVML does not answer: {error.message}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
