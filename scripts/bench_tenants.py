"""Two tenants: A at half of its capacity, in an open loop, alone and while B is flooded.

A alone has the whole machine, which it cannot have beside B. Its fair share is what it is held against: A alone with
its worker on half of the CPUs, which the bench sees to from outside. Beside B nothing is held to anything by the bench:
what the pool itself does about it, is measured, once B has answered under the flood. The three conditions take turns,
all of a round at half of what A could do on half of the CPUs just before. What other programs used meanwhile stands
beside the figures, for a tail may be theirs.
"""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_capacity
import bench_contenders
import bench_figures
import bench_machine
import bench_models
import bench_serving
from bench_contenders import Pool, ServerContender
from bench_plan import Plan
from bench_server import SCRIPTS, Server
from bench_serving import Options
from bench_workloads import WORKLOADS

from modelpool.supervisor import cpu_watch

A, B = "mlp", "conv"
ALONE, HALF, FLOODED = "alone", "alone, half of the CPUs", "B flooded"
SHARE = 0.5
_FLOOD = 32
_FLOODED_WITHIN_S, _POLL_S = 60.0, 0.1
_HEAD = (
    *("condition", "requests/s", "p50 us", "p99 us", "max us", "sent late p99 us", "worker CPU us"),
    *("others' CPUs", "bad"),
)


def measure(scratch: Path, pool: Pool, options: Options, arrivals: str) -> dict[str, Any]:
    """Every round and the medians by condition, as a JSON document."""
    server = pool.server(scratch, bench_models.build([A, B]))
    with server.running():
        a = bench_contenders.ServerContender(server)
        plan = replace(options.plan(bench_capacity.AT), generator="own", arrivals=arrivals)
        a.load(WORKLOADS[A], plan)  # warm
        taken: dict[str, list[dict[str, Any]]] = {HALF: [], FLOODED: [], ALONE: []}
        for i in range(options.rounds):
            what = f"round {i + 1} of {options.rounds}"
            turns = take_round(a, replace(plan, seed=options.seed + i), what)
            for condition, rounds in taken.items():
                rounds.append(turns[condition])
            told = "; ".join(f"{name} {_in_short(rounds[-1])}" for name, rounds in taken.items())
            print(f"  {what}, {bench_capacity.words(turns[HALF])}, p99: {told}", flush=True)
    cells = {name: bench_serving.cell(name, rounds) for name, rounds in taken.items()}
    return {
        "a": A,
        "b": B,
        "server": server.name,
        "capacity_per_s": cells[HALF]["median"]["capacity_per_s"],
        "rate_per_s": cells[HALF]["median"]["rate_per_s"],
        "arrivals": arrivals,
        "conditions": cells,
        "p99_ratio": bench_figures.ratio_of_rounds(taken[FLOODED], taken[HALF], "p99_us"),
        "p99_ratio_all_cpus": bench_figures.ratio_of_rounds(taken[FLOODED], taken[ALONE], "p99_us"),
    }


def take_round(a: ServerContender, plan: Plan, what: str) -> dict[str, dict[str, Any]]:
    """A turn in each condition, at one rate. The two that are compared come right after each other, between the looks
    at what A can do; if that changed too much, both are taken again (`bench_capacity`), and the third comes once.
    """

    def capacity() -> dict[str, Any]:
        with _on_half(a.server):
            return a.load(WORKLOADS[A], plan)

    def beside(condition: str, rate: float) -> dict[str, Any]:
        at = replace(plan, rate_per_s=rate)
        with _condition(condition, a.server, at) as flood:
            return _beside_others(a, at, flood)

    def compared(rate: float) -> dict[str, dict[str, Any]]:
        return {condition: beside(condition, rate) for condition in (HALF, FLOODED)}

    turns = bench_capacity.take(capacity, SHARE, compared, what)
    rate = turns[HALF]["rate_per_s"]
    return {**turns, ALONE: {**beside(ALONE, rate), "rate_per_s": rate}}


def _in_short(turn: dict[str, Any]) -> str:
    """Of one turn: what a tail may come from stands beside it."""
    bad = turn["failures"] + turn["wrong"]
    return f"{turn['p99_us']:.0f} us, others' CPUs {turn['others_cpus']:.2f}" + (f", {bad:.0f} bad" if bad else "")


