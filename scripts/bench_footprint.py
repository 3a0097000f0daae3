"""One pool and the plain server by themselves: time to the first answer, and memory of each process after some load."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_contenders
import bench_figures
import bench_models
from bench_contenders import Pool
from bench_plan import Plan
from bench_server import Server, plain_of
from bench_workloads import WORKLOADS

MIB = 1024 * 1024
_SEVERAL = ("tiny", "mlp", "string")


def measure(scratch: Path, pool: Pool, times: int) -> dict[str, Any]:
    """Seconds and bytes, as a JSON document."""
    one, several = bench_models.build(["tiny"]), bench_models.build(_SEVERAL)
    print("  start to the first answer ...", flush=True)
    starts = _starts(scratch, pool, one, times)
    print("  memory ...", flush=True)
    memory = {
        "pool, one model": _loaded(pool.server(scratch, one)),
        "plain, one model": _loaded(_plain(scratch, one)),
        f"pool, {len(several)} models": _loaded(pool.server(scratch, several)),
    }
    return {"start_s": starts, "memory": memory}


def _plain(scratch: Path, bases: Mapping[str, Path]) -> Server:
    return plain_of(scratch, {name: bench_models.version_of(base) for name, base in bases.items()})


def _starts(scratch: Path, pool: Pool, bases: Mapping[str, Path], times: int) -> dict[str, float]:
    """To the first answer, and of `import tensorflow` alone; medians, taken in turn, after one unmeasured."""
    seen: dict[str, list[float]] = {"import tensorflow": [], pool.name: [], "plain": []}
    for i in range(times + 1):
        started = time.monotonic()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, env=environment, capture_output=True)
        took = {"import tensorflow": time.monotonic() - started}
        for server in (pool.server(scratch, bases), _plain(scratch, bases)):
            with server.running():
                took[server.name] = server.first_answer_s
        if i:
            for name, seconds in took.items():
                seen[name].append(seconds)
    return {name: statistics.median(values) for name, values in seen.items()}


def _loaded(server: Server) -> list[dict[str, Any]]:
    """The memory of a server by itself, after some load: two at once would share TensorFlow's pages."""
    with server.running():
        bench_contenders.load(server.address(), WORKLOADS["tiny"], Plan(32, 0.5, 1.0))
        return [each.to_dict() for each in server.memory()]


def print_report(report: dict[str, Any]) -> None:
    """The tables that a person reads."""
    print("start to the first answer: " + ", ".join(f"{name} {s:.2f} s" for name, s in report["start_s"].items()))
    print()
    print_memory(report["memory"])


def print_memory(memory: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A table for each server."""
    for i, (name, processes) in enumerate(memory.items()):
        rows = [_row(each["role"], each["rss_bytes"], each["pss_bytes"]) for each in processes]
        rows.append(_row("all", *(sum(each[key] for each in processes) for key in ("rss_bytes", "pss_bytes"))))
        print("\n" * bool(i) + bench_figures.table((name, "resident MiB", "proportional MiB"), rows))


def _row(role: str, rss_bytes: int, pss_bytes: int) -> list[str]:
    return [role, f"{rss_bytes / MIB:.0f}", f"{pss_bytes / MIB:.0f}"]
