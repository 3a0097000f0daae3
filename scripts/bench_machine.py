"""What the benches ran on: CPUs, memory, kernel, versions. Whoever reads the figures later needs it beside them."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import bench_inputs

_PACKAGES = ("modelpool", "tensorflow", "grpcio", "pyzmq", "numpy", "pyvoy", "uvicorn", "orjson")


def describe() -> dict[str, Any]:
    """As a JSON document."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _first(Path("/proc/cpuinfo"), r"model name\s*:\s*(.*)") or platform.processor(),
        "memory_bytes": int(_first(Path("/proc/meminfo"), r"MemTotal:\s*(\d+) kB") or 0) * 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "commit": _words("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "h2load": _words("h2load", "--version"),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def busy_s() -> float:
    """What all CPUs together were not idle since the machine's start, in seconds."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text("ascii").split()[1:9])
    return float((user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"))


def title(machine: dict[str, Any]) -> str:
    """In a line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpus']} CPUs ({machine['cpu_model']}), {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"load average {machine['load_average']:.1f} before; Python {machine['python']}, {versions}"
    )


def _first(path: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, path.read_text("utf-8"))
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _words(*command: str) -> str:
    """What a command says; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, cwd=bench_inputs.ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
