"""The local copies of a remote model go when they are of no use any more."""

import shutil
from pathlib import Path

import pytest

from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.exits import Exit
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.ids import Incarnation
from tests.unit.test_configuration import MARKER, Stage, on_stage

MODEL = "r"


class Remote:
    """A model behind fsspec on a stage."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder

    def put(self, place: str, version: str) -> None:
        path = self.folder / place / version
        path.mkdir(parents=True)
        (path / MARKER).touch()

    def configure(self, place: str) -> None:
        path = self.folder / place
        self.stage.write(f'config {{ name: "{MODEL}" base_path: "local://{path}" model_platform: "tensorflow" }}')

    def copies(self) -> list[str]:
        """The versions of which there are any."""
        return sorted(path.name.partition("-")[0] for path in self.folder.glob(f"*/{MODEL}/*-*"))

    def aspired(self) -> list[int]:
        model = self.stage.manager.models.get(MODEL)
        return [] if model is None else [version for version, each in model.servables.items() if each.aspired]

    async def start(self, place: str) -> Incarnation:
        """Configure it at this place, and have the worker of its one version started, which will go before the next."""
        policy = self.stage.pool_file.read_text()
        self.stage.pool_file.write_text(f'{policy}transition_policy = "resource_preserving"\n')
        unload_first = TransitionPolicy.RESOURCE_PRESERVING
        await self.stage.eventually(lambda: self.stage.configuration.policy(MODEL).transition_policy is unload_first)
        self.configure(place)
        await self.stage.eventually(lambda: bool(self.aspired()))
        (spawned,) = (command for command in self.stage.manager.advance(0.0) if isinstance(command, Spawn))
        return spawned.incarnation

    def end(self, worker: Incarnation) -> None:
        """One that was told to go does."""
        self.stage.manager.advance(0.0)
        self.stage.manager.exited(worker, Exit(0, None, "exited with code 0"), 0.0)
        self.stage.manager.advance(0.0)
        self.stage.tasks.changed()

    async def polled(self) -> None:
        """Whatever is to follow from what was written last has followed: what was written then was read, too."""
        self.stage.write("nonsense")
        await self.stage.eventually(lambda: bool(self.stage.configuration.errors))


@pytest.mark.parametrize("moved", [False, True], ids=["gone", "moved"])
def test_they_go_with_the_last_worker_that_was_started_from_them(moved: bool, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        remote = Remote(stage, tmp_path)
        remote.put("old", "1")
        remote.put("new", "2")
        worker = await remote.start("old")
        if moved:
            remote.configure("new")
        else:
            stage.write("")
        await stage.eventually(lambda: remote.aspired() == ([2] if moved else []))
        await remote.polled()
        assert remote.copies() == (["1", "2"] if moved else ["1"])
        remote.end(worker)
        await stage.eventually(lambda: remote.copies() == (["2"] if moved else []))

    on_stage(tmp_path, play)


def test_a_model_that_comes_back_takes_them_over(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        remote = Remote(stage, tmp_path)
        remote.put("old", "1")
        worker = await remote.start("old")
        stage.write("")
        await stage.eventually(lambda: remote.aspired() == [])
        remote.configure("old")
        await stage.eventually(lambda: remote.aspired() == [1])
        assert remote.copies() == ["1"]
        remote.put("old", "2")
        await stage.eventually(lambda: remote.aspired() == [2])
        await remote.polled()
        assert remote.copies() == ["1", "2"]
        remote.end(worker)
        await stage.eventually(lambda: remote.copies() == ["2"])

    on_stage(tmp_path, play)


def test_a_cache_that_cannot_be_emptied_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(stage: Stage) -> None:
        remote = Remote(stage, tmp_path)
        remote.put("old", "1")
        worker = await remote.start("old")

        def broken(*_: object, **__: object) -> None:
            raise ValueError("no such thing")

        monkeypatch.setattr(shutil, "rmtree", broken)
        stage.write("")
        await stage.eventually(lambda: remote.aspired() == [])
        remote.end(worker)
        await stage.eventually(lambda: "cache not emptied" in caplog.text)
        assert "no such thing" in caplog.text
        assert not stage.tasks.ended.done()

    on_stage(tmp_path, play)
