"""scripts/gpu_check itself, over a scripted NVML: it finds nothing wrong where all is well, and what is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import cuda_holder
import gpu_check
import nvidia_smi
import pytest
from cuda_holder import CudaHolder, HolderError
from gpu_check import GpuCheck
from nvidia_smi import SmiError, SmiGpu, SmiReport

from modelpool.supervisor.nvml import RealNvml
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

OVERHEAD, RESERVED = 300 << 20, 600 << 20


class FakeHolder:
    """Takes memory of a fake GPU, and does not give it back when it is `stuck`."""

    def __init__(self, gpu: FakeGpu, size_bytes: int, stuck: bool) -> None:
        self.gpu, self.stuck, self.pid, self.uuid = gpu, stuck, 77, ""
        if size_bytes:
            gpu.processes[self.pid] = size_bytes + OVERHEAD

    def kill(self) -> None:
        if not self.stuck:
            self.gpu.processes.pop(self.pid, None)


class Bench:
    """Fake GPUs. Holders may be on the wrong one (`stray`), stuck, hold nothing (`empty`), or be pinned to nothing."""

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = gpus
        self.stray = self.stuck = self.empty = self.unpinned = False
        self.report: Callable[[], SmiReport] = self.smi

    def hold(self, uuid: str, size_bytes: int) -> FakeHolder:
        if uuid == gpu_check.NOBODY and not self.unpinned:
            raise HolderError("sees 0 devices")
        gpu = next((gpu for gpu in self.gpus if (gpu.uuid == uuid) is not self.stray), self.gpus[0])
        return FakeHolder(gpu, 0 if self.empty else size_bytes, self.stuck)

    def smi(self) -> SmiReport:
        listed = {g.uuid: SmiGpu(g.product, g.total_bytes, g.used_bytes - RESERVED, RESERVED) for g in self.gpus}
        return SmiReport("550.1", listed, {gpu.uuid: dict(gpu.processes) for gpu in self.gpus})

    def run(self) -> int:
        return GpuCheck(RealNvml(FakeLibrary(*self.gpus)), self.hold, self.report, GIB).run()


@pytest.fixture
def bench() -> Bench:
    return Bench(FakeGpu("GPU-a", driver_bytes=RESERVED), FakeGpu("GPU-b", driver_bytes=RESERVED, processes={5: GIB}))


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert Bench().run() == gpu_check.NO_GPU_EXIT_CODE
    assert "There is no GPU on this host" in capsys.readouterr().out


def test_all_is_well(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run() == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert out.count("1324 MiB for 1024, so CUDA takes 300 MiB") == 4
    assert out.count("while it is held the next load waits: the memory of a dead worker") == 4
    assert out.count("the memory was confirmed free: after") == 4
    assert "the same use: 1324 + 600 reserved and 1924 MiB" in out  # while it is held
    assert "the same processes: 5: 1024 MiB, 77: 1324 MiB and 5: 1024 MiB, 77: 1324 MiB" in out
    assert "driver 550.1" in out


def test_memory_on_another_device_than_asked_for_is_found(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.stray = True
    assert bench.run() == 1
    out = capsys.readouterr().out
    assert "FAILED no other device has more in use: gpu:1" in out
    assert "FAILED what the process takes was measured" in out


def test_pinning_without_effect_is_found_where_there_is_one_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(FakeGpu("GPU-a", driver_bytes=RESERVED))
    bench.unpinned = True
    assert bench.run() == 1
    assert "FAILED a process that is pinned to a GPU that is not there sees none" in capsys.readouterr().out


def test_memory_that_does_not_come_back_is_found(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "FREE_WITHIN_S", 0.2)
    bench.stuck = True
    assert bench.run() == 1
    assert "FAILED the memory was confirmed free: not within 0.2 s" in capsys.readouterr().out


def test_what_is_confirmed_free_too_early_is_found(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.empty = True
    assert bench.run() == 1
    assert capsys.readouterr().out.count("FAILED while it is held the next load waits") == 4


def test_figures_that_are_not_those_of_nvidia_smi_are_found(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    other = SmiGpu("Fake H1", 9 * GIB, GIB, RESERVED)
    bench.report = lambda: SmiReport("550.1", {"GPU-a": other}, {"GPU-a": {9: GIB}})
    assert bench.run() == 1
    out = capsys.readouterr().out
    assert "FAILED the same size: 9216 and 8192 MiB" in out
    assert "FAILED the same use: 1024 + 600 reserved and 600 MiB" in out
    assert "FAILED the same processes: 9: 1024 MiB and none" in out
    assert "FAILED gpu:1 is listed as GPU-b" in out


def test_an_nvidia_smi_that_fails_is_no_success(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> SmiReport:
        raise SmiError("nvidia-smi cannot be run")

    bench.report = missing
    assert bench.run() == 1
    assert "FAILED nvidia-smi answers: nvidia-smi cannot be run" in capsys.readouterr().out


# -- nvidia-smi ------------------------------------------------------------------------------------------------------


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_what_nvidia_smi_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = "GPU-a, Fake H1, 550.1, 8192, 10, 600\nGPU-b, Fake H1, 550.1, 8192, 0, [N/A]"
    apps = "GPU-a, 7, 10\nGPU-a, 8, [N/A]"
    script = f'case $1 in --query-gpu*) echo "{gpus}";; *) echo "{apps}";; esac'
    program(tmp_path, monkeypatch, script)
    report = nvidia_smi.ask()
    assert (report.driver, report.gpus["GPU-a"]) == ("550.1", SmiGpu("Fake H1", 8 * GIB, 10 << 20, RESERVED))
    assert report.gpus["GPU-b"].reserved_bytes is None
    assert report.processes == {"GPU-a": {7: 10 << 20, 8: None}, "GPU-b": {}}


def test_why_nvidia_smi_did_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo it has failed; exit 9")
    with pytest.raises(SmiError, match="ended with 9: it has failed"):
        nvidia_smi.ask()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SmiError, match="cannot be run"):
        nvidia_smi.ask()


# -- the process that holds memory -----------------------------------------------------------------------------------


def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(cuda_holder, "FIRST_WORDS_S", 0.2)
    with pytest.raises(HolderError, match=r"it says nothing within 0\.2 s"):
        CudaHolder("GPU-a", GIB)
