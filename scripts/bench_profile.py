"""Where the microseconds of a request go: its way, the CPU time of every thread, and the Python functions.

The way of a request is put together from three sources: what the generator sees; what the worker says of its stages
(`modelpool_request_stage_seconds`; `queue` begins when the frontend sends and so holds ZeroMQ's way to the worker); and
what a request takes that the frontend answers by itself (GetModelStatus), which crosses everything but ZeroMQ and the
worker. What is left over is the way back and the frontend's work that only a forwarded request has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_contenders
import bench_figures
import bench_models
import bench_stacks
import bench_threads
from bench_contenders import Pool
from bench_metrics import MONITORING, STAGES, StageClock
from bench_plan import Plan
from bench_server import Server
from bench_serving import Options
from bench_workloads import STATUS, WORKLOADS, Workload

LOADS = (1, 32)
_PARSE_NAMES = {
    "deserialize": "worker: parse",
    "batch": "worker: wait for others",
    "execute": "worker: execute",
    "serialize": "worker: serialise",
}


@dataclass(frozen=True, slots=True)
class Way:
    """Mean microseconds of one request. At one in flight `queue` is ZeroMQ alone; at more it is mostly waiting."""

    total_us: float
    frontend_us: float
    stages_us: Mapping[str, float]

    def parts(self, in_flight: int) -> list[tuple[str, float]]:
        """In the order of the way; with many in flight the frontend's share cannot be told from its own queue."""
        named = [(_PARSE_NAMES[name], self.stages_us.get(name)) for name in STAGES if name != "queue"]
        stages = [(name, us) for name, us in named if us is not None]
        queue = self.stages_us.get("queue", 0.0)
        known = queue + sum(us for _, us in stages)
        if in_flight > 1:
            first = ("ZeroMQ to the worker, and its queue", queue)
            return [first, *stages, ("client, frontend with its queue, way back", self.total_us - known)]
        rest = self.total_us - known - self.frontend_us
        return [
            ("client and frontend, as of a request without a worker", self.frontend_us),
            ("ZeroMQ to the worker", queue),
            *stages,
            ("ZeroMQ back, and the frontend's forwarding", rest),
        ]


def measure(scratch: Path, pools: Sequence[Pool], workloads: Sequence[str], options: Options) -> Any:
    """One profile for each pool, workload and load, as a JSON document."""
    bases = bench_models.build(workloads)
    config = scratch / "monitoring.config"
    config.write_text(MONITORING, encoding="utf-8")
    program = bench_stacks.py_spy()
    profiles = []
    for pool in (each for each in pools if not each.only):
        server = pool.server(scratch, bases, f"--monitoring_config_file={config}")
        with server.running():
            for name in workloads:
                for in_flight in LOADS:
                    plan = replace(options.plan(in_flight), generator="own")
                    found = _profile(server, WORKLOADS[name], plan, program)
                    profiles.append({"server": pool.name, "workload": name, "in_flight": in_flight, **found})
                    print(f"  {pool.name}: {name}, {in_flight} in flight: done", flush=True)
    return profiles


def _profile(server: Server, workload: Workload, plan: Plan, program: str | None) -> dict[str, Any]:
    """First undisturbed, for the times, then under py-spy, for the functions."""
    status = bench_contenders.load(server.address(), STATUS, plan)
    clock = StageClock(server.address(rest=True), workload.model)
    roles = {pid: role for pid, role in server.roles().items() if _concerned(role, workload)}
    stages_before, threads_before = clock.read(), bench_threads.read(roles)
    figures = bench_contenders.load(server.address(workload.rest), workload, plan)
    threads = bench_threads.read(roles)
    stages = clock.read().since(stages_before)
    stacks: dict[str, Any] = {"py-spy": {"error": "it could not be installed"}}
    if program is not None:
        longer = replace(plan, duration_s=plan.duration_s + 1.0)
        load = partial(bench_contenders.load, server.address(workload.rest), workload, longer)
        stacks = _stacks(program, roles, plan.duration_s, load)
    way = Way(figures["mean_us"], status["mean_us"], stages.mean_us())
    return {
        "figures": figures,
        "frontend_alone": status,
        "stages_us": stages.mean_us(),
        "parts": way.parts(plan.in_flight),
        "threads": bench_threads.per_request(threads_before, threads, figures["answers"] or 1.0),
        "stacks": stacks,
    }


def _concerned(role: str, workload: Workload) -> bool:
    return not role.startswith("worker ") or role.split(" ")[1] == workload.model


def _stacks(program: str, roles: Mapping[int, str], duration_s: float, under_load: Callable[[], Any]) -> dict[str, Any]:
    """By role, of the frontends and the worker."""
    wanted = {pid: role for pid, role in roles.items() if role not in ("supervisor", "fork server")}
    recordings = {role: bench_stacks.Recording(program, pid, duration_s) for pid, role in wanted.items()}
    under_load()
    return {role: recording.finish() for role, recording in recordings.items()}


# -- tables ------------------------------------------------------------------------------------------------------


def print_report(profiles: Sequence[Mapping[str, Any]]) -> None:
    """The tables that a person reads."""
    for i, each in enumerate(profiles):
        figures = each["figures"]
        title = f"{each['server']}: {each['workload']}, {each['in_flight']} in flight"
        print(f"{'' if not i else chr(10)}{title}: {figures['requests_per_s']:.0f}/s, mean {figures['mean_us']:.0f} us")
        total = figures["mean_us"] or 1.0
        rows = [[name, f"{us:.1f}", f"{us / total:.0%}"] for name, us in each["parts"]]
        print(bench_figures.table(("way of a request (mean)", "us", "share"), rows))
        print()
        rows = [[t["process"], t["thread"], f"{t['cpu_us']:.1f}", f"{t['waited_us']:.1f}"] for t in each["threads"]]
        print(bench_figures.table(("process", "thread", "CPU us per request", "waited for a CPU us"), rows))
        for role, found in each["stacks"].items():
            print()
            if "error" in found:
                print(f"{role}: no stacks: {found['error']}")
                continue
            rows = [[f["function"], f"{f['own']:.0%}", f"{f['total']:.0%}"] for f in found["functions"]]
            print(bench_figures.table((f"{role}: function (py-spy)", "own", "total"), rows))
