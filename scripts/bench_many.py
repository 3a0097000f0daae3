"""Many models in one pool: time to the first and to all, memory of all; beside it one plain process per model.

The plain processes are few and started one after the other; what many of them would take is extrapolated, and said so.
"""

import contextlib
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_memory
import bench_models
import demo_client
from bench_server import SCRIPTS, Deadline, Server, pool_of, workers_of

MIB = 1024 * 1024
POLL_S = 0.2
STOP_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """`models`: how many in the pool. `plain_processes`: how many plain processes are measured."""

    models: int
    plain_processes: int


def measure(scratch: Path, options: Options, deadline: Deadline) -> dict[str, Any]:
    """Seconds from the start and bytes, as a JSON document."""
    _one_import()
    bases = _copies(scratch / "many", options.models)
    server = pool_of(scratch, bases)
    print(f"  a pool of {options.models} models ...", flush=True)
    pool = _pool(server, list(bases), deadline)
    print(f"  {options.plain_processes} plain processes, one after the other ...", flush=True)
    plain = _plain(options.plain_processes, deadline)
    return {"models": options.models, "pool": pool, "plain": plain}


def _one_import() -> None:
    """Unmeasured: whoever comes first must not be the one to read TensorFlow from the disk."""
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True)


def _copies(folder: Path, count: int) -> dict[str, Path]:
    source = bench_models.small_version()
    bases = {f"half_plus_two_{i:02}": folder / f"half_plus_two_{i:02}" for i in range(count)}
    for base in bases.values():
        shutil.copytree(source, base / source.name)
    return bases


def _pool(server: Server, names: list[str], deadline: Deadline) -> dict[str, Any]:
    began_s = time.monotonic()
    with server.started() as process:
        status: dict[str, Any] = {}
        asked_s = 0.0

        def all_available() -> bool:
            nonlocal status, asked_s
            server.require_life(process)
            status, asked_s = server.status(), time.monotonic()
            workers = workers_of(status)
            return len(workers) == len(names) and all(each["servable_state"] == "AVAILABLE" for each in workers)

        deadline.wait(all_available, "all models AVAILABLE", POLL_S)
        # The status says how long each has been ready: finer than the polls, and free of their delay.
        ready_s = sorted(asked_s - each["state_s"] - began_s for each in workers_of(status))
        deadline.wait(server.listens, "the ports open", POLL_S)
        memory = server.memory()
        for name in names:
            _, outputs = demo_client.predict(f"127.0.0.1:{server.port}", name, {"x": [1.0, 2.0]})
            if outputs != {"y": [2.5, 3.0]}:
                raise SystemExit(f"{name} answers {outputs}")
        used = server.memory()
    loads_s = [each["load_s"] for each in workers_of(status)]
    return {
        "first_available_s": ready_s[0],
        "all_available_s": ready_s[-1],
        "median_load_s": statistics.median(loads_s),
        "memory": [each.to_dict() for each in memory],
        "memory_after_a_request_each": [each.to_dict() for each in used],
    }


def _plain(count: int, deadline: Deadline) -> dict[str, Any]:
    took_s: list[float] = []
    with contextlib.ExitStack() as stack:
        pids = []
        command = [sys.executable, str(SCRIPTS / "bench_plain_loader.py"), str(bench_models.small_version())]
        for _ in range(count):
            if not deadline.left_s:
                raise SystemExit("--limit_s is over before the plain processes are started")
            began_s = time.monotonic()
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            if process.stdout.readline() != b"loaded\n":
                raise SystemExit(f"a plain process ended with {process.wait()}")
            took_s.append(time.monotonic() - began_s)
            pids.append(process.pid)
        memory = [bench_memory.memory_of(pid, "plain") for pid in pids]
    return {"start_s": took_s, "memory": [each.to_dict() for each in memory]}


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    count, pool, plain = report["models"], report["pool"], report["plain"]
    print(f"\n{count} models in one pool")
    print(f"  start to the first AVAILABLE {pool['first_available_s']:>8.2f} s")
    print(
        f"  start to all AVAILABLE       {pool['all_available_s']:>8.2f} s  (median load {pool['median_load_s']:.2f} s)"
    )
    print(f"  {'':<28} {'processes':>9} {'PSS MiB':>9} {'after a request to each':>24}")
    used = _by_kind(pool["memory_after_a_request_each"])
    for kind, (number, pss) in _by_kind(pool["memory"]).items():
        print(f"  {kind:<28} {number:>9} {pss / MIB:>9.0f} {used.get(kind, (0, 0))[1] / MIB:>24.0f}")
    start_s, memory = statistics.median(plain["start_s"]), plain["memory"]
    running = len(memory)
    pss = sum(each["pss_bytes"] for each in memory)
    private = sum(each["private_bytes"] for each in memory) / running
    print(f"one plain process per model (import tensorflow, load), {running} measured")
    print(f"  start, each                  {start_s:>8.2f} s")
    print(f"  PSS, each                    {pss / running / MIB:>8.0f} MiB, of it private {private / MIB:.0f} MiB")
    print(f"  x {count}, EXTRAPOLATED, not measured:")
    print(f"    start, one after the other {start_s * count:>8.0f} s")
    print(f"    PSS x {count:<3}                  {pss / running * count / MIB:>8.0f} MiB")
    more = pss + (count - running) * private
    print(
        f"    PSS, files shared by all   {more / MIB:>8.0f} MiB (the {running} measured, and the others' private pages)"
    )


def _by_kind(memory: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Number of processes and their proportional memory; all workers are one kind."""
    kinds: dict[str, tuple[int, int]] = {}
    for each in memory:
        for kind in ("workers" if each["role"].startswith("worker ") else each["role"], "all"):
            number, pss = kinds.get(kind, (0, 0))
            kinds[kind] = (number + 1, pss + each["pss_bytes"])
    kinds["all"] = kinds.pop("all")
    return kinds
