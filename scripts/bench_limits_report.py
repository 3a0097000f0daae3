"""What the parts of a request's way come to: how far the CPUs would carry what is not ours, and what is ours. Pure.

The floor of a target is the CPU time of a request where nothing of ours is on its way: generator, Envoy with pyvoy,
ZeroMQ, TensorFlow, shared memory, as `bench_limits` measures them. With all CPUs full of it a machine could answer so
many requests/s, or as many as Envoy with pyvoy answers by itself, if that is less; no change of ours makes it more. One
in flight waits for one part after the other: its floor is the p50 of all of them as a chain (`bench_floor_chain`). The
sum of their p50, each by itself, is shown beside it and is too low, for by itself each part is warm: it does nothing
else and hardly sleeps. In a chain each is woken where others have had the CPU and its caches meanwhile. A target beyond
its floor is out of reach; one that is not says how much may be ours.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import bench_figures

RATE, P50 = "requests_per_s", "p50_us"
# Parts of the floor beside the generator; `front` is Envoy with pyvoy.
PARTS = ("front", "zmq", "tensorflow", "shared")
# All of them, one after the other.
CHAIN = "chain"
_NAMES = {CHAIN: "floor", "front": "Envoy+pyvoy", "whole": "whole", "plain": "plain"}
# What is ours in the whole, by role, and Envoy with it.
_ROLES = ("frontend", "worker", "supervisor")

Cell = Mapping[str, Any]
Parts = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """So many times the plain server's requests/s at least, or its p50 at most. `generator` "": the one asked for."""

    workload: str
    in_flight: int
    batching: str
    figure: str
    wanted: float
    generator: str = ""

    @property
    def name(self) -> str:
        parts = [self.workload, *filter(None, [self.batching]), f"{self.in_flight} in flight"]
        return ", ".join([*parts, *([f"generator {self.generator}"] if self.generator else [])])

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


