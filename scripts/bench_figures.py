"""The arithmetic of the benches: percentiles, medians over rounds, arrival times, growth. Pure; times in seconds."""

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NORMAL_95 = 1.96  # of a normal distribution 95 % lie within so many deviations
QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that at least `share` of them do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency_figures(latencies_s: Iterable[float]) -> dict[str, float]:
    """Quantiles, mean and greatest, in microseconds; all 0 when there is none."""
    ordered = sorted(latencies_s)
    if not ordered:
        return dict.fromkeys((*QUANTILES, "mean_us", "max_us"), 0.0)
    figures = {name: quantile(ordered, share) * 1e6 for name, share in QUANTILES.items()}
    return {**figures, "mean_us": statistics.fmean(ordered) * 1e6, "max_us": ordered[-1] * 1e6}


def swing(spans: Iterable[tuple[float, float]], begins_s: float, ends_s: float) -> float | None:
    """Of the median latencies of the thirds of a time, by how many times the longest was longer than the shortest.

    `spans`: when each was begun, between `begins_s` and `ends_s`, and ended. None where a third has none.
    """
    third_s = (ends_s - begins_s) / 3
    thirds: tuple[list[float], ...] = ([], [], [])
    for begun, ended in spans:
        thirds[min(2, int((begun - begins_s) / third_s))].append(ended - begun)
    if not all(thirds):
        return None
    medians_s = [statistics.median(each) for each in thirds]
    return max(medians_s) / max(min(medians_s), 1e-9)


def arrivals(rate_per_s: float, until_s: float, kind: str, seed: int) -> list[float]:
    """When requests are to be sent, from 0 on: `constant` gaps, or those of a Poisson process, fixed by the seed."""
    if kind == "constant":
        return [i / rate_per_s for i in range(math.ceil(until_s * rate_per_s))]
    random_source = random.Random(seed)
    times: list[float] = []
    now_s = random_source.expovariate(rate_per_s)
    while now_s < until_s:
        times.append(now_s)
        now_s += random_source.expovariate(rate_per_s)
    return times


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure that every round has."""
    shared = [name for name in rounds[0] if all(name in each for each in rounds)]
    return {name: statistics.median(each[name] for each in rounds) for name in shared}


def spread(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """How far the rounds of a figure lie apart: (greatest - least) / median."""
    values = [each[name] for each in rounds]
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def ratio_of_rounds(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], name: str) -> float:
    """The median of the ratios of rounds that were taken one after the other: what slows both down falls out.

    Not a number when there is nothing to divide by in any round.
    """
    ratios = [a[name] / b[name] for a, b in zip(ours, theirs, strict=False) if b[name]]
    return statistics.median(ratios) if ratios else math.nan


def slope_bounds(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The median of the slopes between any two points (Theil and Sen), which a few stray ones do not move, between the
    bounds that hold it with 95 % confidence: those slopes that Kendall's rank statistic leaves (Sen, 1968, without
    ties). No order in the points: the bounds have 0 between them. Points that all differ by their first, two at least.
    """
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2))
    n, count = len(points), len(slopes)
    reach = _NORMAL_95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    least = slopes[max(0, math.floor((count - reach) / 2) - 1)]
    most = slopes[min(count - 1, math.ceil((count + reach) / 2))]
    return least, statistics.median(slopes), most


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they must be: the first to the left, texts to the left, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(each[i]) for each in (list(head), *texts)) for i in range(len(head))]
    left = [all(not _numeric(row[i]) for row in texts) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, texts)])


def _numeric(text: str) -> bool:
    return text[:1].isdigit() or (text[:1] in "+-" and text[1:2].isdigit())
