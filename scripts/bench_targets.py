"""What the data plane must reach, by how many rounds, held against a report: measured, ratio, pass or fail. Pure.

A target whose figures are not in the report says so; it neither passes nor fails.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import bench_capacity
import bench_figures
import bench_serving
from bench_contenders import AUTO, LOOP, PLAIN, Pool

MB = 1000 * 1000
MIB = 1024 * 1024
LONE, CONV = ("tiny", 1), ("conv", 8)
LOADS = (LONE, ("tiny", 32), ("mlp", 32), ("image", 32), CONV)
WORKLOADS = tuple(dict.fromkeys(name for name, _ in LOADS))
OPEN = "tiny"  # of the open loop
OPEN_LIMIT = 5.0
# So many times the rounds have the open loop, `conv` where it is held against a loop, and a request by itself where
# batching is held against none: what the machine does within seconds moves these most, or by more than the twentieth
# that matters, beyond what a median of three or five rounds evens out.
MORE_ROUNDS = 3
NOT_MEASURED = "not measured"
FLOODED_AND_ALONE = ("B flooded", "alone, half of the CPUs")  # conditions of `bench_tenants`
_GROWTH_LIMIT = 10 * MIB
_SAME = 1.05  # what two runs of the same server may differ by

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is held against `limit`: at least, or where `most` at most. `bad`: answers that failed or were wrong, by
    which the figures are those of the rest alone: with any, nothing has passed.
    """

    what: str
    target: str
    limit: float
    most: bool
    value: float | None
    measured: str
    bad: int = 0

    @property
    def passed(self) -> bool | None:
        if self.value is None:
            return None
        if self.bad:
            return False
        return self.value <= self.limit if self.most else self.value >= self.limit


def times(ours: str) -> bench_serving.Times:
    """Of the closed loops that have more rounds. `ours`: the pool without batching."""
    loads = [(*LONE, ours), (*LONE, f"{ours}+{AUTO}"), (*CONV, ours), (*CONV, LOOP)]
    return dict.fromkeys(loads, MORE_ROUNDS)


def rows(report: Report) -> list[Row]:
    """Every target."""
    ours = Pool(report["options"]["engines"][0]).name
    auto = f"{ours}+{AUTO}"
    return [
        _times(report, ("tiny", 32), (ours, PLAIN), 4),
        _latency(report, LONE, (ours, PLAIN), 1.0),
        _times(report, ("tiny", 32), (auto, PLAIN), 6),
        _latency(report, LONE, (auto, ours), _SAME),
        _times(report, CONV, (ours, LOOP), 0.97),
        _times(report, ("mlp", 32), (auto, PLAIN), 5),
        _times(report, ("image", 32), (ours, PLAIN), 2),
        _growth(report),
        _open(report, ours),
        _tenants(report),
        _frontend(report, ours),
    ]


def _times(report: Report, load: tuple[str, int], servers: tuple[str, str], limit: float) -> Row:
    found = _compared(report, load, servers, "requests_per_s", "{:.0f}/s")
    what = f"{load[0]}, {load[1]} in flight, {servers[0]}: requests/s"
    return Row(what, f"at least {limit:g}x {servers[1]}", limit, False, *found)


def _latency(report: Report, load: tuple[str, int], servers: tuple[str, str], limit: float) -> Row:
    found = _compared(report, load, servers, "p50_us", "{:.0f} us")
    what = f"{load[0]}, {load[1]} in flight, {servers[0]}: p50"
    return Row(what, f"at most {limit:g}x {servers[1]}", limit, True, *found)


def _compared(
    report: Report, load: tuple[str, int], servers: tuple[str, str], key: str, form: str
) -> tuple[float | None, str, int]:
    cells = [bench_serving.find(report.get("serving", ()), *load, server) for server in servers]
    ours, theirs = cells
    if ours is None or theirs is None:
        return None, NOT_MEASURED, 0
    # Where one has more rounds than the other, those that both have.
    pairs = [(a[key], b[key]) for a, b in zip(ours["rounds"], theirs["rounds"], strict=False)]
    measured = " / ".join(form.format(statistics.median(each)) for each in zip(*pairs, strict=True))
    return bench_figures.ratio_of_rounds(ours["rounds"], theirs["rounds"], key), *_with_bad(measured, ours, theirs)