# Those of `bench_targets` that the data plane does not reach everywhere.
TARGETS = (
    Target("tiny", 1, "", P50, 1.0),
    Target("tiny", 32, "", RATE, 4.0),
    Target("tiny", 32, "auto", RATE, 6.0),
    Target("mlp", 32, "auto", RATE, 5.0),
    Target("image", 32, "", RATE, 2.0),
    Target("image", 32, "", RATE, 2.0, "own"),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one target. `floor_us` and `whole_us` are the CPU time of a request with the generator's.

    As many times the plain server's figure: `floor` allows, by pairs of rounds, and `floors` in each of them; `reached`
    has the whole way, and `full` it would have with no CPU idle. `budget_us`: what a request may take where the target
    is reached, CPU time with all CPUs full, or p50; `used_cpus`: what the whole way used.
    """

    floor_us: float
    whole_us: float
    floor: float
    floors: tuple[float, ...]
    reached: float
    full: float
    budget_us: float
    used_cpus: float

    @property
    def ours_us(self) -> float:
        return self.whole_us - self.floor_us


def limit(cell: Cell, cpus: int) -> Limit:
    """What the rounds of a target's parts, and their medians, come to."""
    of, rounds, key = cell["median"], cell["rounds"], cell["figure"]
    plain = of["plain"][key]
    floors = tuple(
        (most_per_s(each, cpus) if key == RATE else floor_p50_us(each)) / each["plain"][key] for each in _turns(cell)
    )
    whole_us = _total_us(of["whole"])
    return Limit(
        floor_us(of),
        whole_us,
        statistics.median(floors),
        floors,
        bench_figures.ratio_of_rounds(rounds["whole"], rounds["plain"], key),
        cpus * 1e6 / whole_us / of["plain"][RATE],
        cpus * 1e6 / (cell["wanted"] * plain) if key == RATE else cell["wanted"] * plain,
        of["whole"][RATE] * whole_us / 1e6,
    )


def _turns(cell: Cell) -> list[Parts]:
    """Its rounds, each with all parts."""
    rounds = cell["rounds"]
    return [{name: found[turn] for name, found in rounds.items()} for turn in range(len(rounds["plain"]))]


def floor_us(parts: Parts) -> float:
    """CPU time of a request of which nothing is ours, with the generator's."""
    return _total_us(parts[CHAIN]) if CHAIN in parts else sum_us(parts)


def sum_us(parts: Parts) -> float:
    """The same of the parts, each by itself."""
    return parts["front"]["generator_us"] + sum(parts[name]["cpu_us"] for name in PARTS if name in parts)


def most_per_s(parts: Parts, cpus: int) -> float:
    """Requests/s of which nothing is ours."""
    return min(cpus * 1e6 / floor_us(parts), parts["front"][RATE])


def floor_p50_us(parts: Parts) -> float:
    """What a request alone waits for, without anything of ours, with the generator, as in the other p50."""
    return parts[CHAIN][P50] if CHAIN in parts else sum_p50_us(parts)


def sum_p50_us(parts: Parts) -> float:
    """The same of the parts, each by itself; the generator is in `front`."""
    return sum(parts[name][P50] for name in PARTS if name in parts)


def _total_us(figures: Mapping[str, float]) -> float:
    return figures["cpu_us"] + figures["generator_us"]


def verdict(cell: Cell, cpus: int) -> str:
    """A sentence or two on the target, as plain as it is."""
    found, of = limit(cell, cpus), cell["median"]
    rate = cell["figure"] == RATE
    beyond = [floor < cell["wanted"] if rate else floor > cell["wanted"] for floor in found.floors]
    reach = "out of reach" if all(beyond) else "at the edge of what can be" if any(beyond) else "not out of reach"
    how = "in one chain" if CHAIN in of else "by itself"
    allows = "would allow {} at the most" if rate else f"takes {{}} of the plain server's p50 {how}"
    rounds = f"{found.floor:.2f}x ({min(found.floors):.2f} to {max(found.floors):.2f} in single rounds)"
    words = f"wanted {cell['wanted']:g}x: {reach}, what is not ours {allows.format(rounds)}; it is {found.reached:.2f}x"
    if rate:
        words += f", with {found.used_cpus:.2f} of {cpus} CPUs used, and would be {found.full:.2f}x with all"
    if all(beyond):
        return words
    needed_us = found.floor_us if rate else floor_p50_us(of)
    ours_us = found.ours_us if rate else of["whole"][P50] - needed_us
    may = "CPU time that a request may take, with all CPUs full" if rate else "that it may take"
    left_us = found.budget_us - needed_us
    return f"{words}. Of {found.budget_us:.0f} us {may}, {left_us:.0f} could be ours, and {ours_us:.0f} are"


# -- tables ------------------------------------------------------------------------------------------------------

HEAD = (
    "target",
    "",
    "CPU us",
    "generator",
    "Envoy+pyvoy",
    "ZeroMQ",
    "TensorFlow",
    "shared",
    "requests/s",
    "times",
    "p50 us",
)


def rows(cell: Cell, cpus: int) -> list[list[str]]:
    """Of a target: its floor, Envoy with pyvoy by itself, the whole way, the plain server. Where the floor is a chain,
    what its parts come to by themselves stands below it.
    """
    of, found = cell["median"], limit(cell, cpus)
    times = {CHAIN: f"{found.floor:.2f}x", "whole": f"{found.reached:.2f}x"}
    if CHAIN in of:
        floor = [_measured(CHAIN, of, times), ["", "warm parts", *_parts(of), "-", *_sum_p50(cell)]]
    elif cell["figure"] == RATE:
        floor = [["", "floor", *_parts(of), f"{most_per_s(of, cpus):.0f}", f"{found.floor:.2f}x", "-"]]
    else:
        floor = [["", "floor", *_parts(of), "-", *_sum_p50(cell)]]
    table_rows = [*floor, *(_measured(name, of, times) for name in ("front", "whole", "plain"))]
    table_rows[0][0] = cell["name"]
    return table_rows


def _measured(name: str, of: Parts, times: Mapping[str, str]) -> list[str]:
    figures = of[name]
    cells = ["", _NAMES[name], f"{_total_us(figures):.0f}", f"{figures['generator_us']:.0f}", *["-"] * len(PARTS)]
    return [*cells, f"{figures[RATE]:.0f}", times.get(name, ""), f"{figures[P50]:.0f}"]


def _parts(of: Parts) -> list[str]:
    """CPU time of them together, of the generator, and of each."""
    each = [f"{of[name]['cpu_us']:.0f}" if name in of else "-" for name in PARTS]
    return [f"{sum_us(of):.0f}", f"{of['front']['generator_us']:.0f}", *each]


def _sum_p50(cell: Cell) -> list[str]:
    """As times of the plain server's, by pairs of rounds, and in microseconds."""
    times = statistics.median(sum_p50_us(each) / each["plain"][P50] for each in _turns(cell))
    return [f"{times:.2f}x", f"{sum_p50_us(cell['median']):.0f}"]


def print_report(report: Mapping[str, Any]) -> None:
    """The tables that a person reads."""
    cells: Sequence[Cell] = report["targets"]
    cpus = report["cpus"]
    print(bench_figures.table(HEAD, [row for cell in cells for row in rows(cell, cpus)]))
    print(
        f"floor: what is not ours, each part by itself; its requests/s: {cpus} CPUs full of it and of nothing else, but"
    )
    print("no more than Envoy with pyvoy answers by itself, for it has one thread; p50: all parts as one chain, which")
    print("takes longer than the warm parts, each by itself, together: in the chain each has slept before its turn;")
    print("CPU us: of a request, all processes and the generator; times: the plain server's requests/s, or its p50")
    print()
    print(bench_figures.table(OURS, [ours(cell, cpus) for cell in cells]))
    print(
        "ours: the whole way without the floor; roles: what its processes took, frontend with Envoy, worker with run;"
    )
    print("CPUs used: requests/s by CPU time; busy: of the machine, not idle meanwhile, whoever had them")
    print()
    for cell in cells:
        print(f"{cell['name']}: {verdict(cell, cpus)}")


OURS = (
    "target",
    "requests in a run",
    "whole us",
    "floor us",
    "ours us",
    *_ROLES,
    "generator",
    "CPUs used",
    "CPUs busy",
)


def ours(cell: Cell, cpus: int) -> list[str]:
    """The whole way's CPU time, and whose it is."""
    found, whole = limit(cell, cpus), cell["median"]["whole"]
    roles = [f"{whole.get(f'cpu_us of {role}', 0.0):.0f}" for role in _ROLES]
    totals = [f"{us:.0f}" for us in (found.whole_us, found.floor_us, found.ours_us)]
    return [
        cell["name"],
        f"{cell['requests_per_run']:.1f}",
        *totals,
        *roles,
        f"{whole['generator_us']:.0f}",
        f"{found.used_cpus:.2f}",
        f"{whole['busy_cpus']:.2f}",
    ]
