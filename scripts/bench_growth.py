"""Whether memory grows with the number of requests: resident memory of each process after every twentieth of them."""

import time
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
_PARTS = 20
_SETTLE_S = 0.5
_PART_LIMIT_S = 240.0


def measure(scratch: Path, pool: Pool, workload: str, requests: int) -> dict[str, Any]:
    """Bytes by process at each mark, as a JSON document. A first part comes before that, as warm-up."""
    part = max(1, requests // _PARTS)
    server = pool.server(scratch, bench_models.build([workload]))
    with server.running():
        marks = [(i * part, _after(server, workload, part)) for i in range(_PARTS + 1)]
    processes: dict[str, Any] = {}
    for name in marks[-1][1]:
        points = [(done, rss[name]) for done, rss in marks if name in rss]
        growth_bytes = bench_figures.slope(points[1:]) * part * _PARTS
        processes[name] = {"rss_bytes": points, "growth_bytes": growth_bytes}
    growth_bytes = sum(each["growth_bytes"] for each in processes.values())
    return {"workload": workload, "requests": part * _PARTS, "processes": processes, "growth_bytes": growth_bytes}


def _after(server: Server, workload: str, requests: int) -> dict[str, int]:
    """Send so many requests; resident memory by process then."""
    plan = Plan(IN_FLIGHT, 0.0, _PART_LIMIT_S, requests=requests, generator="own")
    figures = bench_contenders.load(server.address(), WORKLOADS[workload], plan)
    if figures["failures"] or figures["wrong"]:
        raise SystemExit(f"{figures['failures']:.0f} failed and {figures['wrong']:.0f} wrong answers to {workload}")
    time.sleep(_SETTLE_S)  # what was in flight at the end is still on its way
    rss = {f"{each.role} {each.pid}": each.rss_bytes for each in server.memory()}
    print(f"  {workload}: {sum(rss.values()) / MIB:.1f} MiB resident in all", flush=True)
    return rss


def print_report(report: dict[str, Any]) -> None:
    """The table that a person reads."""
    print(f"resident memory over {report['requests']} requests of {report['workload']}, {IN_FLIGHT} in flight, MiB")
    rows = []
    for name, each in report["processes"].items():
        mib = [rss / MIB for _, rss in each["rss_bytes"]]
        cells = [f"{value:.1f}" for value in (mib[0], mib[len(mib) // 2], mib[-1])]
        rows.append([name, *cells, f"{each['growth_bytes'] / MIB:+.2f}"])
    rows.append(["all", "", "", "", f"{report['growth_bytes'] / MIB:+.2f}"])
    print(bench_figures.table(("process", "warm", "half", "end", "growth"), rows))
    print("growth: the median slope after the warm-up, over all the requests")
