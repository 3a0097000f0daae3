"""The arithmetic of the benches: percentiles, arrival times, medians over rounds, tables."""

import itertools
import math
import random
import statistics

import bench_figures
import pytest
from bench_load import Load
from bench_plan import Plan
from hypothesis import given, settings
from hypothesis import strategies as st

latencies = st.lists(st.floats(1e-6, 10), min_size=1, max_size=200)


@given(latencies, st.floats(0.01, 1))
def test_a_quantile_is_the_least_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = bench_figures.quantile(ordered, share)
    assert sum(v <= found for v in ordered) >= share * len(ordered) - 1e-9
    assert sum(v < found for v in ordered) < share * len(ordered) + 1e-9


def test_latency_figures_of_a_hundred() -> None:
    figures = bench_figures.latency_figures(i / 1000 for i in range(1, 101))
    wanted = {"p50_us": 50e3, "p90_us": 90e3, "p99_us": 99e3, "p999_us": 100e3, "mean_us": 50.5e3, "max_us": 100e3}
    assert figures == pytest.approx(wanted)


def test_latency_figures_of_none_are_zero() -> None:
    assert set(bench_figures.latency_figures([]).values()) == {0.0}


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert bench_figures.arrivals(4, 1, "constant", 1) == [0, 0.25, 0.5, 0.75]


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_poisson_arrivals_have_the_rate_and_the_spread_of_their_gaps(seed: int) -> None:
    times = bench_figures.arrivals(1000, 4, "poisson", seed)
    assert times == bench_figures.arrivals(1000, 4, "poisson", seed)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 4
    assert abs(len(times) - 4000) < 6 * math.sqrt(4000)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.15)


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that gets slower by half in the last rounds does not move the ratio."""
    ours = [{"requests_per_s": v} for v in (400, 200, 200)]
    theirs = [{"requests_per_s": v} for v in (100, 50, 50)]
    assert bench_figures.ratio_of_rounds(ours, theirs, "requests_per_s") == 4


def test_there_is_no_ratio_to_nothing() -> None:
    assert math.isnan(bench_figures.ratio_of_rounds([{"a": 1}], [{"a": 0}], "a"))


def test_medians_are_of_the_figures_that_every_round_has() -> None:
    assert bench_figures.medians([{"a": 1, "b": 5}, {"a": 3}, {"a": 2}]) == {"a": 2}


def test_spread() -> None:
    rounds = [{"a": v} for v in (90, 100, 110)]
    assert bench_figures.spread(rounds, "a") == pytest.approx(0.2)


@given(st.floats(-5, 5), st.floats(-100, 100))
def test_slopes_of_a_straight_line(rise: float, start: float) -> None:
    points = [(float(x), start + rise * x) for x in range(10)]
    assert bench_figures.slope_bounds(points) == pytest.approx((rise, rise, rise), abs=1e-9)


@given(st.integers(0, 9), st.floats(-1000, 1000))
def test_a_stray_point_does_not_move_the_slope(stray: int, off: float) -> None:
    points = [(float(x), 2.0 * x + (off if x == stray else 0)) for x in range(10)]
    assert bench_figures.slope_bounds(points)[1] == pytest.approx(2)


def test_the_bounds_of_a_slope_are_those_of_kendalls_statistic() -> None:
    """Ten points: 45 slopes, of which those beyond 1.96 times 11.18 (the root of 10 * 9 * 25 / 18) are the bounds."""
    points = [(x, y) for x, y in enumerate([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])]
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2))
    # (45 - 21.9) / 2 = 11.5 and (45 + 21.9) / 2 + 1 = 34.5, of slopes counted from 1; outwards to whole ones.
    assert bench_figures.slope_bounds(points) == (slopes[10], statistics.median(slopes), slopes[34])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_the_bounds_hold_the_slope_about_as_often_as_they_say(seed: int) -> None:
    source = random.Random(seed)
    held = 0
    for _ in range(100):
        points = [(x, 0.5 * x + source.gauss(0, 3)) for x in range(20)]
        least, middle, most = bench_figures.slope_bounds(points)
        assert least <= middle <= most
        held += least <= 0.5 <= most
    assert held >= 83  # 95 of 100, and five deviations


def test_table_aligns_texts_left_and_numbers_right() -> None:
    assert bench_figures.table(("name", "n"), [("a", 1), ("bcdef", 1234)]).splitlines() == [
        "name      n",
        "-----  ----",
        "a         1",
        "bcdef  1234",
    ]


def test_a_queue_that_grows_or_shrinks_swings() -> None:
    at = [10 + i / 100 for i in range(300)]
    assert bench_figures.swing([(t, t + 0.5) for t in at], 10, 13) == pytest.approx(1)
    grown, shrunk = [(t, t + (t - 9)) for t in at], [(t, t + (14 - t)) for t in at]
    assert bench_figures.swing(grown, 10, 13) == pytest.approx(3.5 / 1.5, rel=0.01)
    assert bench_figures.swing(shrunk, 10, 13) == pytest.approx(3.5 / 1.5, rel=0.01)
    assert bench_figures.swing([each for each in grown if each[0] < 12], 10, 13) is None


@pytest.mark.parametrize("pause", [20, 120, 220])
def test_a_pause_is_no_swing(pause: int) -> None:
    """All that waits for it waits for a moment, in whatever third."""
    spans = [(i / 100, i / 100 + (0.3 if pause < i < pause + 30 else 0.01)) for i in range(300)]
    assert bench_figures.swing([*spans, (3.0, 3.01)], 0, 3) == pytest.approx(1)


@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_the_generator_says_how_an_open_loop_swings(rate: float) -> None:
    load = Load([], Plan(1, 0.0, 3.0, rate_per_s=rate), lambda answer: True)
    try:
        load.measured_from, load.measured_until = 10.0, 13.0
        load.seen.spans = [(10.5 if rate else 3.0, 10.6), (11.5, 11.7), (12.5, 12.7)]
        assert load.figures(0.1).get("swing") == (pytest.approx(2) if rate else None)
        load.seen.spans.pop()
        assert "swing" not in load.figures(0.1)
    finally:
        load.close()
