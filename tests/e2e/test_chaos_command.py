"""`modelpool chaos` against a real pool: what it hurts, what it measures, and whom it leaves alone."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pool import MODELPOOL, Pool, model_config, running_pool


def chaos(pool: Pool, *arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    done = run_chaos(pool, *arguments)
    return done.returncode, done.stdout


def run_chaos(pool: Pool, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [MODELPOOL, "chaos", *arguments, f"--runtime_dir={pool.runtime_dir}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def measured(pool: Pool, *arguments: str) -> Any:
    """The report of a run that harmed nobody else."""
    code, text = chaos(pool, *arguments, "--baseline_s=1", "--clients=2", "--json")
    assert code == 0, text
    return json.loads(text)


@pytest.fixture(scope="module")
def hurt_pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    names = ("half_plus_two", "demo")
    settings = tmp_path_factory.mktemp("chaos") / "pool.toml"
    settings.write_text("[models.demo]\nhost_memory_mb = 400\n")
    config = model_config({name: models / name for name in names})
    with running_pool(config, "--allow_chaos", f"--pool_config_file={settings}") as pool:
        pool.wait_available(*names)
        yield pool


def test_kills_hurt_one_model_only(hurt_pool: Pool) -> None:
    report = measured(hurt_pool, "--kill=half_plus_two", "--duration_s=2", "--every_s=1")
    models = {model["name"]: model for model in report["models"]}
    assert set(models) == {"half_plus_two", "demo"}
    assert models["half_plus_two"]["hurt"]
    assert models["demo"]["during"]["errors"] == {}
    for model in models.values():
        assert model["before"]["calls"] > 0
        assert model["before"]["errors"] == {}
        assert model["during"]["p99_ms"] >= model["during"]["p50_ms"] > 0
    assert report["hurts"]
    assert report["restarts"] == len(report["hurts"])
    for hurt in report["hurts"]:
        assert hurt["available_after_s"] >= hurt["load_s"] + hurt["warmup_s"] > 0


def test_a_poison_kills_twice_and_is_refused(hurt_pool: Pool) -> None:
    before = hurt_pool.worker("half_plus_two", 123)
    report = measured(hurt_pool, "--poison=half_plus_two", "--duration_s=2")
    assert report["poison"]["code"] == "FAILED_PRECONDITION", report
    assert report["restarts"] == 2, "it dies of the poison, and of its second try, and not again"
    for model in report["models"]:
        assert model["during"]["errors"] == {}, "whoever was not guilty is answered"
    after = hurt_pool.worker("half_plus_two", 123)
    assert after["pid"] != before["pid"]
    assert "SIGABRT" in after["last_exit"]["cause"]


def test_a_worker_runs_out_of_its_memory(hurt_pool: Pool) -> None:
    report = measured(hurt_pool, "--oom=demo", "--duration_s=1")
    (hurt,) = report["hurts"]
    assert hurt["available_after_s"] is not None
    # Which of the two comes first depends on when its memory is looked at; both end the process that grew.
    ends = ("over its memory limit of 400 MiB", "replaced before it is over its memory limit")
    assert any(end in hurt_pool.log for end in ends)
    assert hurt_pool.worker("demo", 1)["incarnation"] > 2


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--kill=nobody"], 1, "modelpool chaos: no model nobody: expected one of half_plus_two, demo\n"),
        (
            ["--leak=half_plus_two", "--baseline_s=0.1"],
            1,
            "modelpool chaos: model half_plus_two has no host_memory_mb in --pool_config_file to run out of\n",
        ),
        (["--kill=demo", "--stop=demo"], 2, "argument --stop: not allowed with argument --kill\n"),
        (["--duration_s=1"], 2, "one of the arguments --kill --stop --oom --leak --poison is required\n"),
        (["--kill=demo", "--every_s=0"], 2, "argument --every_s: expected a number above 0, got 0\n"),
    ],
)
def test_what_is_refused(hurt_pool: Pool, arguments: list[str], code: int, text: str) -> None:
    done = run_chaos(hurt_pool, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.endswith(text)
