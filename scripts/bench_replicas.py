"""Two replicas of a model with a CPU each against one with one CPU; and what becomes of requests when one is killed.

Beside the pools runs what the machine itself can do: TensorFlow called in a loop by one process on one CPU, and by two
on one each. Two CPUs seldom do twice as much as one: they may be threads of one core, and share caches, memory and
heat; and the load generator and the frontend are on them, too. All take turns.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_figures
import bench_loop
import bench_models
import bench_serving
from bench_contenders import Contender, Figures, Pool, ServerContender
from bench_loop import LoopProcess
from bench_plan import Plan
from bench_server import Server
from bench_serving import Options
from bench_workloads import WORKLOADS, Workload

MODEL = "conv"
ONE, TWO = "one replica, one CPU", "two replicas, a CPU each"
LOOP_ONE, LOOP_TWO = "no server: one process, one CPU", "no server: two processes, a CPU each"
IN_FLIGHT = 8
LIMIT = 0.95
_BACK_WITHIN_S = 60.0
_POLL_S = 0.02


class Loops:
    """Processes that call TensorFlow in a loop, each on its CPU, all in the same turns."""

    def __init__(self, name: str, processes: Sequence[LoopProcess]) -> None:
        self.name = name
        self._processes = processes

    def serves(self, workload: Workload) -> bool:
        return workload.name == MODEL

    def load(self, workload: Workload, plan: Plan) -> Figures:
        for each in self._processes:
            each.begin(plan, 1)
        found = [each.end() for each in self._processes]
        rate = sum(each["requests_per_s"] for each in found)
        return {**max(found, key=lambda each: float(each["p99_us"])), "requests_per_s": rate}


def measure(scratch: Path, pool: Pool, options: Options) -> dict[str, Any]:
    """Every round and the medians, and the kill, as a JSON document."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        raise SystemExit("two CPUs are needed")
    bases = bench_models.build([MODEL])
    version = bench_models.version_of(bases[MODEL])
    one = pool.of_model(scratch, bases, MODEL, f'cpus = ["{cpus[0]}"]')
    texts = ", ".join(f'"{cpu}"' for cpu in cpus)
    two = pool.of_model(scratch, bases, MODEL, f"cpus = [{texts}]", "replicas = 2", "divide_cpus = true")
    one.name, two.name = ONE, TWO
    with contextlib.ExitStack() as stack:
        for server in (one, two):
            stack.enter_context(server.running())
        processes = [stack.enter_context(bench_loop.running(MODEL, version, cpu)) for cpu in cpus]
        loops = [Loops(LOOP_ONE, processes[:1]), Loops(LOOP_TWO, processes)]
        contenders: list[Contender] = [ServerContender(one), ServerContender(two), *loops]
        own = replace(options, generator="own")
        cells = bench_serving.measure_closed(contenders, [(MODEL, IN_FLIGHT)], own)
        kill = _kill_one(two, own.plan(IN_FLIGHT))
    rounds = {each["server"]: each["rounds"] for each in cells}
    ratio = bench_figures.ratio_of_rounds
    return {
        "cpus": cpus,
        "one_core": _threads_of_one_core(cpus),
        "cells": cells,
        "times": ratio(rounds[TWO], rounds[ONE], "requests_per_s"),
        "machine_times": ratio(rounds[LOOP_TWO], rounds[LOOP_ONE], "requests_per_s"),
        "kill": kill,
    }


def _kill_one(server: Server, plan: Plan) -> dict[str, Any]:
    """Kill one of the two workers in the middle of a turn; how requests ended, and when two served again."""
    long = replace(plan, duration_s=max(plan.duration_s, 3.0) * 2)
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(ServerContender(server).load, WORKLOADS[MODEL], long)
        time.sleep(long.warmup_s + long.duration_s / 4)
        killed = _ready(server)[0]
        os.kill(killed["pid"], signal.SIGKILL)
        began_s = time.monotonic()
        while killed["pid"] in (pids := {each["pid"] for each in _ready(server)}) or len(pids) < 2:
            if time.monotonic() - began_s > _BACK_WITHIN_S:
                raise SystemExit("the worker that was killed does not come back")
            time.sleep(_POLL_S)
        back_s = time.monotonic() - began_s
        figures = loaded.result()
    names = ("requests_per_s", "answers", "failures", "wrong", "p50_us", "p99_us", "max_us")
    return {"back_s": back_s, **{name: figures[name] for name in names}}


def _ready(server: Server) -> list[Mapping[str, Any]]:
    return [each for each in server.workers(MODEL) if each["state"] == "ready"]


def _threads_of_one_core(cpus: Sequence[int]) -> bool | None:
    """Whether these are threads of one core; None when the kernel does not say."""
    try:
        path = Path(f"/sys/devices/system/cpu/cpu{cpus[0]}/topology/thread_siblings_list")
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    siblings: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return cpus[1] in siblings


def print_report(report: Mapping[str, Any]) -> None:
    """The tables that a person reads."""
    print(bench_figures.table(bench_serving.HEAD, bench_serving.rows(report["cells"], ONE)))
    core = {True: "two threads of one core", False: "two cores", None: "it is not known of which cores"}
    share = report["times"] / report["machine_times"]
    print(f"\nCPUs {report['cpus']}: {core[report['one_core']]}")
    print(
        f"two replicas do {report['times']:.2f} times what one does, the machine itself {report['machine_times']:.2f}:"
    )
    print(f"{share:.2f} of that (at least {LIMIT}: {_verdict(share >= LIMIT)})")
    kill = report["kill"]
    lost = kill["failures"] + kill["wrong"]
    print(f"one killed under load: {kill['answers']:.0f} answers, {lost:.0f} failed (none: {_verdict(not lost)});")
    times = ", ".join(f"{name} {kill[key] / 1000:.0f} ms" for name, key in (("p99", "p99_us"), ("longest", "max_us")))
    print(f"{kill['requests_per_s']:.0f}/s, {times}; two served again after {kill['back_s']:.2f} s")


def _verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"
