"""What the benches make of their figures: tables, targets, profile and picture, from made-up rounds."""

import contextlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bench
import bench_contenders
import bench_metrics
import bench_options
import bench_picture
import bench_profile
import bench_serving
import bench_stacks
import bench_targets
import bench_threads
import pytest
from bench_contenders import Pool
from bench_plan import Plan
from bench_workloads import Workload

SVG = "{http://www.w3.org/2000/svg}"


def rounds(rates: list[float], p50_us: float = 100, generator: str = "own") -> list[dict[str, Any]]:
    other = {"p99_us": 3 * p50_us, "failures": 0, "wrong": 0, "generator_cpu": 0.1, "cpu_us": 50.0}
    return [{"requests_per_s": rate, "p50_us": p50_us, **other, "generator": generator} for rate in rates]


def cell(workload: str, in_flight: int, server: str, rates: list[float], p50_us: float = 100) -> dict[str, Any]:
    found = bench_serving.cell(server, rounds(rates, p50_us))
    return {"workload": workload, "in_flight": in_flight, **found}


def report(**sections: Any) -> dict[str, Any]:
    return {"options": {"engines": ["envoy"], "what": ["targets"]}, "machine": {"cpus": 2}, **sections}


def row(of: dict[str, Any], what: str) -> bench_targets.Row:
    (found,) = [each for each in bench_targets.rows(of) if each.what.startswith(what)]
    return found


# -- cells and tables --------------------------------------------------------------------------------------------


def test_a_comparison_by_different_generators_is_refused() -> None:
    with pytest.raises(SystemExit, match="different generators"):
        bench_serving.cell("envoy", rounds([1.0]) + rounds([1.0], generator="h2load"))


def test_rows_show_how_many_times_the_plain_server_it_is() -> None:
    cells = [cell("tiny", 32, "envoy", [400, 100, 400]), cell("tiny", 32, "plain", [100, 25, 100])]
    ours, plain = bench_serving.rows(cells)
    assert ours[:5] == ["tiny", "32 in flight", "envoy", "400 (4.00x)", "100"]
    assert plain[3] == "100"


# -- targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "passed"), [(400, True), (399, False)])
def test_requests_per_s_against_the_plain_server(rate: float, passed: bool) -> None:
    of = report(serving=[cell("tiny", 32, "envoy", [rate]), cell("tiny", 32, "plain", [100])])
    found = row(of, "tiny, 32 in flight, envoy:")
    assert (found.value, found.passed) == (pytest.approx(rate / 100), passed)
    assert found.measured == f"{rate}/s / 100/s"


@pytest.mark.parametrize(("p50_us", "passed"), [(100, True), (101, False)])
def test_latency_against_the_plain_server(p50_us: float, passed: bool) -> None:
    of = report(serving=[cell("tiny", 1, "envoy", [1], p50_us), cell("tiny", 1, "plain", [1], 100)])
    assert row(of, "tiny, 1 in flight, envoy:").passed is passed


def test_what_was_not_measured_neither_passes_nor_fails() -> None:
    found = bench_targets.rows(report())
    assert len(found) == 11
    assert {each.passed for each in found} == {None}
    assert {each.measured for each in found} == {bench_targets.NOT_MEASURED}


def test_the_pool_without_engines_is_called_pool() -> None:
    of = report(serving=[cell("conv", 8, "pool", [97]), cell("conv", 8, "loop", [100])])
    of["options"]["engines"] = [""]
    assert row(of, "conv, 8 in flight, pool").passed is True


@pytest.mark.parametrize(("growth_mib", "passed"), [(9.9, True), (10.1, False), (-3, True)])
def test_growth(growth_mib: float, passed: bool) -> None:
    """What counts is what it may be at most."""
    growth = {"growth_bytes": 0, "growth_least_bytes": -(2**20), "growth_most_bytes": growth_mib * 2**20}
    assert row(report(growth={**growth, "requests": 10_000}), "image: growth").passed is passed


