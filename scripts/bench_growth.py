"""Whether memory grows with the number of requests: what each process holds once all is quiet, again and again.

Under load a frontend's resident memory follows how many bodies are there at once, and it comes and goes by tens of MiB.
So it is looked at when the load has been over for some seconds: by then shared memory, malloc and Envoy's allocator
have given back what they keep for the next requests (the slowest looks once a second), and what is left is what is
held, and the holes between, which still come and go by some MiB. The trend is the median slope of these marks with its
bounds of 95 % (Sen, by Kendall's rank statistic): growth is ruled out beyond the upper bound, and shown where the lower
is above 0. The marks lie far apart, because what requests leave behind grows with them and the holes do not.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_contenders
import bench_figures
import bench_models
from bench_contenders import Pool
from bench_plan import Plan
from bench_server import Server
from bench_workloads import WORKLOADS

MIB = 1024 * 1024
IN_FLIGHT = 32
PER = 10_000
_MARKS = 20
_LEAST_PART = 100
# What a process needs once, it has then: pages of its file, the worker's and the allocators' pools.
_WARM_UP_PARTS = 2
_QUIET_S = 3.0
_PART_LIMIT_S = 240.0

Marks = Sequence[tuple[int, Mapping[str, int]]]


def measure(scratch: Path, pool: Pool, workload: str, requests: int) -> dict[str, Any]:
    """Bytes by process at each mark, and their trends, as a JSON document."""
    marks = max(3, min(_MARKS, requests // _LEAST_PART))
    part = max(1, requests // marks)
    server = pool.server(scratch, bench_models.build([workload]))
    with server.running():
        for _ in range(_WARM_UP_PARTS):
            _after(server, workload, part)
        found = [(i * part, _after(server, workload, part)) for i in range(marks)]
    return {"workload": workload, **trends(found)}


def trends(marks: Marks) -> dict[str, Any]:
    """Of each process, and of all together.

    `growth_bytes`: over `PER` requests, and what it is at least and at most. Ends the bench where a process was
    replaced on the way: its growth would go with it.
    """
    requests = marks[-1][0] - marks[0][0]
    names = list(marks[0][1])
    came_or_went = {name for _, rss in marks for name in rss.keys() ^ set(names)}
    if came_or_went:
        raise SystemExit(f"no figures of growth: not there at all marks: {', '.join(sorted(came_or_went))}")
    series = {name: [(done, rss[name]) for done, rss in marks] for name in names}
    together = [(done, sum(rss[name] for name in names)) for done, rss in marks]
    processes = {name: _trend(points) for name, points in series.items()}
    return {"requests": requests, "processes": processes, **_trend(together)}


def _trend(points: Sequence[tuple[int, int]]) -> dict[str, Any]:
    least, middle, most = (slope * PER for slope in bench_figures.slope_bounds(points))
    return {"rss_bytes": points, "growth_bytes": middle, "growth_least_bytes": least, "growth_most_bytes": most}


def _after(server: Server, workload: str, requests: int) -> dict[str, int]:
    """Send so many requests; resident memory by process when nothing has come for a while."""
    plan = Plan(IN_FLIGHT, 0.0, _PART_LIMIT_S, requests=requests, generator="own")
    figures = bench_contenders.load(server.address(), WORKLOADS[workload], plan)
    if figures["failures"] or figures["wrong"]:
        raise SystemExit(f"{figures['failures']:.0f} failed and {figures['wrong']:.0f} wrong answers to {workload}")
    time.sleep(_QUIET_S)
    rss = {f"{each.role} {each.pid}": each.rss_bytes for each in server.memory()}
    print(f"  {workload}: {sum(rss.values()) / MIB:.1f} MiB resident in all", flush=True)
    return rss


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    print(f"resident memory over {report['requests']} requests of {report['workload']}, {IN_FLIGHT} in flight, MiB")
    print(f"each time after {_QUIET_S:g} s without any, {len(report['rss_bytes'])} times")
    rows = [_row(name, each) for name, each in report["processes"].items()]
    rows.append(_row("all", report))
    head = ("process", "first", "half", "last", "least seen", "most seen", "growth", "at least", "at most")
    print(bench_figures.table(head, rows))
    print(
        f"growth: the median slope, over {PER:,} requests, and its bounds by ranks (95 %); it is shown where the lower"
    )
    print("bound is above 0, and ruled out beyond the upper one")


def _row(name: str, each: Mapping[str, Any]) -> list[str]:
    mib = [rss / MIB for _, rss in each["rss_bytes"]]
    held = [f"{value:.1f}" for value in (mib[0], mib[len(mib) // 2], mib[-1], min(mib), max(mib))]
    growth = [each[f"growth_{which}bytes"] / MIB for which in ("", "least_", "most_")]
    return [name, *held, *(f"{value:+.2f}" for value in growth)]
