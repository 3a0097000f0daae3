"""Latency at a fixed rate, or at a share of what each contender can do just then: `scripts/bench --what=open`.

In each round the contenders have their turns one after the other. A share is one of the capacity that a closed loop by
the same generator finds right before the turn (`bench_capacity`).
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import bench_capacity
import bench_figures
import bench_serving
from bench_contenders import LOOP, Contender
from bench_plan import Plan
from bench_serving import Cell, Options
from bench_workloads import WORKLOADS, Workload

_HEAD = (
    *("workload", "server", "rate", "before", "after", "CPU us, closed", "p50 us", "p99 us"),
    *("p99 / p50", "least", "most", "taken again", "rounds"),
)


def measure(
    contenders: Sequence[Contender], workloads: Sequence[str], share: float, arrivals: str, options: Options
) -> list[Cell]:
    """The cells of each workload, `rate_per_s` being the median over the rounds. `share` above 1: requests/s."""
    cells = []
    for name in workloads:
        workload = WORKLOADS[name]
        able = [each for each in contenders if each.serves(workload) and not each.name.startswith(LOOP)]
        plan = replace(options.plan(bench_capacity.AT), generator="own", arrivals=arrivals)
        for contender in able:
            contender.load(workload, plan)  # warm: what a server does but once is no change of the machine's speed
        taken: dict[str, list[dict[str, Any]]] = {each.name: [] for each in able}
        for i in range(options.rounds):
            for contender in able:
                what = f"{name}, open loop, {contender.name}, round {i + 1} of {options.rounds}"
                taken[contender.name].append(
                    _round(contender, workload, share, replace(plan, seed=options.seed + i), what)
                )
        for server, rounds in taken.items():
            found = bench_serving.cell(server, rounds)
            load = {"workload": name, "in_flight": plan.in_flight, "rate_per_s": found["median"]["rate_per_s"]}
            cells.append({**load, "share": share, "arrivals": arrivals, **found})
    return cells


def _round(contender: Contender, workload: Workload, share: float, plan: Plan, what: str) -> dict[str, Any]:
    def at(rate: float) -> dict[str, Any]:
        return contender.load(workload, replace(plan, rate_per_s=rate))

    if share > 1:
        turn = {**at(share), "rate_per_s": share}
    else:
        turn = bench_capacity.take(
            lambda: contender.load(workload, plan), share, lambda rate: {contender.name: at(rate)}, what
        )[contender.name]
    ratio = f"p99 {turn['p99_us']:.0f} us, p50 {turn['p50_us']:.0f} us: {bench_capacity.p99_by_p50(turn):.2f}"
    print(f"  {what}, {bench_capacity.words(turn)}: {ratio}", flush=True)
    return turn


# -- tables ------------------------------------------------------------------------------------------------------


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """For people: of each cell the capacities, and what a request took then; p50, p99 and their ratio in the rounds;
    what is odd about these.
    """
    table_rows = []
    for each in cells:
        rounds, m = each["rounds"], each["median"]
        ratios = [bench_capacity.p99_by_p50(one) for one in rounds]
        capacities = [f"{m[key]:.0f}/s" if key in m else "-" for key in ("capacity_per_s", "capacity_after_per_s")]
        closed = f"{m['capacity_cpu_us']:.0f}" if "capacity_cpu_us" in m else "-"
        spans = [_span([one[key] for one in rounds]) for key in ("p50_us", "p99_us")]
        figures = [f"{ratio:.2f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
        counts = [str(bench_capacity.repeats(rounds)), bench_capacity.oddities(rounds) or "-"]
        load = [each["workload"], each["server"], f"{each['rate_per_s']:.0f}/s"]
        table_rows.append([*load, *capacities, closed, *spans, *figures, *counts])
    return table_rows


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def print_report(cells: Sequence[Cell]) -> None:
    """The tables that a person reads."""
    bench_serving.print_report(cells)
    print()
    print(bench_figures.table(_HEAD, rows(cells)))
    print("rate, before, after: medians; what the server could do right before and right after its turn;")
    print("CPU us, closed: what a request took of the server's CPU time then; p50, p99: from the least to the most;")
    print("p99 / p50: of each round, the median, least and most, of all of them whatever is odd about them;")
    print(
        "taken again: turns beside which the capacity changed too much; unsteady: it did in each attempt, and the last"
    )
    print("one counts; saturated: more at a time than 32, or a p50 longer than theirs that swings: too small a ratio;")
    print("longer: a p50 longer than theirs all the time, which counts")
