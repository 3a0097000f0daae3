"""What the program nvidia-smi says of this host's GPUs, to hold against what NVML told us."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MIB = 1 << 20
_WITHIN_S = 60.0


class SmiError(Exception):
    """It is not there, or fails; the text says which."""


@dataclass(frozen=True, slots=True)
class SmiGpu:
    """`used_bytes` is without what the driver reserves for itself (None where it does not say)."""

    name: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int | None


@dataclass(frozen=True, slots=True)
class SmiReport:
    """GPUs by UUID; of each, what its processes hold by pid, None where nvidia-smi does not say."""

    driver: str
    gpus: Mapping[str, SmiGpu]
    processes: Mapping[str, Mapping[int, int | None]]


def ask() -> SmiReport:
    """Run it. Raises SmiError."""
    driver, gpus = "", {}
    for uuid, name, version, total, used, reserved in _rows(
        "gpu", "uuid,name,driver_version,memory.total,memory.used,memory.reserved"
    ):
        driver, gpus[uuid] = version, SmiGpu(name, _size(total) or 0, _size(used) or 0, _size(reserved))
    processes: dict[str, dict[int, int | None]] = {uuid: {} for uuid in gpus}
    for uuid, pid, used in _rows("compute-apps", "gpu_uuid,pid,used_memory"):
        if pid.isdigit():
            processes.setdefault(uuid, {})[int(pid)] = _size(used)
    return SmiReport(driver, gpus, processes)


def _rows(of: str, fields: str) -> Iterator[list[str]]:
    command = ["nvidia-smi", f"--query-{of}={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise SmiError(f"nvidia-smi cannot be run: {error}") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise SmiError(f"nvidia-smi ended with {done.returncode}: {said or 'it said nothing'}")
    for line in done.stdout.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(fields.split(",")):
            yield cells


def _size(mib: str) -> int | None:
    return int(mib) * MIB if mib.isdigit() else None
