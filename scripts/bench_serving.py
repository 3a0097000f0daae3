"""Throughput and latency of the contenders in turn, closed loop; cells and their table, those of open loops too.

A cell is one workload at one load on one contender: every round and the medians. Rounds alternate (A B A B ...), so
that whatever else the machine does hits all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import bench_figures
from bench_contenders import Contender
from bench_plan import Plan
from bench_workloads import WORKLOADS, Workload

Cell = dict[str, Any]
Times = Mapping[tuple[str, int, str], int]
"""How many times the rounds that are asked for, of those (workload, in flight, server) that have more."""

_ONCE: Times = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` of a turn of `duration_s` after `warmup_s` for each contender."""

    rounds: int
    duration_s: float
    warmup_s: float
    connections: int
    seed: int
    generator: str

    def plan(self, in_flight: int) -> Plan:
        return Plan(
            in_flight, self.warmup_s, self.duration_s, self.connections, seed=self.seed, generator=self.generator
        )


def measure_closed(
    contenders: Sequence[Contender], loads: Sequence[tuple[str, int]], options: Options, times: Times = _ONCE
) -> list[Cell]:
    """The cells of each (workload, in flight). The rounds that only some have come last, with the turns of these alone:
    what is compared by pairs of rounds stays beside each other.
    """
    cells = []
    for name, in_flight in loads:
        plan = options.plan(in_flight)
        able = [each for each in contenders if each.serves(WORKLOADS[name])]
        rounds = {each.name: options.rounds * times.get((name, in_flight, each.name), 1) for each in able}
        found = _in_turn(able, plan, WORKLOADS[name], rounds, f"{name}, {in_flight} in flight")
        cells += [{"workload": name, "in_flight": in_flight, **each} for each in found]
    return cells


def _in_turn(
    contenders: Sequence[Contender], plan: Plan, workload: Workload, rounds: Mapping[str, int], what: str
) -> list[Cell]:
    taken: dict[str, list[dict[str, Any]]] = {each.name: [] for each in contenders}
    most = max(rounds.values(), default=0)
    for i in range(most):
        left = [each for each in contenders if i < rounds[each.name]]
        for contender in left:
            taken[contender.name].append(contender.load(workload, replace(plan, seed=plan.seed + i)))
        rates = ", ".join(f"{each.name} {taken[each.name][-1]['requests_per_s']:.0f}/s" for each in left)
        print(f"  {what}, round {i + 1} of {most}: {rates}", flush=True)
    return [cell(name, found) for name, found in taken.items()]


def cell(name: str, rounds: list[dict[str, Any]]) -> Cell:
    """The rounds of one contender and their medians. A round by another generator than the others' is an error."""
    generators = {each["generator"] for each in rounds}
    if len(generators) != 1:
        raise SystemExit(f"{name}: rounds by different generators: {sorted(generators)}")
    numbers = [{k: v for k, v in each.items() if isinstance(v, int | float)} for each in rounds]
    median: dict[str, Any] = dict(bench_figures.medians(numbers))
    median["cpu_us_by_role"] = _by_role([each.get("cpu_us_by_role", {}) for each in rounds])
    return {"server": name, "generator": generators.pop(), "median": median, "rounds": rounds}


def _by_role(rounds: list[dict[str, float]]) -> dict[str, float]:
    return bench_figures.medians(rounds) if rounds else {}


# -- tables ------------------------------------------------------------------------------------------------------

HEAD = ("workload", "load", "server", "requests/s", "p50 us", "p99 us", "CPU us", "generator", "bad", "spread")


def rows(cells: Sequence[Cell], against: str = "plain") -> list[list[str]]:
    """For people. After the requests/s stands how many times those of `against` they are."""
    table_rows = []
    for each in cells:
        m = each["median"]
        load = f"{each['rate_per_s']:.0f}/s open" if "rate_per_s" in each else f"{each['in_flight']} in flight"
        rate = f"{m['requests_per_s']:.0f}"
        other = None if "rate_per_s" in each else find(cells, each["workload"], each["in_flight"], against)
        if other is not None and each["server"] != against:
            times = bench_figures.ratio_of_rounds(each["rounds"], other["rounds"], "requests_per_s")
            rate += f" ({times:.2f}x)"
        bad = str(bad_answers(each))
        cpu = f"{m['cpu_us']:.0f}" if "cpu_us" in m else "-"
        generator = f"{each['generator']} {m['generator_cpu']:.0%}"
        generator += f", late {m['late_p99_us']:.0f} us" if "rate_per_s" in each else ""
        spread = f"{bench_figures.spread(each['rounds'], 'requests_per_s'):.0%}"
        latencies = [f"{m[name]:.0f}" for name in ("p50_us", "p99_us")]
        table_rows.append([each["workload"], load, each["server"], rate, *latencies, cpu, generator, bad, spread])
    return table_rows


def bad_answers(found: Cell) -> int:
    """Requests of all rounds that failed, were answered wrongly, or never: of those there are no latencies."""
    return int(sum(each["failures"] + each["wrong"] + each.get("other_bad", 0) for each in found["rounds"]))


def beside(odd: str, cells: Sequence[Cell]) -> str:
    """What is said beside a figure of these: what is odd about it, and how many bad answers there were."""
    bad = sum(map(bad_answers, cells))
    return ", ".join(filter(None, (odd, f"{bad} bad" if bad else "")))


def find(cells: Sequence[Cell], workload: str, in_flight: int, server: str) -> Cell | None:
    """The closed-loop cell of that workload, load and server."""
    for each in cells:
        if (each["workload"], each["in_flight"], each["server"]) == (workload, in_flight, server):
            return each
    return None


def print_report(cells: Sequence[Cell]) -> None:
    """The table that a person reads."""
    print(bench_figures.table(HEAD, rows(cells)))
    print(
        "CPU us: of all processes of the server, per request; (x): times the plain server, median over rounds of both;"
    )
    print("generator: which one, its share of a CPU, and p99 of how late it sent in an open loop;")
    print("bad: failed or wrong answers, of all rounds; spread: (most - least) / median of the rounds' requests/s")
