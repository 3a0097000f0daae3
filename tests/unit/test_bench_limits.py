"""What the bench of limits makes of its parts: floors, what they allow, what is ours, and the words for it."""

from collections.abc import Sequence
from typing import Any

import bench_limits
import bench_limits_open
import bench_limits_report
import bench_metrics
import pytest
from bench_floor_zmq import Traffic
from bench_limits_report import P50, RATE, Target
from bench_plan import LoopOrder, Plan
from bench_serving import Options
from bench_workloads import Workload

CPUS = 2


def asked(rate: float, cpu_us: float, generator_us: float, p50_us: float = 100.0) -> dict[str, float]:
    return {"requests_per_s": rate, "p50_us": p50_us, "cpu_us": cpu_us, "generator_us": generator_us, "busy_cpus": 1.8}


def part(cpu_us: float, p50_us: float = 0.0) -> dict[str, float]:
    return {"cpu_us": cpu_us, "p50_us": p50_us}


def cell(target: Target, **parts: dict[str, float]) -> dict[str, Any]:
    """A whole way of 150 us at 10,000/s, a plain server of 2,500/s, and a floor of 20 + 40 + 10 + 30 us."""
    median = {
        "whole": {**asked(10_000, 130, 20, 600), "cpu_us of frontend": 80.0, "cpu_us of worker": 45.0},
        "plain": asked(2500, 400, 20, 400),
        "front": asked(30_000, 40, 20, 300),
        "zmq": part(10, 120),
        "tensorflow": part(30, 30),
        **parts,
    }
    rounds = {name: [figures] for name, figures in median.items()}
    return {**target.to_dict(), "requests_per_run": 1.0, "median": median, "rounds": rounds}


def test_the_floor_is_the_sum_of_its_parts_and_the_generator() -> None:
    found = bench_limits_report.limit(cell(Target("tiny", 32, "", RATE, 4)), CPUS)
    assert (found.floor_us, found.whole_us, found.ours_us) == (100, 150, 50)
    assert found.floor == pytest.approx(20_000 / 2500)
    assert found.reached == 4
    assert found.used_cpus == pytest.approx(1.5)
    assert found.full == pytest.approx(2e6 / 150 / 2500)


def test_no_more_than_envoy_answers_by_itself() -> None:
    found = bench_limits_report.limit(cell(Target("tiny", 32, "", RATE, 4), front=asked(15_000, 40, 20)), CPUS)
    assert found.floor == 15_000 / 2500


def test_shared_memory_is_a_part_where_there_is_any() -> None:
    found = bench_limits_report.limit(cell(Target("image", 32, "", RATE, 2), shared=part(100)), CPUS)
    assert found.floor_us == 200
    assert found.floor == pytest.approx(10_000 / 2500)


def test_a_target_below_the_floor_is_told_to_be_within_reach() -> None:
    """6 times 2,500/s leaves 133 us to a request, a hundred of which are not ours."""
    words = bench_limits_report.verdict(cell(Target("tiny", 32, "auto", RATE, 6)), CPUS)
    assert words == (
        "wanted 6x: not out of reach, what is not ours would allow 8.00x (8.00 to 8.00 in single rounds) at the most; "
        "it is 4.00x, with 1.50 of 2 CPUs used, and would be 5.33x with all. "
        "Of 133 us CPU time that a request may take, with all CPUs full, 33 could be ours, and 50 are"
    )


def test_a_target_beyond_the_floor_is_told_to_be_out_of_reach() -> None:
    words = bench_limits_report.verdict(cell(Target("tiny", 32, "auto", RATE, 8.1)), CPUS)
    assert words.startswith("wanted 8.1x: out of reach, what is not ours would allow 8.00x (")
    assert words.endswith("it is 4.00x, with 1.50 of 2 CPUs used, and would be 5.33x with all")


@pytest.mark.parametrize(("zmq_us", "words"), [(120, "out of reach"), (70, "not out of reach")])
def test_one_in_flight_waits_for_each_part(zmq_us: float, words: str) -> None:
    of = cell(Target("tiny", 1, "", P50, 1), zmq=part(10, zmq_us))
    found = bench_limits_report.limit(of, CPUS)
    assert found.floor == pytest.approx((300 + zmq_us + 30) / 400)
    assert found.reached == 1.5
    assert bench_limits_report.verdict(of, CPUS).startswith(f"wanted 1x: {words}, ")


def test_what_may_be_ours_of_the_time_of_one_in_flight() -> None:
    words = bench_limits_report.verdict(cell(Target("tiny", 1, "", P50, 1), zmq=part(10, 20)), CPUS)
    assert words.endswith("it is 1.50x. Of 400 us that it may take, 50 could be ours, and 250 are")


def chained(p50_us: float, *more_us: float) -> dict[str, Any]:
    """One in flight whose chain takes so long in each round, 55 us of CPU time; its parts take 450 us together."""
    of = cell(Target("tiny", 1, "", P50, 1), chain=asked(2600, 55, 20, p50_us))
    for name, rounds in of["rounds"].items():
        rounds += [asked(2600, 55, 20, us) if name == "chain" else rounds[0] for us in more_us]
    return of


