"""What an unload gives back: memory before, with and after a big model, and what is left of many load/unload cycles.

Models come and go by HandleReloadConfigRequest, whose answer comes when the model is available: nothing waits for a
poll of the file system. The end of an unload is the end of the worker's process, seen by its pidfd.
"""

import os
import select
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_inputs
import bench_models
import grpc
import psutil
from bench_memory import Memory
from bench_server import Deadline, Server, pool_of

from modelpool.supervisor.wire.protos import ReloadConfigRequest, ReloadConfigResponse

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
BIG, TINY = "big", "tiny"
POOL_FILE = "[defaults]\nsettle_s = 0\n"
SETTLE_S = 1.0
MARKS = 10
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """`cycles` of the tiny model, `rounds` of the big one, which has `big_mb` of weights."""

    cycles: int
    rounds: int
    big_mb: int


class Reloader:
    """Changes what a pool serves; the models in `always` stay."""

    def __init__(self, server: Server, always: Mapping[str, Path], deadline: Deadline) -> None:
        self._server = server
        self._always = always
        self._deadline = deadline
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        self._call = self._channel.unary_unary(RELOAD)

    def close(self) -> None:
        self._channel.close()

    def load(self, name: str, base_path: Path) -> int:
        """Add the model and wait until it is available; the pid of its worker."""
        self._reload({**self._always, name: base_path})
        pids: list[int] = [each["pid"] for each in self._server.workers(name) if each["pid"] is not None]
        if len(pids) != 1:
            raise SystemExit(f"{name} has the workers {pids}")
        return pids[0]

    def unload(self, pid: int) -> None:
        """Remove the model that the worker serves and wait for the end of that process."""
        pidfd = os.pidfd_open(pid)
        try:
            self._reload(self._always)
            if not select.select([pidfd], [], [], self._deadline.left_s)[0]:
                raise SystemExit(f"--limit_s is over: worker {pid} has not ended")
        finally:
            os.close(pidfd)

    def _reload(self, models: Mapping[str, Path]) -> None:
        request = ReloadConfigRequest()
        for name, path in models.items():
            request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
        raw = self._call(request.SerializeToString(), timeout=max(1.0, self._deadline.left_s))
        status = ReloadConfigResponse.FromString(raw).status
        if status.error_code:
            raise SystemExit(f"reload failed: {status.error_message}")


def measure(scratch: Path, options: Options, deadline: Deadline) -> dict[str, Any]:
    """Bytes, counts and seconds, as a JSON document."""
    big = bench_models.big_version(options.big_mb).parent
    always = {bench_inputs.HALF_PLUS_TWO: bench_models.small_version().parent}
    server = pool_of(scratch, always, POOL_FILE)
    assert server.runtime_dir is not None
    with server.running():
        reloader = Reloader(server, always, deadline)
        try:
            big_rounds = [_big_round(server, reloader, big, i, deadline) for i in range(options.rounds)]
            cycles = _cycles(server, reloader, always[bench_inputs.HALF_PLUS_TWO], options.cycles, deadline)
        finally:
            reloader.close()
    left = {
        "processes": server.pids(),
        "runtime_dir": _entries(server.runtime_dir) if server.runtime_dir.exists() else [],
    }
    return {"big_mb": options.big_mb, "big": big_rounds, "cycles": cycles, "left_after_the_pool": left}


# -- memory of one big model -------------------------------------------------------------------------------------


def _big_round(server: Server, reloader: Reloader, base: Path, number: int, deadline: Deadline) -> dict[str, Any]:
    """All processes' memory before, with and after the model."""
    before = _settled_memory(server)
    pid = reloader.load(BIG, base)
    loaded = _settled_memory(server)
    reloader.unload(pid)
    _wait_for_count(server, len(before), deadline)
    after = _settled_memory(server)
    print(f"  big model, round {number + 1}: {_totals(before, loaded, after)}", flush=True)
    stages = {"before": before, "loaded": loaded, "after": after}
    return {name: [each.to_dict() for each in memory] for name, memory in stages.items()}


def _totals(*stages: list[Memory]) -> str:
    return " -> ".join(f"{sum(each.pss_bytes for each in memory) / MIB:.1f}" for memory in stages) + " MiB PSS"


def _settled_memory(server: Server) -> list[Memory]:
    time.sleep(SETTLE_S)
    return server.memory()


def _wait_for_count(server: Server, count: int, deadline: Deadline) -> None:
    deadline.wait(lambda: len(server.pids()) <= count, f"{count} processes")


