"""Turns at a share of what a server can do just then: which are taken again, and that no latency decides it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import bench_capacity
import bench_open
import bench_serving
import bench_tenants
import pytest
from bench_plan import Plan
from bench_serving import Options
from bench_workloads import Workload
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = Options(rounds=1, duration_s=1, warmup_s=1, connections=4, seed=1, generator="auto")
LATENCY = {"p50_us": 100.0, "p99_us": 300.0}
RIGHT = {"failures": 0, "wrong": 0, "generator": "own", "generator_cpu": 0.1, "late_p99_us": 1.0}


def closed(capacity: float, **more: Any) -> dict[str, Any]:
    return {**RIGHT, **LATENCY, "requests_per_s": capacity, "cpu_us": 80.0, **more}


class Scripted:
    """One whose closed loops find the capacities in turn, and whose open loops give the `turns` in turn, then any."""

    def __init__(self, capacities: Sequence[float], turns: Sequence[dict[str, Any]] = (), name: str = "envoy") -> None:
        self.name = name
        self._closed = iter([closed(each) for each in capacities])
        self._turns = iter(turns)
        self.asked: list[float] = []
        self.plans: list[Plan] = []

    def serves(self, workload: Workload) -> bool:
        return workload.name == "tiny"

    def load(self, workload: Workload, plan: Plan) -> dict[str, Any]:
        """`asked`: the rates, 0 of a closed loop."""
        self.asked.append(plan.rate_per_s)
        self.plans.append(plan)
        if not plan.rate_per_s:
            return next(self._closed)
        return {**RIGHT, **LATENCY, "requests_per_s": plan.rate_per_s, **next(self._turns, {})}


def measured(contender: Scripted, rounds: int = 1, share: float = 0.7) -> bench_serving.Cell:
    options = Options(rounds, 1, 1, 4, seed=1, generator="auto")
    (found,) = bench_open.measure([contender], ["tiny"], share, "poisson", options)
    return found


def odd(found: bench_serving.Cell) -> tuple[int, str]:
    """How many turns were taken again, and what is said of those that were kept."""
    return bench_capacity.repeats(found["rounds"]), bench_capacity.oddities(found["rounds"])


WARM = 1.0  # the first closed loop, of which nothing is kept


def test_each_turn_is_at_the_share_of_what_was_found_right_before_it() -> None:
    contender = Scripted([WARM, 10_000, 9_500, 6_000, 6_100, 20_000, 21_000])
    found = measured(contender, rounds=3)
    assert contender.asked == [0, 0, 7_000, 0, 0, 4_200, 0, 0, 14_000, 0]
    assert [each["capacity_per_s"] for each in found["rounds"]] == [10_000, 6_000, 20_000]
    assert [each["capacity_after_per_s"] for each in found["rounds"]] == [9_500, 6_100, 21_000]
    assert [each["rate_per_s"] for each in found["rounds"]] == [7_000, 4_200, 14_000]
    assert (found["rate_per_s"], bench_capacity.oddities(found["rounds"])) == (7_000, "")


def test_all_loads_of_a_turn_are_by_our_own_generator_and_as_long() -> None:
    contender = Scripted([WARM, 10_000, 10_000])
    measured(contender)
    alike = {(p.generator, p.in_flight, p.warmup_s, p.duration_s, p.connections) for p in contender.plans}
    assert alike == {("own", bench_capacity.AT, 1, 1, 4)}


def test_contenders_take_turns_each_with_its_own_capacity() -> None:
    fast, slow = Scripted([WARM, *[10_000] * 4], name="fast"), Scripted([WARM, *[1_000] * 4], name="slow")
    cells = bench_open.measure([fast, slow], ["tiny"], 0.7, "poisson", Options(2, 1, 1, 4, 1, "own"))
    assert [(each["server"], each["rate_per_s"]) for each in cells] == [("fast", 7_000), ("slow", 700)]
    assert [plan.seed for plan in slow.plans if plan.rate_per_s] == [1, 2]


@pytest.mark.parametrize(
    ("share", "after", "steady"),
    [
        (0.7, 8_236, True),  # 7,000/s are 85 % of 8,235.3/s
        (0.7, 8_235, False),
        (0.7, 12_142, True),  # as many times more as that is less
        (0.7, 12_144, False),
        (0.5, 6_667, True),  # 5,000/s are 75 % of 6,666.7/s
        (0.5, 6_666, False),
        (0.5, 14_999, True),
        (0.5, 15_001, False),
    ],
)
def test_how_far_the_capacity_may_move(share: float, after: float, steady: bool) -> None:
    paces = {"capacity_per_s": 10_000, "rate_per_s": share * 10_000, "capacity_after_per_s": after}
    assert bench_capacity.is_steady(paces) is steady


@pytest.mark.parametrize("after", [7_000, 14_000])
def test_a_turn_is_taken_again_at_a_new_capacity(after: float, capsys: pytest.CaptureFixture[str]) -> None:
    contender = Scripted([WARM, 10_000, after, 9_000, 9_100], [{"p99_us": 111.0}, {"p99_us": 999.0}])
    found = measured(contender)
    assert contender.asked == [0, 0, 7_000, 0, 0, 6_300, 0]
    (kept,) = found["rounds"]
    assert (kept["p99_us"], kept["capacity_per_s"], kept["capacity_after_per_s"]) == (999, 9_000, 9_100)
    assert [(each["p99_us"], each["capacity_after_per_s"]) for each in kept["again"]] == [(111, after)]
    assert odd(found) == (1, "")
    printed = capsys.readouterr().out
    assert f"at 7000/s of 10000/s before and {after}/s after: taken again" in printed


def test_a_round_that_never_was_steady_is_kept_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    contender = Scripted(
        [WARM, 10_000, 5_000, 4_000, 9_000, 10_000, 5_000], [{"p99_us": float(i)} for i in (101, 102, 103)]
    )
    found = measured(contender)
    assert contender.asked == [0, 0, 7_000, 0, 0, 2_800, 0, 0, 7_000, 0]
    assert [each["p99_us"] for each in found["rounds"]] == [103]
    assert odd(found) == (2, "1 of 1 unsteady")
    assert "before and 5000/s after: not steady, and kept" in capsys.readouterr().out
    bench_open.print_report([found])
    line = next(each for each in capsys.readouterr().out.splitlines() if each.endswith("unsteady"))
    figures = ["80", "100", "to", "100", "103", "to", "103", *["1.03"] * 3]
    assert line.split() == ["tiny", "envoy", "7000/s", "10000/s", "5000/s", *figures, "2", "1", "of", "1", "unsteady"]


figures = st.fixed_dictionaries(
    {"p50_us": st.floats(0, 1e7), "p99_us": st.floats(0, 1e7), "failures": st.integers(0, 9_999)}
)
turns = st.lists(figures, min_size=6, max_size=6)
speeds = st.lists(st.sampled_from([5_000.0, 7_000.0, 9_000.0, 10_000.0]), min_size=12, max_size=12)


@given(speeds, turns, turns)
def test_no_latency_decides_what_is_taken_again_or_kept(
    capacities: list[float], ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> None:
    """The same capacities, whatever the turns were like: the same loads, and the turn at the same place is kept."""
    alike = []
    for given_turns in (ours, theirs):
        contender = Scripted([WARM, *capacities], given_turns)
        rounds = measured(contender, rounds=2)["rounds"]
        # Where the last turn of each round stands among all.
        kept = [len(rounds[0]["again"]), len(rounds[0]["again"]) + 1 + len(rounds[1]["again"])]
        for place, each in zip(kept, rounds, strict=True):
            assert {name: each[name] for name in given_turns[place]} == given_turns[place]
        alike.append((contender.asked, kept))
    assert alike[0] == alike[1]


def test_what_a_request_took_in_the_closed_loops_is_that_of_the_attempt_that_counts() -> None:
    loops = iter([closed(each, cpu_us=us) for each, us in ((10_000, 1), (5_000, 2), (8_000, 70), (8_000, 90))])
    found = bench_capacity.take(lambda: next(loops), 0.7, lambda rate: {"a": closed(rate, cpu_us=150)}, "a turn")["a"]
    assert (found["capacity_cpu_us"], found["cpu_us"]) == (80, 150)
    assert [each["capacity_cpu_us"] for each in found["again"]] == [1.5]


def test_p50_and_p99_are_shown_from_the_least_to_the_most_of_the_rounds() -> None:
    turns = [{"p50_us": 100.0, "p99_us": 500.0}, {"p50_us": 90.0, "p99_us": 270.0}, {"p50_us": 95.0, "p99_us": 400.0}]
    found = measured(Scripted([WARM, *[10_000] * 6], turns), rounds=3)
    assert bench_open.rows([found])[0][5:11] == ["80", "90 to 100", "270 to 500", "4.21", "3.00", "5.00"]


def test_a_fixed_rate_is_no_share_of_anything() -> None:
    contender = Scripted([WARM])
    found = measured(contender, rounds=2, share=9_250)
    assert contender.asked == [0, 9_250, 9_250]
    assert found["rate_per_s"] == 9_250
    assert odd(found) == (0, "")
    assert bench_open.rows([found])[0][2:6] == ["9250/s", "-", "-", "-"]
    assert not bench_capacity.is_saturated({**found["rounds"][0], "p50_us": 1e9})


def test_bad_answers_beside_the_turn_count_except_what_had_to_be_refused() -> None:
    loops = iter(
        [closed(10_000, failures=1), closed(5_000, wrong=10), closed(5_000, failures=60), closed(5_000, wrong=40)]
    )
    attempts = iter([{"failures": 5_555, "wrong": 1_000}, {"failures": 10_000, "wrong": 0}])
    rounds = bench_capacity.take(lambda: next(loops), 0.7, lambda rate: {"a": next(attempts)}, "a turn")
    assert bench_serving.bad_answers({"rounds": [rounds["a"]]}) == 11_111


def test_failures_of_a_turn_that_was_within_the_capacity_count_though_it_is_taken_again() -> None:
    loops = iter([closed(10_000), closed(8_000), closed(10_000), closed(7_000), closed(10_000), closed(10_000)])
    attempts = iter([{"failures": each, "wrong": 0} for each in (500, 30, 1)])
    rounds = bench_capacity.take(lambda: next(loops), 0.7, lambda rate: {"a": next(attempts)}, "a turn")
    assert bench_serving.bad_answers({"rounds": [rounds["a"]]}) == 501


def test_nothing_answered_is_a_rate_all_the_same() -> None:
    rates: list[float] = []
    bench_capacity.take(lambda: closed(0), 0.7, lambda rate: rates.append(rate) or {"a": closed(0)}, "a turn")
    assert rates == [0.7]


# -- two tenants -------------------------------------------------------------------------------------------------


class Idle:
    """A pool that runs nowhere."""

    def workers(self, model: str) -> list[dict[str, Any]]:
        return []

    def cpu_s(self) -> dict[str, float]:
        return {}


class Tenant(Scripted):
    server = Idle()


def tenant_round(tenant: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The round, and the conditions in the order in which there were any."""
    conditions: list[str] = []

    @contextlib.contextmanager
    def condition(name: str, *_: Any) -> Iterator[None]:
        conditions.append(name)
        yield

    monkeypatch.setattr(bench_tenants, "_condition", condition)
    return bench_tenants.take_round(tenant, OPTIONS.plan(bench_capacity.AT), "round 1 of 1"), conditions


def test_flooded_and_alone_are_at_one_rate_right_after_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = Tenant([8_000, 7_000])
    found, conditions = tenant_round(tenant, monkeypatch)
    assert tenant.asked == [0, 4_000, 4_000, 0, 4_000]
    assert conditions == [bench_tenants.HALF, bench_tenants.FLOODED, bench_tenants.ALONE]
    assert {each["rate_per_s"] for each in found.values()} == {4_000}
    assert found[bench_tenants.HALF]["capacity_after_per_s"] == 7_000


def test_both_that_are_compared_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = Tenant([8_000, 5_000, 6_000, 6_000], [{"p99_us": float(i)} for i in range(5)])
    found, conditions = tenant_round(tenant, monkeypatch)
    assert tenant.asked == [0, 4_000, 4_000, 0, 0, 3_000, 3_000, 0, 3_000]
    assert conditions == [*[bench_tenants.HALF, bench_tenants.FLOODED] * 2, bench_tenants.ALONE]
    kept = [found[name]["p99_us"] for name in (bench_tenants.HALF, bench_tenants.FLOODED, bench_tenants.ALONE)]
    assert kept == [2, 3, 4]
    assert [len(found[name].get("again", ())) for name in found] == [1, 1, 0]
