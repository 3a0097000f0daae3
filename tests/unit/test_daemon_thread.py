"""No thread can be started, because one model has used up the limit on tasks: that costs looks and reports, no pool."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelpool.supervisor import memory_watch
from modelpool.supervisor.crashes import Crashes
from modelpool.supervisor.daemon_thread import call_in_thread
from modelpool.supervisor.memory_limit import Sample
from modelpool.supervisor.memory_watch import MemoryWatch
from modelpool.supervisor.tasks import Tasks
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.status import Unavailable
from tests.unit.test_configuration import MARKER, Stage, on_stage
from tests.unit.test_device_watch import Bench, watching


class Limit:
    """The limit on tasks: while it is `reached`, no thread can be started."""

    def __init__(self, start: Callable[[threading.Thread], None]) -> None:
        self.reached = True
        self.refused = 0
        self._start = start

    def start(self, thread: threading.Thread) -> None:
        if self.reached:
            self.refused += 1
            raise RuntimeError("can't start new thread")
        self._start(thread)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    found = Limit(threading.Thread.start)

    def start(thread: threading.Thread) -> None:
        found.start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return found


@pytest.mark.usefixtures("limit")
def test_a_call_is_unavailable() -> None:
    async def run() -> None:
        with pytest.raises(Unavailable, match=r"a look: can't start new thread"):
            await call_in_thread(int, name="a look")

    asyncio.run(run())


def test_a_source_has_failed_to_look_and_looks_again(limit: Limit, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        (stage.models / "1").mkdir()
        (stage.models / "1" / MARKER).touch()
        await stage.eventually(lambda: "start new thread" in str(stage.manager.models["m"].source_error))
        limit.reached = False
        await stage.eventually(lambda: stage.aspired() == [1])
        limit.reached, limit.refused = True, 0
        await stage.eventually(lambda: limit.refused > 1)
        assert stage.aspired() == [1]
        assert not stage.tasks.ended.done()

    on_stage(tmp_path, play)


@pytest.mark.usefixtures("limit")
def test_a_crash_report_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        tasks = Tasks()
        crashes = Crashes(tmp_path, tasks.background, {})
        crashes.keep({"model": "m", "version": 1, "incarnation": 1})
        async with asyncio.timeout(20):
            while not crashes.lost:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0)
        assert not tasks.ended.done()

    asyncio.run(run())


def test_the_devices_are_not_looked_at(limit: Limit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        while "GPUs cannot be watched" not in caplog.text:  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0)
        limit.reached = False
        await bench.look()
        assert bench.places.inventory.lost == {}

    watching(tmp_path, test)


def test_the_memory_of_a_worker_is_watched_later(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sample] = []

    async def run() -> None:
        watch = MemoryWatch(asyncio.get_running_loop(), lambda _, sample: seen.append(sample))
        watch.watch(Incarnation(1), os.getpid(), 1, "watch")
        async with asyncio.timeout(20):
            while limit.refused < 2:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0)
            limit.reached = False
            while not seen:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0)
        watch.close()

    monkeypatch.setattr(memory_watch, "_AGAIN_S", 0.0)
    asyncio.run(run())


def test_a_worker_that_is_gone_is_not_watched_later(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        watch = MemoryWatch(asyncio.get_running_loop(), lambda *_: None)
        watch.watch(Incarnation(1), os.getpid(), 1, "watch")
        watch.forget(Incarnation(1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert limit.refused == 1

    monkeypatch.setattr(memory_watch, "_AGAIN_S", 0.0)
    asyncio.run(run())
