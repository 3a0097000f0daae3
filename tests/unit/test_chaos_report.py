"""The blast radius: what counts as harm to others, and the table for people."""

import pytest

from modelpool.supervisor.chaos_report import Hurt, ModelReport, Report, Seen, of_model, render

CALM = Seen(1000, {}, 2.0, 5.0)
LOST = Seen(800, {"UNAVAILABLE": 3}, 2.0, 6.0)


def report(*models: ModelReport) -> Report:
    return Report("a", "kill", 2, models=list(models))


def test_only_errors_of_the_others_are_harm() -> None:
    victim = of_model("a", True, CALM, LOST, [])
    assert not report(victim, of_model("b", False, LOST, CALM, [])).others_harmed
    assert report(victim, of_model("b", False, CALM, LOST, [])).others_harmed


def test_beyond_load() -> None:
    assert Hurt(1.0, 2.5, 1.5, 0.25).beyond_load_s == pytest.approx(0.75)
    assert Hurt(1.0, None, None, None).beyond_load_s is None


def test_the_table() -> None:
    made = report(of_model("b", False, CALM, CALM, []), of_model("a", True, CALM, LOST, ["UNAVAILABLE: died"]))
    made.hurts = [Hurt(0.0, 0.5, 0.3, 0.1), Hurt(3.0, None, None, None)]
    made.restarts = 2
    made.unprobed = {"c": "NOT_FOUND: no such model"}
    lines = [line.split() for line in render(made).splitlines()]
    assert lines[2] == ["a", "hurt", "1000", "0", "2.0", "5.0", "800", "3", "2.0", "6.0", "1.20"]
    assert lines[3] == ["b", "1000", "0", "2.0", "5.0", "1000", "0", "2.0", "5.0", "1.00"]
    assert render(made).splitlines()[4:] == [
        "a: UNAVAILABLE: died",
        "c: not asked: NOT_FOUND: no such model",
        "restarts: 2",
        "kill 1: available after 0.50 s, 0.10 s beyond load and warmup",
        "kill 2: not available again in time",
    ]


def test_the_poison_s_answer_is_told() -> None:
    made = report()
    made.poison = {"code": "INVALID_ARGUMENT", "message": "it has killed two workers"}
    assert "the poison was answered with INVALID_ARGUMENT: it has killed two workers" in render(made)
