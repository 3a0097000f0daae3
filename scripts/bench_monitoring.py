"""What metrics cost at the pool's peak: the same pool with `--monitoring_config_file`, asked each second, and without.

Three figures, of growing sharpness: requests/s and CPU time per request of the two in turn, which share whatever else
the machine does, and the CPU time of the code that counts, by itself (`bench_metric_cost`), as a share of the second.
"""

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_figures
import bench_models
import bench_serving
from bench_contenders import Contender, Figures, Pool, ServerContender
from bench_metrics import PATH
from bench_plan import Plan
from bench_server import SCRIPTS
from bench_serving import Options
from bench_workloads import Workload

ON, OFF = "with metrics", "without"
IN_FLIGHT = 32
LIMIT = 0.02
_MONITORING = "prometheus_config { enable: true }\n"
_SCRAPE_EVERY_S = 1.0


class Watched:
    """A server whose metrics somebody asks for while it is loaded."""

    def __init__(self, server: ServerContender) -> None:
        self.name = server.name
        self._of = server

    def serves(self, workload: Workload) -> bool:
        return self._of.serves(workload)

    def load(self, workload: Workload, plan: Plan) -> Figures:
        with _scraping(f"http://{self._of.server.address(rest=True)}{PATH}"):
            return self._of.load(workload, plan)


@contextlib.contextmanager
def _scraping(url: str) -> Iterator[None]:
    over = threading.Event()

    def ask() -> None:
        while not over.wait(_SCRAPE_EVERY_S):
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(scratch: Path, pool: Pool, workloads: Sequence[str], options: Options) -> dict[str, Any]:
    """The closed loops, and what the code costs by itself, as a JSON document."""
    bases = bench_models.build(workloads)
    config = scratch / "monitoring.config"
    config.write_text(_MONITORING, encoding="utf-8")
    servers = {name: pool.server(scratch, bases, *flags) for name, flags in _flags(config).items()}
    for name, server in servers.items():
        server.name = name
    with contextlib.ExitStack() as stack:
        for server in servers.values():
            stack.enter_context(server.running())
        contenders: list[Contender] = [Watched(ServerContender(servers[ON])), ServerContender(servers[OFF])]
        loads = [(name, IN_FLIGHT) for name in workloads]
        cells = bench_serving.measure_closed(contenders, loads, options)
    return {
        "server": pool.name,
        "cells": cells,
        "code_us": _code_us(),
        "shares": {n: shares(cells, n) for n in workloads},
    }


def _flags(config: Path) -> Mapping[str, tuple[str, ...]]:
    return {ON: (f"--monitoring_config_file={config}",), OFF: ()}


def _code_us() -> dict[str, float]:
    command = [sys.executable, str(SCRIPTS / "bench_metric_cost.py")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def shares(cells: Sequence[Mapping[str, Any]], workload: str) -> dict[str, float]:
    """By how much it is less, or more, with metrics."""
    on, off = (_cell(cells, workload, name) for name in (ON, OFF))
    ratio = bench_figures.ratio_of_rounds
    return {
        "requests_per_s": 1 - ratio(on["rounds"], off["rounds"], "requests_per_s"),
        "cpu_us": ratio(on["rounds"], off["rounds"], "cpu_us") - 1,
    }


def _cell(cells: Sequence[Mapping[str, Any]], workload: str, server: str) -> Mapping[str, Any]:
    return next(each for each in cells if (each["workload"], each["server"]) == (workload, server))


def code_share(report: Mapping[str, Any], workload: str) -> float:
    """The CPU time of the code that counts, of all that a request takes."""
    total_us: float = _cell(report["cells"], workload, OFF)["median"]["cpu_us"]
    own_us: float = sum(report["code_us"].values())
    return own_us / total_us if total_us else 0.0


def print_report(report: Mapping[str, Any]) -> None:
    """The tables that a person reads."""
    print(bench_figures.table(bench_serving.HEAD, bench_serving.rows(report["cells"], OFF)))
    parts = ", ".join(f"{name} {us:.2f}" for name, us in report["code_us"].items())
    print(f"\nthe code that counts, by itself: {sum(report['code_us'].values()):.2f} us a request ({parts})")
    rows = []
    for workload, more in report["shares"].items():
        share = code_share(report, workload)
        verdict = "pass" if share <= LIMIT else "FAIL"
        rows.append([workload, *(f"{more[k]:+.1%}" for k in ("requests_per_s", "cpu_us")), f"{share:.1%}", verdict])
    head = ("workload", "fewer requests/s", "more CPU a request", "code's share of the CPU", f"under {LIMIT:.0%}")
    print(bench_figures.table(head, rows))