def _condition(name: str, server: Server, plan: Plan) -> contextlib.AbstractContextManager[int | None]:
    """Gives the pid of B's generator, where there is one."""
    if name == HALF:
        return _on_half(server)
    return _flooded(server, plan) if name == FLOODED else contextlib.nullcontext()


def _beside_others(a: ServerContender, plan: Plan, flood: int | None) -> dict[str, Any]:
    """One turn, with `others_cpus`: what programs that are not of this bench used of the CPUs."""

    def own_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        flood_s = 0.0 if flood is None else cpu_watch.cpu_time_s(flood) or 0.0
        return used.ru_utime + used.ru_stime + flood_s + sum(a.server.cpu_s().values())

    began_s, busy_s, before_s = time.monotonic(), bench_machine.busy_s(), own_s()
    figures = a.load(WORKLOADS[A], plan)
    others_s = bench_machine.busy_s() - busy_s - (own_s() - before_s)
    return {**figures, "others_cpus": others_s / (time.monotonic() - began_s)}


@contextlib.contextmanager
def _on_half(server: Server) -> Iterator[None]:
    """A's worker on the first half of the CPUs that it may use; on a machine with one CPU nothing is changed."""
    pids = [each["pid"] for each in server.workers(A) if each["pid"] is not None]
    before = {pid: os.sched_getaffinity(pid) for pid in pids}
    for pid, cpus in before.items():
        _bind(pid, sorted(cpus)[: max(1, len(cpus) // 2)])
    try:
        yield
    finally:
        for pid, cpus in before.items():
            _bind(pid, cpus)


def _bind(pid: int, cpus: Iterable[int]) -> None:
    """All threads of a process, also those that it has started since the last time."""
    for name in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(name), cpus)


@contextlib.contextmanager
def _flooded(server: Server, plan: Plan) -> Iterator[int]:
    """B with more in flight than it can do, from its first answers on and for longer than A is measured."""
    command = [sys.executable, str(SCRIPTS / "bench_load.py"), f"--address={server.address()}", f"--workload={B}"]
    command += Plan(_FLOOD, 0.0, plan.warmup_s + plan.duration_s + 60.0).words()
    before, until_s = _served(server), time.monotonic() + _FLOODED_WITHIN_S
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while _served(server) <= before and process.poll() is None:
                if time.monotonic() > until_s:
                    raise SystemExit(f"B answered nothing within {_FLOODED_WITHIN_S:.0f} s")
                time.sleep(_POLL_S)
            yield process.pid
            if process.poll() is not None:
                raise SystemExit(f"the flood of B ended with {process.returncode}")
        finally:
            process.kill()


def _served(server: Server) -> int:
    return sum(each["served"] for each in server.workers(B))


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    rate = f"{report['rate_per_s']:.0f}/s in an open loop ({report['arrivals']}; median of the rounds)"
    print(f"A ({report['a']}): {rate}, {SHARE:.0%} of what it does on half of the CPUs in the same round;", end=" ")
    print(f"B ({report['b']}): {_FLOOD} in flight")
    rows = []
    for name, each in report["conditions"].items():
        m = each["median"]
        figures = [f"{m[key]:.0f}" for key in ("requests_per_s", "p50_us", "p99_us", "max_us", "late_p99_us")]
        figures += [f"{m['cpu_us_by_role']['worker']:.0f}", f"{m['others_cpus']:.2f}"]
        rows.append([name, *figures, str(bench_serving.bad_answers(each))])
    print(bench_figures.table(_HEAD, rows))
    print("worker CPU us: of A's worker, per request, which grows where it finds the caches full of B's;")
    print("others' CPUs: used by programs that are not of this bench; a tail beside them says little")
    print(f"p99 beside B is {report['p99_ratio']:.2f} times that on half of the CPUs, ", end="")
    print(f"{report['p99_ratio_all_cpus']:.2f} times that on all of them")
    rounds = report["conditions"][HALF]["rounds"]
    again, odd = bench_capacity.repeats(rounds), bench_capacity.oddities(rounds)
    print(f"taken again, for what A can do changed too much meanwhile: {again} turns without and with B;", end=" ")
    print(f"kept: {odd}" if odd else "kept: steady ones alone")