def turn(p50_us: float, p99_us: float, before: float = 10_000, after: float = 10_000) -> dict[str, Any]:
    """A round at 70 % of what the server could do before; of 10,000/s 32 in flight take 3.2 ms each."""
    paces = {"capacity_per_s": before, "rate_per_s": 0.7 * before, "capacity_after_per_s": after}
    return {**rounds([0.7 * before], p50_us)[0], "p99_us": p99_us, **paces}


def opened(*turns: dict[str, Any]) -> dict[str, Any]:
    load = {"workload": "tiny", "in_flight": 32, "rate_per_s": 7000, "share": 0.7}
    return report(open=[{**load, **bench_serving.cell("envoy", list(turns))}])


def tenants(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """Rounds beside B, and alone."""
    cells = [bench_serving.cell("envoy", list(each)) for each in zip(*pairs, strict=True)]
    return report(tenants={"conditions": dict(zip(bench_targets.FLOODED_AND_ALONE, cells, strict=True))})


@pytest.mark.parametrize(("p99_us", "passed"), [(500, True), (501, False)])
def test_open_loop(p99_us: float, passed: bool) -> None:
    assert row(opened(turn(100, p99_us)), "tiny, open loop").passed is passed


def test_an_open_loop_is_judged_by_the_ratios_of_its_rounds() -> None:
    """Not by the ratio of the medians, which is 3 here."""
    found = row(opened(turn(100, 600), turn(200, 600), turn(300, 1200)), "tiny, open loop")
    assert (found.value, found.measured) == (4, "600 us / 200 us")


def test_an_open_loop_that_was_saturated_fails() -> None:
    """It stood still, or did less than the closed loops around it, whatever the ratio is then."""
    found = row(opened(turn(3300, 3400)), "tiny, open loop")
    assert (found.passed, found.measured) == (False, "3400 us / 3300 us: 1 of 1 saturated")


def test_an_open_loop_says_what_it_was_at() -> None:
    found = opened(turn(100, 300))
    for share, words in ((0.7, "at 70 % of capacity, "), (0.35, "at 35 % of capacity, "), (500, "at 500/s, ")):
        found["open"][0]["share"] = share
        assert words in row(found, "tiny, open loop").what


def test_each_round_is_saturated_by_its_own_capacity() -> None:
    """At 5,000/s 32 in flight take 6.4 ms; between 10,000 and 9,000/s 3.37."""
    slow = turn(6300, 25_200, 5_000, 5_000)
    assert row(opened(slow), "tiny, open loop").value == 4
    assert row(opened({**slow, "p50_us": 6500}), "tiny, open loop").value == math.inf
    assert row(opened(turn(3300, 13_200, 10_000, 9_000)), "tiny, open loop").value == 4
    assert row(opened(turn(3400, 13_600, 10_000, 9_000)), "tiny, open loop").value == math.inf


@pytest.mark.parametrize(
    ("p50_us", "swing", "saturated"),
    [(3300, 1.4, False), (3300, 1.6, True), (3100, 1.6, False), (4500, 1.0, False), (4600, 1.0, True)],
)
def test_a_queue_that_stays_as_it_is_is_no_saturation(p50_us: float, swing: float, saturated: bool) -> None:
    """Unless there are more than 32 at a time: of 7,000/s, of which each takes 4.57 ms."""
    found = row(opened({**turn(p50_us, 3 * p50_us), "swing": swing}), "tiny, open loop")
    assert found.value == (math.inf if saturated else 3)
    assert found.measured.endswith(": 1 of 1 longer than 32 in flight") is (p50_us > 3200 and not saturated)


@pytest.mark.parametrize(("other_us", "passed"), [(450, True), (600, False)])
def test_a_saturated_round_helps_nothing(other_us: float, passed: bool) -> None:
    """Its own ratio is 1: were that taken as it is, the middle one would be 4 in both."""
    found = row(opened(turn(3300, 3300), turn(100, 400), turn(100, other_us)), "tiny, open loop")
    assert (found.value, found.passed) == (other_us / 100, passed)
    assert found.measured.endswith(": 1 of 3 saturated")
    assert row(opened(turn(3300, 3300), turn(3300, 3300), turn(100, other_us)), "tiny, open loop").value == math.inf


@pytest.mark.parametrize("after", [8_000, 13_000])
def test_unsteady_rounds_count_and_are_said(after: float) -> None:
    odd, bad = turn(100, 700, after=after), turn(100, 600)
    found = row(opened(bad, odd, turn(100, 300)), "tiny, open loop")
    assert (found.value, found.passed, found.measured) == (6, False, "600 us / 100 us: 1 of 3 unsteady")
    mostly = row(opened(bad, odd, odd), "tiny, open loop")
    assert (mostly.passed, mostly.measured) == (None, "700 us / 100 us: 2 of 3 unsteady")


def test_two_tenants_are_compared_by_rounds() -> None:
    alone = [turn(100, p99_us) for p99_us in (1000, 2000, 3000)]
    flooded = [turn(100, p99_us) for p99_us in (1600, 2000, 4800)]
    found = row(tenants(*zip(flooded, alone, strict=True)), "two tenants")
    assert (found.value, found.passed, found.measured) == (1.6, False, "2000 us / 2000 us")


def test_two_tenants_of_whom_one_was_saturated_alone() -> None:
    found = row(tenants((turn(9000, 9900), turn(3300, 3400))), "two tenants")
    assert (found.passed, found.measured) == (None, "9900 us / 3400 us: 1 of 1 saturated")
    assert row(tenants((turn(9000, 9900), turn(3100, 3400))), "two tenants").passed is False


@pytest.mark.parametrize("which", ["failures", "wrong"])
def test_with_bad_answers_in_one_round_of_three_nothing_has_passed(which: str) -> None:
    """Refusals are quick, and those that are never answered have no latency."""
    spoilt = cell("tiny", 32, "envoy", [500, 500, 500])
    spoilt["rounds"][1][which] = 7
    plain = cell("tiny", 32, "plain", [100, 100, 100])
    assert bench_serving.rows([spoilt, plain])[0][8] == "7"
    found = row(report(serving=[spoilt, plain]), "tiny, 32 in flight, envoy:")
    assert (found.value, found.passed, found.measured) == (pytest.approx(5), False, "500/s / 100/s: 7 bad")
    bad = {**turn(100, 200), which: 7}
    loop = row(opened(turn(100, 200), bad, turn(100, 200)), "tiny, open loop")
    assert (loop.passed, loop.bad) == (False, 7)
    found = row(tenants((turn(10, 20), turn(10, 20)), (bad, bad)), "two tenants")
    assert (found.passed, found.bad, found.measured) == (False, 14, "110 us / 110 us: 14 bad")


@pytest.mark.parametrize(
    ("rss_bytes", "tensorflow", "passed"), [(119e6, False, True), (121e6, False, False), (50e6, True, False)]
)
def test_frontend(rss_bytes: float, tensorflow: bool, passed: bool) -> None:
    processes = [
        {"role": "frontend", "rss_bytes": rss_bytes, "tensorflow": tensorflow},
        {"role": "worker tiny 1", "rss_bytes": 1e9, "tensorflow": True},
    ]
    assert row(report(memory={"envoy": processes}), "frontend").passed is passed


class Counted:
    """Does 1,000/s, and notes each of its turns, by the bench's one list."""

    def __init__(self, name: str, only: str, turns: list[tuple[str, int, str]]) -> None:
        self.name = name
        self._only = only
        self._turns = turns

    def serves(self, workload: Workload) -> bool:
        return self._only in ("", workload.name)

    def load(self, workload: Workload, plan: Plan) -> dict[str, Any]:
        self._turns.append((workload.name, 0 if plan.rate_per_s else plan.in_flight, self.name))
        return {**rounds([plan.rate_per_s or 1_000])[0], "late_p99_us": 1.0}


def test_of_unequal_rounds_those_that_both_have_are_compared_and_shown() -> None:
    ours, plain = rounds([1, 1, 1, 1], 100.0), rounds([1, 1], 200.0)
    for each in ours[2:]:
        each["p50_us"] = 900.0
    cells = [
        {"workload": "tiny", "in_flight": 1, **bench_serving.cell(name, each)}
        for name, each in (("envoy", ours), ("plain", plain))
    ]
    found = row(report(serving=cells), "tiny, 1 in flight, envoy: p50")
    assert (found.value, found.measured) == (0.5, "100 us / 200 us")


def test_what_swings_most_has_three_times_the_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those two contenders alone that are compared, and these right after each other once they are alone."""
    turns: list[tuple[str, int, str]] = []
    names = ("envoy", "envoy+auto", "plain", "loop", "loop+2 threads")
    contenders = [Counted(name, "conv" if name.startswith("loop") else "", turns) for name in names]
    monkeypatch.setattr(bench_contenders, "running", lambda *_: contextlib.nullcontext(contenders))
    found: dict[str, Any] = {}
    bench.measure_contenders(bench_options.parse(["--what=targets", "--rounds=2", "--engines=envoy"]), tmp_path, found)
    counts = Counter((each["workload"], each["server"], len(each["rounds"])) for each in found["serving"])
    common = [(name, server, 2) for name in ("tiny", "mlp", "image") for server in names[:3]]
    lone = [("tiny", name, 2 if name == "plain" else 6) for name in names[:3]]
    conv_counts = [("conv", name, 6 if name in ("envoy", "loop") else 2) for name in names]
    assert counts == Counter([*common, *lone, *conv_counts])
    alone = [server for name, in_flight, server in turns if (name, in_flight) == ("tiny", 1)]
    assert alone == [*names[:3] * 2, *names[:2] * 4]
    conv = [server for name, _, server in turns if name == "conv"]
    assert conv == [*names * 2, *["envoy", "loop"] * 4]
    (opened_cell,) = found["open"]
    assert (opened_cell["workload"], opened_cell["server"], len(opened_cell["rounds"])) == ("tiny", "envoy", 6)


# -- picture -----------------------------------------------------------------------------------------------------


def test_the_picture_has_a_bar_as_long_as_its_ratio() -> None:
    of = report(
        serving=[cell("tiny", 32, "envoy", [400]), cell("tiny", 32, "plain", [100]), cell("tiny", 32, "loop", [9])]
    )
    bars = [each for each in ElementTree.fromstring(bench_picture.render(of)).iter(f"{SVG}rect")][3:]
    ours, plain = (float(bar.get("width", "")) for bar in bars)
    assert ours == pytest.approx(4 * plain, abs=0.5)


def test_the_picture_follows_from_the_report_alone() -> None:
    of = report(serving=[cell("a<b", 1, "envoy", [3, 4]), cell("a<b", 1, "plain", [1, 2])])
    assert bench_picture.render(of) == bench_picture.render(json.loads(json.dumps(of)))
    texts = [each.text for each in ElementTree.fromstring(bench_picture.render(of)).iter(f"{SVG}text")]
    assert "a<b, 1 in flight" in texts


def test_a_plain_server_that_answered_nothing_is_no_measure() -> None:
    cells = [cell("tiny", 32, "envoy", [400]), cell("tiny", 32, "plain", [0])]
    assert row(report(serving=cells), "tiny, 32 in flight, envoy:").passed is False
    with pytest.raises(ValueError, match="no figures"):
        bench_picture.render(report(serving=cells))


def test_no_picture_without_a_plain_server() -> None:
    with pytest.raises(ValueError, match="no figures of a plain server"):
        bench_picture.render(report(serving=[cell("tiny", 1, "envoy", [1])]))


# -- profile -----------------------------------------------------------------------------------------------------

PAGE = """\
# TYPE modelpool_request_stage_seconds histogram
modelpool_request_stage_seconds_bucket{model="m",version="1",method="predict",stage="queue",le="0.1"} 2
modelpool_request_stage_seconds_sum{model="m",version="1",method="predict",stage="queue"} 0.5
modelpool_request_stage_seconds_count{model="m",version="1",method="predict",stage="queue"} 2
modelpool_request_stage_seconds_sum{model="m",version="2",method="predict",stage="queue"} 0.25
modelpool_request_stage_seconds_count{model="m",version="2",method="predict",stage="queue"} 1
modelpool_request_stage_seconds_sum{model="other",version="1",method="predict",stage="queue"} 9
"""


def test_stages_are_read_over_all_versions() -> None:
    totals = bench_metrics.read_stages(PAGE, "m")
    assert (totals.seconds, totals.counts) == ({"queue": 0.75}, {"queue": 3})


def test_stages_since_an_earlier_look() -> None:
    before = bench_metrics.StageTotals({"queue": 0.25}, {"queue": 1})
    since = bench_metrics.read_stages(PAGE, "m").since(before)
    assert since.mean_us() == {"queue": 250_000}
    assert bench_metrics.read_stages(PAGE, "m").since(bench_metrics.read_stages(PAGE, "m")).mean_us() == {}


@pytest.mark.parametrize("in_flight", [1, 32])
def test_the_parts_of_the_way_add_up_to_the_whole(in_flight: int) -> None:
    stages = {"queue": 50.0, "deserialize": 20.0, "execute": 30.0, "serialize": 10.0}
    parts = bench_profile.Way(500, 200, stages).parts(in_flight)
    assert sum(us for _, us in parts) == pytest.approx(500)
    assert [us for name, us in parts if name.startswith("worker")] == [20, 30, 10]
    assert parts[-1][1] == (190 if in_flight == 1 else 390)


def test_threads_per_request() -> None:
    def times(ran_ns: int, waited_ns: int) -> bench_threads.ThreadTime:
        return bench_threads.ThreadTime("main", ran_ns, waited_ns)

    before = {("frontend", 1): times(1000, 0), ("worker", 2): times(0, 0)}
    after = {("frontend", 1): times(101_000, 20_000), ("worker", 2): times(50, 0), ("worker", 3): times(400_000, 0)}
    assert bench_threads.per_request(before, after, 10) == [
        {"process": "worker", "thread": "main", "cpu_us": pytest.approx(40.005), "waited_us": 0},
        {"process": "frontend", "thread": "main", "cpu_us": 10, "waited_us": 2},
    ]


def test_stacks_by_function() -> None:
    folded = ["run (a/b/main.py:3);send (/x/y/zmq.py:7) 3", "run (a/b/main.py:4) 1", "not a stack"]
    assert bench_stacks.by_function(folded) == [
        {"function": "send (y/zmq.py)", "own": 0.75, "total": 0.75},
        {"function": "run (b/main.py)", "own": 0.25, "total": 1.0},
    ]


# -- contenders and options --------------------------------------------------------------------------------------


def test_names_of_pools() -> None:
    assert [each.name for each in (Pool(), Pool("envoy", "auto"), Pool("grpcio", replicas=2))] == [
        "pool",
        "envoy+auto",
        "grpcio+x2",
    ]


def test_a_pool_that_the_server_cannot_be_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_contenders, "settings_known", lambda: {"frontends", "replicas"})
    found = bench_contenders.pools([""], auto=True, replicas=2, frontends=2)
    assert [each.name for each in found] == ["pool", "pool+x2"]
    assert "pool+auto: left out, this server does not know batching" in capsys.readouterr().out


def test_quick_makes_less_of_what_was_not_asked_for() -> None:
    args = bench_options.parse(["--quick", "--rounds=2"])
    assert (args.rounds, args.duration_s, args.in_flight) == (2, 0.5, [1, 32])


@pytest.mark.parametrize("argument", ["--what=nothing", "--workloads=tiny,x", "--rounds=0", "--in_flight=0"])
def test_wrong_options_end_the_program(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_options.parse([argument])
    assert ended.value.code == 2
    assert argument.partition("=")[0] in capsys.readouterr().err


def test_the_limits_are_those_of_one_frontend(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_options.parse(["--what=limits", "--frontends=2"])
    assert "--frontends must be 1" in capsys.readouterr().err
