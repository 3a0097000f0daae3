"""`modelpool plan`: what would go where, over a scripted NVML and folders of empty versions."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from modelpool.supervisor import memory_book, plan_command
from modelpool.supervisor.command_options import UsageError
from modelpool.supervisor.memory_book import MemoryBook
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.runtime_dir import RuntimeDir
from modelpool.supervisor.wire.ids import ServableId
from modelpool.supervisor.wire.status import DeadlineExceeded
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

POOL_FILE = """
[models.big]
gpu_memory_mb = 5120
[models.twice]
devices = "all"
gpu_memory_mb = 1024
[models.small]
devices = ["cpu", "gpu:7"]
replicas = 2
"""


class Bench:
    def __init__(self, folder: Path, *gpus: FakeGpu) -> None:
        self.folder = folder
        self.gpus = gpus
        self.nvml = RealNvml(FakeLibrary(*gpus))
        self.cache = folder / "cache"
        self.models: dict[str, str] = {}
        self.status = b"{}"
        (folder / "pool.toml").write_text(POOL_FILE)

    def model(self, name: str, *versions: int, policy: str = "") -> None:
        for version in versions:
            (self.folder / name / str(version)).mkdir(parents=True)
        self.models[name] = policy

    def config(self) -> str:
        entries = [
            f'config {{ name: "{name}" base_path: "{self.folder / name}" model_platform: "tensorflow" {policy} }}'
            for name, policy in self.models.items()
        ]
        path = self.folder / "models.config"
        path.write_text("model_config_list { " + "\n".join(entries) + " }")
        return str(path)

    def run(self, *flags: str) -> int:
        pool_file = f"--pool_config_file={self.folder / 'pool.toml'}"
        return plan_command.run([self.config(), pool_file, *flags], self.nvml, self.cache, self.folder, self.ask)

    def ask(self, path: Path) -> bytes:
        """What the pool with this runtime directory answers."""
        if not self.status:
            raise DeadlineExceeded(f"the pool at {path} does not answer")
        return self.status

    def document(self, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
        self.run("--json", *flags)
        parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return parsed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, FakeGpu("GPU-aa", 8 * GIB, driver_bytes=GIB // 2), FakeGpu("GPU-bb", 4 * GIB))


def test_everything_that_fits(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.model("big", 1)
    bench.model("twice", 3)
    assert bench.run() == 0
    assert capsys.readouterr().out.splitlines() == [
        "DEVICE  PRODUCT  MEMORY   OTHERS   CLAIMED  FREE     UUID",
        "gpu:0   Fake H1  8.0 GiB  512 MiB  6.0 GiB  1.5 GiB  GPU-aa",
        "gpu:1   Fake H1  4.0 GiB  0 MiB    1.0 GiB  3.0 GiB  GPU-bb",
        "cpu     -        -        -        -        -        -",
        "",
        "SLOT             DEVICE  GPU MEMORY",
        "big/1@gpu:0#0    gpu:0   5.0 GiB",
        "twice/3@gpu:1#0  gpu:1   1.0 GiB",
        "twice/3@gpu:0#1  gpu:0   1.0 GiB",
    ]


def test_what_does_not_fit_and_why(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.model("big", 1, 2, policy="model_version_policy { all {} }")
    bench.model("small", 1)
    bench.model("empty")
    empty = bench.folder / "empty"
    assert bench.run() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("big/")] == ["big/2@gpu:0#0  gpu:0   5.0 GiB"]
    assert [line for line in lines if line.startswith("small/")] == [
        "small/1@cpu#0  cpu     -",
        "small/1@cpu#1  cpu     -",
    ]
    assert lines[-3:] == [
        "note: small: devices names gpu:7, which this host does not have",
        f"note: empty: Could not find base path {empty} for servable empty with error NOT_FOUND: {empty} not found",
        "does not fit: big/1: needs 5.0 GiB, free on gpu:0 2.5 GiB, would fit there after unloading big/2; "
        "needs 5.0 GiB, free on gpu:1 4.0 GiB, which would not be enough if it were empty (4.0 GiB)",
    ]


def test_for_programs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.model("big", 1)
    plan = bench.document(capsys)
    assert (plan["fits"], plan["notes"]) == (True, [])
    assert [device["id"] for device in plan["devices"]] == ["gpu:0", "gpu:1", "cpu"]
    assert plan["servables"] == [
        {
            "name": "big",
            "version": 1,
            "wanted_workers": 1,
            "workers": [{"device": "gpu:0", "replica": 0, "gpu_claim_bytes": 5 * GIB}],
            "placement_error": "",
        }
    ]


def test_figures_of_earlier_runs_and_flags_count(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    book = MemoryBook()
    book.note(ServableId("known", 1), "Fake H1", 2 * GIB, 0)
    memory_book.write(bench.cache, book.to_json())
    bench.model("known", 2)
    (servable,) = bench.document(capsys)["servables"]
    assert servable["workers"][0]["gpu_claim_bytes"] == 3 * GIB
    (servable,) = bench.document(capsys, "--per_process_gpu_memory_fraction=0.5")["servables"]
    assert servable["workers"][0]["gpu_claim_bytes"] == 4 * GIB + GIB // 2


def test_a_model_of_tensorflow_lite_takes_no_gpu_for_which_it_has_no_use(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.model("lite", 1)
    bench.model("other", 1)
    (bench.folder / "lite" / "1" / "model.tflite").write_bytes(b"")

    def devices(*flags: str) -> list[str]:
        plan = bench.document(capsys, *flags)
        return [worker["device"] for each in plan["servables"] for worker in each["workers"]]

    assert devices("--prefer_tflite_model") == ["cpu", "gpu:0"]
    assert devices()[0] != "cpu"


def test_a_host_without_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path)
    bench.model("big", 1)
    assert bench.run() == 0
    assert "big/1@cpu#0  cpu     -" in capsys.readouterr().out


def test_a_wrong_command_line(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> int:
        return plan_command.run(words, bench.nvml, bench.cache, bench.folder)

    with pytest.raises(UsageError, match="expected a model config file"):
        run()
    with pytest.raises(UsageError, match="unknown flag --prot"):
        run("x.config", "--prot=1")
    assert run("nowhere.config") == 1
    assert "model_config_file: cannot read 'nowhere.config'" in capsys.readouterr().err
    assert run("--help") == 0
    assert "usage: modelpool plan CONFIG" in capsys.readouterr().out


def test_gpus_that_never_answered_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = FakeGpu("GPU-aa", error=pynvml.NVML_ERROR_GPU_IS_LOST)
    bench = Bench(tmp_path, silent, FakeGpu("GPU-bb", mig={}))
    bench.model("big", 1)
    bench.run()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "note: gpu:0 cannot be used: GPU is lost",
        "note: gpu:1 cannot be used: it is in MIG mode and has no instance",
    ]


def test_beside_the_pool_itself_its_own_workers_are_not_others(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.model("big", 1)
    gpu, other = bench.gpus
    gpu.held_bytes["big/1"], other.held_bytes["somebody"] = 5 * GIB, 2 * GIB
    assert bench.run() == 1  # nobody knows whose that is
    assert "does not fit: big/1" in capsys.readouterr().out
    devices = [{"uuid": "GPU-aa", "budget_bytes": 15 * GIB // 2}, {"uuid": "", "budget_bytes": None}]
    bench.status = json.dumps({"devices": devices}).encode()
    directory = RuntimeDir(bench.folder / "8500")
    try:
        assert bench.run() == 0
        out = capsys.readouterr().out
        assert "gpu:0   Fake H1  8.0 GiB  512 MiB  5.0 GiB  2.5 GiB  GPU-aa" in out
        assert "gpu:1   Fake H1  4.0 GiB  2.0 GiB" in out
        assert f"note: the pool at {directory.path} runs: the plan is for its models' being loaded anew" in out
        bench.status = b""
        assert bench.run() == 1
        assert "does not answer: what its workers hold counts as OTHERS here" in capsys.readouterr().out
    finally:
        directory.remove()


def test_who_has_read_enough_need_not_read_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.model("big", 1)
    reads, writes = os.pipe()
    os.close(reads)
    with io.TextIOWrapper(os.fdopen(writes, "wb")) as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert bench.run() == 0
