"""The watch over the GPUs: it reads again and again, keeps what is learnt, and survives an NVML that fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pynvml
import pytest

from modelpool.supervisor import device_watch, memory_book
from modelpool.supervisor.device_watch import DeviceWatch
from modelpool.supervisor.devices import Inventory
from modelpool.supervisor.nvml import RealNvml
from modelpool.supervisor.places import Places
from modelpool.supervisor.wire.ids import Incarnation, ServableId, SlotId
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

M = ServableId("m", 1)
WITHIN_S = 20.0


class Bench:
    """A watch over one GPU that runs for as long as `watching` waits."""

    def __init__(self, folder: Path) -> None:
        self.gpu = FakeGpu("GPU-a", 8 * GIB)
        self.library = FakeLibrary(self.gpu)
        self.nvml = RealNvml(self.library)
        self.places = Places(Inventory.of(self.nvml.look()))
        self.folder = folder
        self.looks = asyncio.Semaphore(0)
        self.watch = DeviceWatch(self.nvml, self.places, folder, self.looks.release)

    async def look(self) -> None:
        """One more look, begun after now."""
        while not self.looks.locked():
            await self.looks.acquire()
        for _ in range(2):
            self.watch.nudge()
            await self.looks.acquire()

    def load(self, size_bytes: int) -> None:
        """A worker of ours has loaded its model."""
        (device,) = self.places.inventory.gpus
        self.places.ledger.started(Incarnation(1), SlotId(M, device.id), device, known=False)
        self.gpu.processes[4711] = size_bytes
        self.places.ledger.ready(Incarnation(1), 0, time.monotonic())


def watching(folder: Path, test: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(folder)
        task = asyncio.create_task(bench.watch.run())
        async with asyncio.timeout(WITHIN_S):
            await test(bench)
        assert not task.done()
        task.cancel()

    asyncio.run(run())


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.load(3 * GIB)
        while memory_book.read(tmp_path).need_bytes(M, "Fake H1") is None:
            await bench.look()
        assert memory_book.read(tmp_path).need_bytes(M, "Fake H1") == 3 * GIB

    watching(tmp_path, test)


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def test(bench: Bench) -> None:
        bench.load(3 * GIB)
        await bench.look()
        await bench.look()
        assert bench.places.book.need_bytes(M, "Fake H1") == 3 * GIB

    watching(tmp_path / "file", test)


def test_nothing_is_moved_when_nvml_itself_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await bench.look()
        bench.library.list_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        while "GPUs cannot be watched" not in caplog.text:
            bench.watch.nudge()
            await asyncio.sleep(0)
        assert bench.places.inventory.lost == {}
        bench.library.list_error = 0
        bench.gpu.error = pynvml.NVML_ERROR_GPU_IS_LOST
        await bench.look()
        assert bench.places.inventory.lost == {"gpu:0": "GPU is lost"}
        assert caplog.text.count("GPUs cannot be watched") == 1

    watching(tmp_path, test)


def test_a_driver_that_is_loaded_after_the_pool_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_watch, "_ABSENT_PERIOD_S", 0.01)

    async def run() -> None:
        gpu = FakeGpu("GPU-a", error=pynvml.NVML_ERROR_UNKNOWN)
        library = FakeLibrary(gpu, start_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        places, looks = Places(), asyncio.Semaphore(0)
        task = asyncio.create_task(DeviceWatch(RealNvml(library), places, tmp_path, looks.release).run())
        async with asyncio.timeout(WITHIN_S):
            await looks.acquire()
            assert places.inventory.gpus == ()
            library.start_error = 0
            while not places.inventory.silent:
                await looks.acquire()
            gpu.error = 0
            while not places.inventory.gpus:
                await looks.acquire()
        task.cancel()

    asyncio.run(run())
    assert caplog.text.count("GPU cannot be used") == 1
