"""The configuration in force while its files change, hang and go."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from modelpool.supervisor import command_line, config, configuration, pool_config
from modelpool.supervisor.configuration import Configuration, Seams
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.source import LocalFolder, Source
from modelpool.supervisor.tasks import Tasks
from modelpool.supervisor.wire.protos import ReloadConfigRequest
from modelpool.supervisor.wire.status import MAX_MESSAGE_BYTES, OK, Code, Status

POLL_S = 0.01
MARKER = "done"


class Stage:
    """A configuration whose file is polled all the time."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.file = folder / "models.config"
        self.models = folder / "m"
        self.models.mkdir(exist_ok=True)
        self.write(f'config {{ name: "m" base_path: "{self.models}" model_platform: "tensorflow" }}')
        self.tasks = Tasks()
        self.manager = Manager(ManagerOptions(1, lambda incarnation: f"ipc:///fake/{incarnation}", lambda: 0.0))
        self.pool_file = folder / "pool.toml"
        self.pool_file.write_text(f'[defaults]\ncomplete_marker = "{MARKER}"\n')
        flags = [f"--model_config_file={self.file}", f"--pool_config_file={self.pool_file}"]
        settings = config.from_flags(command_line.parse(flags), folder, folder, 1)
        settings = replace(settings, model_config_poll_s=POLL_S, source_poll_s=POLL_S, **changes)
        seams = Seams(self.tasks.changed, self.tasks.background, self.tasks.until)
        pool_file = pool_config.read(str(self.pool_file))
        self.configuration = Configuration(settings, settings.read_models(), pool_file, self.manager, seams)
        self.configuration.start()

    def write(self, models: str) -> None:
        """At once: one that is found empty, while it is written, is refused, and looked at once more."""
        new = self.file.with_suffix(".new")
        new.write_text(f"model_config_list {{ {models} }}")
        new.rename(self.file)

    def aspired(self) -> list[int]:
        return [version for version, servable in self.manager.models["m"].servables.items() if servable.aspired]

    def configured(self) -> set[str]:
        return {name for name, model in self.manager.models.items() if model.configured}

    async def still_serves(self) -> None:
        """Versions are still found: the pool has not ended."""
        (self.models / "7").mkdir()
        (self.models / "7" / MARKER).touch()
        await self.eventually(lambda: self.aspired() == [7])
        assert not self.tasks.ended.done()

    async def eventually(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(POLL_S)


def on_stage(folder: Path, play: Callable[[Stage], Coroutine[Any, Any, None]], **changes: Any) -> None:
    async def run() -> None:
        stage = Stage(folder, **changes)
        try:
            await play(stage)
        finally:
            stage.configuration.stop()
            await stage.tasks.cancel()

    asyncio.run(run())


def has_reader(fifo: Path, writers: list[int]) -> bool:
    """Whether somebody waits at this pipe; then its other end is added to `writers`."""
    try:
        writers.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def test_a_file_that_is_being_written_unloads_nothing(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        whole = stage.file.read_text()
        stage.file.write_text("")
        await stage.eventually(lambda: "model_config_file" in stage.configuration.errors)
        assert stage.configuration.errors["model_config_file"].code is Code.FAILED_PRECONDITION
        assert stage.configured() == {"m"}
        stage.file.write_text(whole)
        await stage.eventually(lambda: not stage.configuration.errors)
        stage.write("")
        await stage.eventually(lambda: stage.configured() == set())

    on_stage(tmp_path, play)


def test_a_file_that_hangs_keeps_no_reload_waiting(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.file.unlink()
        os.mkfifo(stage.file)  # whoever reads it waits for the end of what is written
        writers: list[int] = []
        await stage.eventually(lambda: has_reader(stage.file, writers))
        request = ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        async with asyncio.timeout(20):
            assert await stage.configuration.reload(request.SerializeToString()) == OK
        assert stage.configured() == set()
        os.write(writers[0], b"nonsense")
        os.close(writers[0])
        await stage.eventually(lambda: "Error parsing" in str(stage.configuration.errors.get("model_config_file")))

    on_stage(tmp_path, play)


def test_a_reload_tells_of_a_base_path_without_versions(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        (tmp_path / "empty").mkdir()
        request = ReloadConfigRequest()
        for name, place in {"m": stage.models, "new": tmp_path / "empty"}.items():
            request.config.model_config_list.config.add(name=name, base_path=str(place), model_platform="tensorflow")
        cause = "NOT_FOUND: No versions of servable new found under its base path"
        text = f"1 model(s) did not become available: {{{{{{name: new}} due to error: {cause}}}, }}"
        async with asyncio.timeout(20):
            assert await stage.configuration.reload(request.SerializeToString()) == Status(Code.UNKNOWN, text)

    on_stage(tmp_path, play)


@pytest.mark.parametrize("moved", [False, True], ids=["the same base path", "another base path"])
def test_what_is_served_stays_until_what_replaces_it_is_whole(moved: bool, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        (stage.models / "1").mkdir()
        (stage.models / "1" / MARKER).touch()
        await stage.eventually(lambda: stage.aspired() == [1])
        place = tmp_path / "elsewhere" if moved else stage.models
        (place / "2").mkdir(parents=True)
        if moved:
            stage.write(f'config {{ name: "m" base_path: "{place}" model_platform: "tensorflow" }}')
        else:
            shutil.rmtree(stage.models / "1")
        await stage.eventually(lambda: any("Version 2" in note for note in stage.manager.models["m"].source_notes))
        assert stage.aspired() == [1]
        (place / "2" / MARKER).touch()
        await stage.eventually(lambda: stage.aspired() == [2])
        shutil.rmtree(place / "2")
        await stage.eventually(lambda: stage.aspired() == [])

    on_stage(tmp_path, play)


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        opening = "custom_model_config { [type.googleapis.com/tensorflow.serving.ModelServerConfig] {"
        stage.file.write_text(opening * 3000 + "}}" * 3000)
        await stage.eventually(lambda: "model_config_file" in stage.configuration.errors or stage.tasks.ended.done())
        assert stage.configuration.errors["model_config_file"] == Status(
            Code.INVALID_ARGUMENT,
            f"Invalid protobuf file: '{stage.file}'. Error parsing text-format tensorflow.serving.ModelServerConfig: "
            "messages are nested too deeply",
        )
        await stage.still_serves()

    on_stage(tmp_path, play)


def test_a_file_that_nobody_has_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        def no_room(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(text_format, "Parse", no_room)
        stage.write("")
        await stage.eventually(lambda: "model_config_file" in stage.configuration.errors or stage.tasks.ended.done())
        assert stage.configuration.errors["model_config_file"] == Status(Code.INTERNAL, "MemoryError")
        monkeypatch.undo()
        await stage.eventually(lambda: stage.configured() == set())

    on_stage(tmp_path, play)


def test_the_error_of_a_very_long_line_is_short(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.write(f'config {{ name: "{"n" * 100_000}" base_path: m }}')
        await stage.eventually(lambda: "model_config_file" in stage.configuration.errors)
        text = stage.configuration.errors["model_config_file"].message
        assert "ModelServerConfig: 1:100050: 'model_config_list { config { name: \"nnn" in text
        assert text.endswith("nnn\" base_path: m } }': Expected string but found: 'm'")
        assert len(text) <= MAX_MESSAGE_BYTES
        await stage.still_serves()

    on_stage(tmp_path, play)


class Hanging:
    """Calls of one method of local base paths, which do not return before `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.released = threading.Event()
        real = getattr(LocalFolder, method)

        def hang(*arguments: object) -> object:
            self.released.wait(20)
            return real(*arguments)

        monkeypatch.setattr(LocalFolder, method, hang)


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("names", "Base path {path} for servable m did not answer within 0.05 s"),
        ("tree", "Version directory 1 of base path {path} for servable m did not answer within 0.05 s"),
        ("fetch", "The copy of version 1 of base path {path} for servable m did not answer within 0.04 s"),
    ],
)
def test_a_base_path_that_hangs_does_not_hold_the_start_shut(
    method: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(stage: Stage) -> None:
        assert not stage.manager.settled
        await stage.eventually(lambda: stage.manager.settled)
        status = Status(Code.UNAVAILABLE, what.format(path=stage.models))
        assert stage.manager.models["m"].source_error == status
        hanging.released.set()
        await stage.eventually(lambda: stage.aspired() == [1])
        assert stage.manager.models["m"].source_error == OK

    monkeypatch.setattr(configuration, "_FIRST_VERSION_S", 0.05)
    hanging = Hanging(monkeypatch, method)
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / MARKER).touch()
    on_stage(tmp_path, play, load_timeout_s=0.04)


def test_a_base_path_that_begins_to_hang_unloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        await stage.still_serves()
        hanging = Hanging(monkeypatch, "names")
        await stage.eventually(lambda: "did not answer" in str(stage.manager.models["m"].source_error))
        assert stage.aspired() == [7]
        hanging.released.set()
        await stage.eventually(lambda: stage.manager.models["m"].source_error == OK)

    monkeypatch.setattr(configuration, "_FIRST_VERSION_S", 0.05)
    on_stage(tmp_path, play)


def test_what_a_source_raises_costs_only_its_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        monkeypatch.setattr(Source, "prune", lambda *_: {}["gone"])
        (stage.models / "1").mkdir()
        (stage.models / "1" / MARKER).touch()
        await stage.eventually(lambda: stage.manager.models["m"].source_error != OK or stage.tasks.ended.done())
        text = "Could not look for versions of servable m: KeyError: 'gone'"
        assert stage.manager.models["m"].source_error == Status(Code.INTERNAL, text)
        monkeypatch.undo()
        await stage.still_serves()

    on_stage(tmp_path, play)


def test_another_marker_moves_no_service_back(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for version, markers in {"1": [MARKER, "other"], "2": [MARKER]}.items():
            (stage.models / version).mkdir()
            for marker in markers:
                (stage.models / version / marker).touch()
        await stage.eventually(lambda: stage.aspired() == [2])
        stage.pool_file.write_text('[defaults]\ncomplete_marker = "other"\n')
        await stage.eventually(lambda: stage.configuration.policy("m").complete_marker == "other")
        (stage.models / "3").mkdir()
        (stage.models / "3" / MARKER).touch()
        waits = "Version 3 of servable m is not complete yet and is not taken: it does not hold other"
        await stage.eventually(lambda: stage.manager.models["m"].source_notes == (waits,))
        assert stage.aspired() == [2]

    on_stage(tmp_path, play)


def test_a_file_that_stays_as_it_is_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        looks, parsed = 0, 0
        text, parse = Path.read_text, text_format.Parse

        def look(*arguments: Any, **options: Any) -> str:
            nonlocal looks
            looks += 1
            return text(*arguments, **options)

        def count(*arguments: Any) -> Any:
            nonlocal parsed
            parsed += 1
            return parse(*arguments)

        monkeypatch.setattr(Path, "read_text", look)
        monkeypatch.setattr(text_format, "Parse", count)
        await stage.eventually(lambda: looks > 6)
        assert parsed <= 1
        stage.write("# emptied\n")
        await stage.eventually(lambda: stage.configured() == set())
        assert parsed <= 2

    on_stage(tmp_path, play)


def test_the_manager_is_told_what_loads_depend_on(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert stage.manager.models["m"].settings.of_loads == stage.configuration.policy("m").of_loads()

    on_stage(tmp_path, play)