def test_a_chain_is_the_floor_of_one_in_flight_and_not_the_sum() -> None:
    of = chained(360)
    found = bench_limits_report.limit(of, CPUS)
    assert (found.floor, found.floor_us, found.ours_us) == (pytest.approx(360 / 400), 75, 75)
    assert bench_limits_report.verdict(of, CPUS) == (
        "wanted 1x: not out of reach, what is not ours takes 0.90x (0.90 to 0.90 in single rounds) of the plain "
        "server's p50 in one chain; it is 1.50x. Of 400 us that it may take, 40 could be ours, and 240 are"
    )


def test_without_a_chain_the_floor_of_one_in_flight_is_the_sum() -> None:
    of = chained(360)
    for figures in (of["median"], of["rounds"]):
        del figures["chain"]
    found = bench_limits_report.limit(of, CPUS)
    assert (found.floor, found.floor_us) == (pytest.approx(450 / 400), 100)
    assert "out of reach, what is not ours takes 1.12x (" in bench_limits_report.verdict(of, CPUS)
    assert "of the plain server's p50 by itself; " in bench_limits_report.verdict(of, CPUS)


@pytest.mark.parametrize(
    ("us", "words"),
    [((410, 420, 430), "out of reach"), ((360, 410, 420), "at the edge of what can be")],
)
def test_each_round_of_a_chain_counts(us: tuple[float, ...], words: str) -> None:
    assert bench_limits_report.verdict(chained(*us), CPUS).startswith(f"wanted 1x: {words}, ")


def test_the_sum_stands_below_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    bench_limits_report.print_report({"cpus": CPUS, "targets": [chained(360)]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][-10:] == ["floor", "75", "20", "-", "-", "-", "-", "2600", "0.90x", "360"]
    assert lines[3] == ["warm", "parts", "100", "20", "40", "10", "30", "-", "-", "1.12x", "450"]
    assert [line[0] for line in lines[4:7]] == ["Envoy+pyvoy", "whole", "plain"]


def test_rounds_on_both_sides_of_what_is_wanted_leave_it_open() -> None:
    of = cell(Target("tiny", 32, "", RATE, 8.1))
    cheaper = {**of["median"], "zmq": part(5)}
    of["rounds"] = {name: [figures, cheaper[name]] for name, figures in of["median"].items()}
    words = bench_limits_report.verdict(of, CPUS)
    assert words.startswith(
        "wanted 8.1x: at the edge of what can be, what is not ours would allow 8.21x (8.00 to 8.42 "
    )


def test_a_round_in_which_all_was_slow_does_not_move_the_floor() -> None:
    of = cell(Target("tiny", 32, "", RATE, 4))
    slow = {name: dict(figures) for name, figures in of["median"].items()}
    for name in ("front", "zmq", "tensorflow"):
        slow[name]["cpu_us"] *= 2
    slow["front"]["generator_us"] *= 2
    slow["plain"]["requests_per_s"] /= 2
    of["rounds"] = {name: [figures, slow[name], figures] for name, figures in of["median"].items()}
    assert bench_limits_report.limit(of, CPUS).floors == pytest.approx((8, 8, 8))


def test_the_tables_show_floor_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    bench_limits_report.print_report({"cpus": CPUS, "targets": [cell(Target("tiny", 32, "", RATE, 4))]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][-10:] == ["floor", "100", "20", "40", "10", "30", "-", "20000", "8.00x", "-"]
    assert lines[3] == ["Envoy+pyvoy", "60", "20", "-", "-", "-", "-", "30000", "300"]
    assert lines[4] == ["whole", "150", "20", "-", "-", "-", "-", "10000", "4.00x", "600"]
    assert lines[5] == ["plain", "420", "20", "-", "-", "-", "-", "2500", "400"]
    ours = next(line for line in lines if "1.50" in line)
    assert ours[-9:] == ["150", "100", "50", "80", "45", "0", "20", "1.50", "1.80"]


def test_names_of_targets() -> None:
    names = [each.name for each in bench_limits_report.TARGETS]
    assert len(set(names)) == len(names)
    assert "tiny, auto, 32 in flight" in names
    assert "image, 32 in flight, generator own" in names


# -- open loop ---------------------------------------------------------------------------------------------------


class Way:
    """Does so many requests/s with 32 in flight, and has the p99 in turn in its open loops, with a p50 of 100 us."""

    def __init__(self, name: str, capacities: Sequence[float], p99_us: Sequence[float], log: list[str]) -> None:
        self.name = name
        self._capacities = iter((0, *(each for of in capacities for each in (of, of))))  # the first is the warm one
        self._p99_us = iter(p99_us)
        self._log = log

    def serves(self, workload: Workload) -> bool:
        return workload.name == "tiny"

    def load(self, workload: Workload, plan: Plan) -> dict[str, Any]:
        assert plan.generator == "own"
        figures = {"failures": 0, "wrong": 0, "generator": "own", "generator_cpu": 0.1, "late_p99_us": 1.0}
        if not plan.rate_per_s:
            return {**figures, **asked(next(self._capacities), 80, 20)}
        self._log.append(f"{self.name} at {plan.rate_per_s:.0f}/s")
        return {**figures, **asked(plan.rate_per_s, 150, 30), "p99_us": next(self._p99_us)}


def open_loops(*chain_us: float) -> tuple[dict[str, Any], list[str]]:
    log: list[str] = []
    count = len(chain_us)
    ways = {
        "whole": Way("envoy", [10_000] * count, [510.0] * count, log),
        "plain": Way("plain", [3_000] * count, [300.0] * count, log),
        "chain": Way("chain of tiny", [8_000] * count, chain_us, log),
    }
    return bench_limits_open.measure(ways, 0.7, "poisson", Options(count, 1, 1, 4, seed=1, generator="h2load")), log


def test_the_three_ways_take_turns_each_at_a_share_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    cells, log = open_loops(200, 600)
    assert log == ["envoy at 7000/s", "plain at 2100/s", "chain of tiny at 5600/s"] * 2
    assert {name: cell["server"] for name, cell in cells.items()} == {
        "whole": "envoy",
        "plain": "plain",
        "chain": "chain of tiny",
    }
    capsys.readouterr()
    bench_limits.print_report({"cpus": CPUS, "targets": [chained(360)], "open": cells})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == bench_limits_open.verdict(cells)
    row = next(line.split() for line in reversed(lines) if line.startswith("tiny  ") and "chain of tiny" in line)
    assert row[4:8] == ["5600/s", "8000/s", "8000/s", "80"]
    assert " ".join(row[8:]) == "100 to 100 200 to 600 4.00 2.00 6.00 0 -"


def test_the_words_for_an_open_loop() -> None:
    assert bench_limits_open.verdict(open_loops(200, 400, 600)[0]) == (
        "tiny, open loop at 70 % of capacity: wanted p99 at most 5x p50; "
        "the whole way has 5.10x (kept in 0 of 3 rounds); the plain server has 3.00x (kept in 3 of 3 rounds); "
        "the chain of what is not ours has 4.00x (kept in 2 of 3 rounds)"
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"p50_us": 9_000.0, "p99_us": 9_000.0}, "was saturated (kept in 1 of 3 rounds, 2 of 3 saturated)"),
        ({"capacity_after_per_s": 5_000.0}, "has no figure (kept in 3 of 3 rounds, 2 of 3 unsteady)"),
        ({"failures": 3}, "has 2.00x (kept in 1 of 3 rounds, 6 bad)"),
        ({"wrong": 1}, "has 2.00x (kept in 1 of 3 rounds, 2 bad)"),
    ],
)
def test_odd_rounds_of_an_open_loop_are_judged_as_by_the_target(changed: dict[str, float], words: str) -> None:
    cells, _ = open_loops(200, 200, 200)
    for each in cells["chain"]["rounds"][:2]:
        each.update(changed)
    assert bench_limits_open.verdict(cells).endswith(f"; the chain of what is not ours {words}")


