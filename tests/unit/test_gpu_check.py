"""scripts/gpu_check itself, over a scripted NVML: it finds nothing wrong where all is well, and what is wrong."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelpool.supervisor.devices import Device
from modelpool.supervisor.nvml import RealNvml
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

OVERHEAD = 300 << 20


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parent.parent.parent / "scripts" / "gpu_check.py"
    spec = importlib.util.spec_from_file_location("gpu_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeHolder:
    """Takes memory of a fake GPU; the wrong one's (`stray`), or does not give it back (`stuck`)."""

    def __init__(self, gpu: FakeGpu, size_bytes: int, stuck: bool) -> None:
        self.gpu, self.stuck, self.pid, self.uuid = gpu, stuck, 77, ""
        gpu.processes[self.pid] = size_bytes + OVERHEAD

    def kill(self) -> None:
        if not self.stuck:
            del self.gpu.processes[self.pid]


def check(script: ModuleType, *gpus: FakeGpu, stray: bool = False, stuck: bool = False) -> Any:
    def holder(device: Device, size_bytes: int) -> FakeHolder:
        gpu = next(gpu for gpu in gpus if (gpu.uuid == device.cuda_visible_devices) is not stray)
        return FakeHolder(gpu, size_bytes, stuck)

    return script.GpuCheck(RealNvml(FakeLibrary(*gpus)), holder, GIB)


def smi(*gpus: FakeGpu) -> dict[str, tuple[str, int, int]]:
    return {gpu.uuid: (gpu.product, gpu.total_bytes, gpu.used_bytes) for gpu in gpus}


def test_without_a_gpu_it_says_so(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(script).run(None) == script.NO_GPU_EXIT_CODE
    assert "There is no GPU on this host" in capsys.readouterr().out


def test_all_is_well(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = (FakeGpu("GPU-a", driver_bytes=GIB // 4), FakeGpu("GPU-b", processes={5: GIB}))
    assert check(script, *gpus).run(smi(*gpus)) == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert out.count("1324 MiB for 1024, so CUDA takes 300 MiB") == 4
    assert out.count("the memory was confirmed free: after") == 4


def test_memory_on_another_device_than_asked_for_is_found(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(script, FakeGpu("GPU-a"), FakeGpu("GPU-b"), stray=True).run(None) == 1
    out = capsys.readouterr().out
    assert "FAILED no other device has more in use: gpu:1" in out
    assert "FAILED what the process takes was measured" in out


def test_memory_that_does_not_come_back_is_found(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "FREE_WITHIN_S", 0.2)
    assert check(script, FakeGpu("GPU-a"), stuck=True).run(None) == 1
    assert "FAILED the memory was confirmed free: not within 0.2 s" in capsys.readouterr().out


def test_figures_that_are_not_those_of_nvidia_smi_are_found(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"GPU-a": ("Fake H1", 9 * GIB, 0)}
    assert check(script, FakeGpu("GPU-a"), FakeGpu("GPU-b")).run(other) == 1
    out = capsys.readouterr().out
    assert "FAILED the same size: 9216 and 8192 MiB" in out
    assert "FAILED gpu:1 is listed as GPU-b" in out
