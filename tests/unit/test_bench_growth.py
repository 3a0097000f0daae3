"""What the bench of growth says of series of resident memory: recorded ones, and those with a leak laid over them."""

import bench_growth
import bench_targets
import pytest

MIB = 1024 * 1024
# What a frontend held at twenty marks of two recorded runs, MiB, each time all had been quiet for some seconds.
# fmt: off
RUNS = (
    (103.0, 99.9, 100.1, 102.1, 100.8, 100.8, 100.4, 100.4, 101.7, 102.3,
     102.3, 102.3, 96.7, 98.7, 101.6, 101.9, 99.1, 99.1, 99.6, 102.1),
    (94.2, 96.3, 92.4, 95.5, 97.5, 103.6, 101.1, 101.1, 97.1, 95.6,
     95.6, 97.6, 99.6, 103.6, 103.6, 103.6, 95.1, 97.1, 97.1, 97.1),
)
# fmt: on
REQUESTS = 30_000
LIMIT = 10 * MIB


def marks(run: int = 0, leak_bytes: float = 0, worker_leak_bytes: float = 0) -> bench_growth.Marks:
    """A recorded frontend and a steady worker, and so many bytes lost by each request."""
    quiet = RUNS[run]
    steps = [(i * REQUESTS // (len(quiet) - 1), mib * MIB) for i, mib in enumerate(quiet)]
    return [
        (done, {"frontend 1": int(held + done * leak_bytes), "worker 2": int(200 * MIB + done * worker_leak_bytes)})
        for done, held in steps
    ]


def passes(report: dict[str, object]) -> bool | None:
    of = {"options": {"engines": ["envoy"]}, "growth": report}
    (found,) = [row for row in bench_targets.rows(of) if row.what.startswith("image: growth")]
    return found.passed


@pytest.mark.parametrize("run", range(len(RUNS)))
def test_what_comes_and_goes_is_no_growth(run: int) -> None:
    found = bench_growth.trends(marks(run))
    assert found["requests"] == REQUESTS
    assert found["growth_least_bytes"] < 0 < found["growth_most_bytes"] < LIMIT / 3
    assert passes(found)


@pytest.mark.parametrize("run", range(len(RUNS)))
@pytest.mark.parametrize("leak_bytes", [1024, 2048])
def test_a_leak_of_a_kilobyte_a_request_is_seen_and_fails(run: int, leak_bytes: int) -> None:
    found = bench_growth.trends(marks(run, leak_bytes))
    lost = leak_bytes * bench_growth.PER
    assert lost / 2 < found["growth_least_bytes"] < lost < found["growth_most_bytes"]
    assert found["growth_bytes"] == pytest.approx(lost, abs=1.5 * MIB)
    assert not passes(found)


@pytest.mark.parametrize("run", range(len(RUNS)))
def test_half_a_kilobyte_is_seen_and_told_from_the_limit(run: int) -> None:
    found = bench_growth.trends(marks(run, 512))
    assert found["growth_least_bytes"] > 0
    assert passes(found)


def test_each_process_has_its_own_trend() -> None:
    processes = bench_growth.trends(marks(worker_leak_bytes=2048))["processes"]
    assert processes["frontend 1"]["growth_least_bytes"] < 0
    assert processes["worker 2"]["growth_least_bytes"] == pytest.approx(2048 * bench_growth.PER, rel=1e-3)


@pytest.mark.parametrize(
    "held", [{"frontend 1": 100 * MIB}, {"frontend 1": 100 * MIB, "worker 2": 200 * MIB, "worker 3": MIB}]
)
def test_a_process_that_was_not_there_all_the_time_leaves_no_verdict(held: dict[str, int]) -> None:
    recorded = list(marks())
    recorded[3] = (recorded[3][0], held)
    with pytest.raises(SystemExit, match=r"no figures of growth: not there at all marks: worker [23]"):
        bench_growth.trends(recorded)


def test_the_table_has_the_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    bench_growth.print_report({"workload": "image", **bench_growth.trends(marks(leak_bytes=2048))})
    frontend = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("frontend"))
    assert frontend.split()[-3:] == ["+19.35", "+18.55", "+20.28"]
