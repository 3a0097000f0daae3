"""What `scripts/bench --what=metrics` and `--what=replicas` say of figures, from made-up rounds."""

from typing import Any

import bench_monitoring
import bench_replicas
import bench_serving
import pytest
from bench_monitoring import OFF, ON
from bench_replicas import LOOP_ONE, LOOP_TWO, ONE, TWO


def cell(workload: str, server: str, rate: float, cpu_us: float) -> dict[str, Any]:
    figures = {"p50_us": 1.0, "p99_us": 2.0, "failures": 0, "wrong": 0, "generator_cpu": 0.1, "generator": "own"}
    found = bench_serving.cell(server, [{**figures, "requests_per_s": rate, "cpu_us": cpu_us}])
    return {"workload": workload, "in_flight": 8, **found}


@pytest.mark.parametrize(("code_us", "verdict"), [(1.9, "pass"), (2.1, "FAIL")])
def test_metrics_may_take_two_percent(code_us: float, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell("tiny", ON, 99, 101.5), cell("tiny", OFF, 100, 100)]
    shares = {"tiny": bench_monitoring.shares(cells, "tiny")}
    assert shares["tiny"] == {"requests_per_s": pytest.approx(0.01), "cpu_us": pytest.approx(0.015)}
    report = {"cells": cells, "code_us": {"worker": code_us - 1, "frontend": 1.0}, "shares": shares}
    assert bench_monitoring.code_share(report, "tiny") == pytest.approx(code_us / 100)
    bench_monitoring.print_report(report)
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert (last[0], last[-1]) == ("tiny", verdict)
    assert last[1:3] == ["+1.0%", "+1.5%"]


@pytest.mark.parametrize(
    ("two", "failures", "verdicts"),
    [(190, 0, ["pass", "pass"]), (170, 0, ["FAIL", "pass"]), (190, 3, ["pass", "FAIL"])],
)
def test_two_replicas_are_held_against_what_the_machine_gives(
    two: float, failures: int, verdicts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell("conv", name, rate, 1) for name, rate in ((ONE, 100), (TWO, two), (LOOP_ONE, 50), (LOOP_TWO, 95))]
    kill = {
        "back_s": 0.3,
        "requests_per_s": 90,
        "answers": 500,
        "failures": failures,
        "wrong": 0,
        "p99_us": 1,
        "max_us": 2,
    }
    report = {"cells": cells, "cpus": [0, 1], "one_core": False, "times": two / 100, "machine_times": 1.9, "kill": kill}
    bench_replicas.print_report(report)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.endswith((": pass)", ": FAIL)", ": pass);", ": FAIL);"))]
    assert [line.rstrip(";").rstrip(")").rpartition(" ")[2] for line in lines] == verdicts