# -- parts -------------------------------------------------------------------------------------------------------


def test_messages_of_zeromq_hold_as_many_requests_as_are_sent_together() -> None:
    one, sixteen = (Traffic(32, burst, request_bytes=60, reply_bytes=50) for burst in (1, 16))
    assert (one.messages, sixteen.messages) == (32, 2)
    assert (len(one.request()[1]), len(one.reply()[1])) == (60, 50)
    assert len(sixteen.request()[1]) > 16 * 60
    assert len(sixteen.reply()[1]) > 16 * 50


def test_a_shared_payload_does_not_travel() -> None:
    head, empty, reference = Traffic(32, 1, 600_000, 50, shared=True).request()
    assert (len(empty), len(head) + len(reference) < 100) == (0, True)


def test_orders_of_a_loop_are_read_as_they_were_written() -> None:
    order = LoopOrder(0.5, 1.0, 2, 16, 32)
    assert LoopOrder.read(order.line()) == order
    assert LoopOrder.read("1 3.5\n") == LoopOrder(1, 3.5, 1, 1, 1)


PAGE = """\
modelpool_batch_requests_bucket{model="m",version="1",le="8"} 2
modelpool_batch_requests_sum{model="m",version="1"} 30
modelpool_batch_requests_count{model="m",version="1"} 2
modelpool_batch_requests_sum{model="m",version="2"} 6
modelpool_batch_requests_count{model="m",version="2"} 1
modelpool_batch_requests_sum{model="other",version="1"} 99
"""


def test_requests_of_a_run_over_all_versions() -> None:
    totals = bench_metrics.read_batches(PAGE, "m")
    assert totals.mean() == 12
    assert totals.since(bench_metrics.BatchTotals(30, 2)).mean() == 6
    assert totals.since(totals).mean() == 0