def _with_bad(measured: str, *cells: bench_serving.Cell, odd: str = "") -> tuple[str, int]:
    """What was measured, and what is odd about it and how many bad answers beside it."""
    bad, beside = sum(map(bench_serving.bad_answers, cells)), bench_serving.beside(odd, cells)
    return (f"{measured}: {beside}" if beside else measured), bad


def _growth(report: Report) -> Row:
    found = report.get("growth")
    value, measured = None, NOT_MEASURED
    if found:
        value = found["growth_most_bytes"] / _GROWTH_LIMIT
        least, middle, most = (found[f"growth_{which}bytes"] / MIB for which in ("least_", "", "most_"))
        measured = f"{middle:+.1f} MiB ({least:+.1f} to {most:+.1f}), by {found['requests']}"
    return Row("image: growth of memory over 10,000 requests", "at most 10 MiB in all", 1.0, True, value, measured)


def _open(report: Report, ours: str) -> Row:
    found = [each for each in report.get("open", ()) if (each["workload"], each["server"]) == (OPEN, ours)]
    value, measured, bad, share = None, NOT_MEASURED, 0, 0.7
    if found:
        rounds, m, share = found[0]["rounds"], found[0]["median"], found[0]["share"]
        value = bench_capacity.judged_tail(rounds)
        odd = bench_capacity.oddities(rounds)
        measured, bad = _with_bad(f"{m['p99_us']:.0f} us / {m['p50_us']:.0f} us", found[0], odd=odd)
    what = f"{OPEN}, open loop at {bench_capacity.share_words(share)}, {ours}: p99"
    return Row(what, f"at most {OPEN_LIMIT:g}x p50", OPEN_LIMIT, True, value, measured, bad)


def _tenants(report: Report) -> Row:
    found = report.get("tenants")
    value, measured, bad = None, NOT_MEASURED, 0
    if found:
        cells = [found["conditions"][name] for name in FLOODED_AND_ALONE]
        flooded, alone = (each["rounds"] for each in cells)
        ratios = [a["p99_us"] / max(b["p99_us"], 1e-9) for a, b in zip(flooded, alone, strict=True)]
        value, odd = bench_capacity.judged(ratios, alone), bench_capacity.oddities(alone)
        if value == math.inf:  # A alone was saturated, which says nothing of what B does to it
            value = None
        measured, bad = _with_bad(" / ".join(f"{each['median']['p99_us']:.0f} us" for each in cells), *cells, odd=odd)
    what = "two tenants: A's p99 while B is flooded"
    return Row(what, "at most 1.5x alone at equal cores", 1.5, True, value, measured, bad)


def _frontend(report: Report, ours: str) -> Row:
    found = [each for each in report.get("memory", {}).get(ours, ()) if each["role"] == "frontend"]
    value, measured = None, NOT_MEASURED
    if found:
        biggest = max(each["rss_bytes"] for each in found)
        with_tensorflow = any(each["tensorflow"] for each in found)
        value = float("inf") if with_tensorflow else biggest / (120 * MB)
        measured = f"{biggest / MB:.0f} MB" + (", with TensorFlow" if with_tensorflow else "")
    return Row(f"frontend, {ours}: resident", "under 120 MB, no TensorFlow", 1.0, True, value, measured)


# -- table -------------------------------------------------------------------------------------------------------

_WORDS: Mapping[bool | None, str] = {True: "pass", False: "FAIL", None: "-"}
_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("what", lambda row: row.what),
    ("target", lambda row: row.target),
    ("measured", lambda row: row.measured),
    ("ratio", lambda row: "-" if row.value is None else f"{row.value:.2f}"),
    ("", lambda row: _WORDS[row.passed]),
)


def print_report(report: Report) -> None:
    """The table that a person reads."""
    head = [name for name, _ in _COLUMNS]
    print(bench_figures.table(head, [[cell(row) for _, cell in _COLUMNS] for row in rows(report)]))