# -- many cycles of a tiny one -----------------------------------------------------------------------------------


def _cycles(server: Server, reloader: Reloader, base: Path, count: int, deadline: Deadline) -> dict[str, Any]:
    """What the processes that stay hold before, at ten marks on the way and after, and what else is left."""
    assert server.runtime_dir is not None
    files, pids = _entries(server.runtime_dir), server.pids()
    marks = {0: _holdings(server)}
    loads_s: list[float] = []
    unloads_s: list[float] = []
    for i in range(1, count + 1):
        if not deadline.has(10.0):
            print(f"  --limit_s: {i - 1} of {count} cycles")
            break
        began_s = time.monotonic()
        pid = reloader.load(TINY, base)
        loaded_s = time.monotonic()
        reloader.unload(pid)
        loads_s.append(loaded_s - began_s)
        unloads_s.append(time.monotonic() - loaded_s)
        if i % max(1, count // MARKS) == 0:
            print(f"  {i} of {count} cycles", flush=True)
            marks[i] = _holdings(server)
    _wait_for_count(server, len(pids), deadline)
    time.sleep(SETTLE_S)
    marks[len(loads_s)] = _holdings(server)
    return {
        "done": len(loads_s),
        "wanted": count,
        "median_load_s": statistics.median(loads_s) if loads_s else 0.0,
        "median_unload_s": statistics.median(unloads_s) if unloads_s else 0.0,
        "marks": marks,
        "left_in_the_runtime_dir": sorted(set(_entries(server.runtime_dir)) - set(files)),
        "left_processes": sorted(set(server.pids()) - set(pids)),
        "models_in_the_status": [each["name"] for each in server.status()["models"]],
    }


def _holdings(server: Server) -> dict[str, dict[str, int]]:
    """Resident memory and open files of the processes that stay, by role and pid."""
    holdings = {}
    for each in server.memory():
        if not each.role.startswith(f"worker {TINY} "):
            try:
                files = psutil.Process(each.pid).num_fds()
            except psutil.NoSuchProcess:
                continue
            holdings[f"{each.role} {each.pid}"] = {"rss_bytes": each.rss_bytes, "open_files": files}
    return holdings


def _entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def print_report(report: dict[str, Any]) -> None:
    """The tables that a person reads."""
    print(f"\nunload: a model of {report['big_mb']} MB, all processes, PSS MiB (of it anonymous)")
    print(f"  {'round':<6} {'before':>16} {'loaded':>16} {'after':>16} {'after - before':>16}")
    for number, stages in enumerate(report["big"], 1):
        pss, anon = (
            [sum(each[key] for each in memory) / MIB for memory in stages.values()]
            for key in ("pss_bytes", "pss_anon_bytes")
        )
        row = [f"{p:.1f} ({a:.1f})" for p, a in zip(pss, anon, strict=True)]
        row.append(f"{pss[2] - pss[0]:+.1f} ({anon[2] - anon[0]:+.1f})")
        print(f"  {number:<6} " + " ".join(f"{cell:>16}" for cell in row))
    cycles = report["cycles"]
    print(f"\n{cycles['done']} of {cycles['wanted']} cycles of a tiny model; medians: ", end="")
    print(f"load {cycles['median_load_s']:.3f} s, unload {cycles['median_unload_s']:.3f} s")
    marks = list(cycles["marks"].items())
    (_, first), (_, last) = marks[0], marks[-1]
    print(f"  {'process':<28} {'RSS before':>10} {'after':>7} {'change MiB':>10} {'files before':>12} {'after':>6}")
    for name, before in first.items():
        after = last.get(name, {"rss_bytes": 0, "open_files": 0})
        rss = [each["rss_bytes"] / MIB for each in (before, after)]
        print(f"  {name:<28} {rss[0]:>10.1f} {rss[1]:>7.1f} {rss[1] - rss[0]:>+10.1f} ", end="")
        print(f"{before['open_files']:>12} {after['open_files']:>6}")
        steps = " ".join(f"{each[name]['rss_bytes'] / MIB:.1f}" for _, each in marks if name in each)
        print(f"    on the way: {steps}")
    print(f"  left in the runtime directory: {cycles['left_in_the_runtime_dir'] or 'nothing'}")
    print(f"  left processes: {cycles['left_processes'] or 'none'}")
    left = report["left_after_the_pool"]
    print(f"  after the pool's end: processes {left['processes'] or 'none'}, files {left['runtime_dir'] or 'none'}")
