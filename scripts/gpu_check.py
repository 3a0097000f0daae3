"""Checks on a real GPU what the tests check on a scripted one, step by step, with numbers.

Inventory and memory against nvidia-smi; pinning by UUID, what a process takes, and when the memory of a killed one is
confirmed free, with processes that hold GPU memory through the CUDA driver alone (libcuda by ctypes: no framework is
needed). Where modelpool is not installed, `python3 scripts/gpu_check.py` works with nvidia-ml-py only.

Exit code 0: all is well; 1: something is not as it should be; 3: there is no GPU.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

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

NO_GPU_EXIT_CODE = 3
MIB = 1 << 20
# What two readings of a device that nobody uses may differ by.
SLACK_BYTES = 128 * MIB
HOLD_BYTES = 1024 * MIB
HOLDS_WITHIN_S = 60.0
FREE_WITHIN_S = 20.0
LOOK_S = 0.05
_SMI_FIELDS = "index,uuid,name,memory.total,memory.used"


class Holder(Protocol):
    """A process that holds memory of the device that it was pinned to."""

    pid: int
    uuid: str
    """What CUDA calls the one device that it sees; "" where it does not say."""

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""


class CudaHolder:
    """This file again, in a process of its own."""

    def __init__(self, device: Device, size_bytes: int) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device.cuda_visible_devices}
        command = [sys.executable, __file__, f"--hold={size_bytes}"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if said[:1] != ["holds"]:
            self.kill()
            raise RuntimeError(f"the process on {device.id} holds no memory: {' '.join(said) or 'it ended'}")
        self.uuid = said[1] if len(said) > 1 else ""

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(HOLDS_WITHIN_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def hold(size_bytes: int) -> int:
    """In the child: make a context on the only visible device, take memory, and wait for the end of standard input."""
    cuda = ctypes.CDLL("libcuda.so.1")
    count, device, context, pointer = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    for name, *arguments in (
        ("cuInit", 0),
        ("cuDeviceGetCount", ctypes.byref(count)),
        ("cuDeviceGet", ctypes.byref(device), 0),
        ("cuCtxCreate_v2", ctypes.byref(context), 0, device),
        ("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes)),
        ("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(size_bytes)),
    ):
        code = getattr(cuda, str(name))(*arguments)
        if code:
            print(f"{name} failed with {code}", flush=True)
            return 1
    if count.value != 1:
        print(f"sees {count.value} devices instead of 1", flush=True)
        return 1
    print("holds", _uuid(cuda, device), flush=True)
    sys.stdin.read()
    return 0


def _uuid(cuda: ctypes.CDLL, device: ctypes.c_int) -> str:
    """In NVML's form. For a MIG instance CUDA's newer call says the instance's, under the same "GPU-" or "MIG-"."""
    raw = (ctypes.c_ubyte * 16)()
    if cuda.cuDeviceGetUuid_v2(ctypes.byref(raw), device):
        return ""
    text = bytes(raw).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class GpuCheck:
    """The checks, in order. `hide_pids`: as in a container, where NVML names the host's pids."""

    def __init__(self, nvml: Nvml, hold_memory: Callable[[Device, int], Holder], size_bytes: int) -> None:
        self._nvml = nvml
        self._hold = hold_memory
        self._size_bytes = size_bytes
        self.failures = 0

    def expect(self, what: str, holds: bool, detail: str = "") -> None:
        """One line of the transcript."""
        self.failures += not holds
        print(f"  {'ok    ' if holds else 'FAILED'} {what}{f': {detail}' if detail else ''}", flush=True)

    def run(self, smi: Mapping[str, tuple[str, int, int]] | None) -> int:
        """Everything, device by device; the exit code. `smi`: what nvidia-smi says, None where there is none."""
        found = Inventory.of(self._nvml.look())
        if not found.gpus:
            print("There is no GPU on this host: NVML finds no NVIDIA driver, or no device. Nothing was checked.")
            return NO_GPU_EXIT_CODE
        print("inventory")
        for device in found.gpus:
            reading = found.readings[device.id]
            memory = f"{amount(device.memory_bytes)}, used {amount(reading.used_bytes)}"
            state = f"busy {reading.utilization_percent} %, uncorrected ECC errors {reading.ecc_errors}"
            print(f"  {device.id} {device.cuda_visible_devices} {device.product}: {memory}")
            print(f"    processes {len(reading.processes or ())}, {state}")
        self._compare(found, smi)
        for device in found.gpus:
            for hide_pids in (False, True):
                print(f"{device.id}{', pids hidden as in a container' if hide_pids else ''}")
                self._check_device(device, hide_pids)
        print(f"{self.failures} failed" if self.failures else "All is as it should be.")
        return 1 if self.failures else 0

    def _compare(self, found: Inventory, smi: Mapping[str, tuple[str, int, int]] | None) -> None:
        """Our figures of whole GPUs against nvidia-smi's."""
        print("against nvidia-smi")
        if smi is None:
            print("  nvidia-smi is not there: not compared")
            return
        whole = {device.cuda_visible_devices: device for device in found.gpus if ":mig:" not in device.id}
        for uuid, device in whole.items():
            name, total_bytes, used_bytes = smi.get(uuid, ("", 0, 0))
            ours = found.readings[device.id]
            self.expect(f"{device.id} is listed as {uuid}", uuid in smi, name)
            off = abs(total_bytes - device.memory_bytes)
            self.expect("the same size", off <= MIB, f"{total_bytes >> 20} and {device.memory_bytes >> 20} MiB")
            off = abs(used_bytes - ours.used_bytes)
            detail = f"{used_bytes >> 20} and {ours.used_bytes >> 20} MiB"
            self.expect("the same use, but for the driver's part", off <= 1024 * MIB, detail)

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
            taken_bytes = places.ledger.measured_bytes(Incarnation(1))
            overhead_bytes = taken_bytes - self._size_bytes
            detail = f"{taken_bytes >> 20} MiB for {self._size_bytes >> 20}, so CUDA takes {overhead_bytes >> 20} MiB"
            self.expect("what the process takes was measured", 0 <= overhead_bytes < 4096 * MIB, detail)
            others = [each.id for each in self._grown(before, self._used(places)) if each.id != device.id]
            self.expect("no other device has more in use", not others, ", ".join(others))
            self._refusal(places, device)
        places.ledger.exited(Incarnation(1), time.monotonic())
        waits = places.ledger.busy(device, time.monotonic(), known=True, urgent=True)
        self.expect("after its death the next load waits", "not confirmed free" in waits, waits)
        self._confirmed(places, device, hide_pids)

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
        holder = self._hold(device, self._size_bytes)
        try:
            yield holder
        finally:
            holder.kill()


def _hidden(reading: Reading) -> Reading:
    return replace(reading, processes={-1 - number: None for number, _ in enumerate(reading.processes or ())})


def nvidia_smi() -> dict[str, tuple[str, int, int]] | None:
    """(name, total bytes, used bytes) of each GPU by UUID; None where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return {uuid: (name, int(total) * MIB, int(used) * MIB) for _, uuid, name, total, used in rows if used.isdigit()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--size_mb", type=int, default=HOLD_BYTES // MIB, help="what each process holds, in MiB")
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold is not None:
        return hold(given.hold)
    try:
        return GpuCheck(RealNvml(), CudaHolder, given.size_mb * MIB).run(nvidia_smi())
    except PoolError as error:
        print(f"NVML does not answer: {error.message}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
