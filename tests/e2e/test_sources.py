"""Where versions come from: they appear, go, grow file by file, are mended in place, and may lie behind fsspec."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import POLL_S, eventually
from tests.e2e.pool import Pool, StartPool, model_config, put_version, running_pool
from tests.e2e.test_bad_models import half_plus_two_answers

WITHIN_S = 20.0
# Longer than a version must be quiet to be taken, by default, and than two polls.
LONG_ENOUGH_S = 2.5


@dataclass(frozen=True, slots=True)
class Sources:
    """A pool whose models lie in folders of the test's own below `root`, empty at the start."""

    pool: Pool
    root: Path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    root = tmp_path_factory.mktemp("sources")
    names = ("numbered", "marked", "mended", "half_plus_two")
    for name in names:
        (root / name).mkdir()
    pool_file = root / "pool.toml"
    pool_file.write_text(
        '[models.numbered]\nsettle_s = 0\n[models.marked]\ncomplete_marker = "DONE"\n[models.mended]\nsettle_s = 0\n'
    )
    flags = (f"--pool_config_file={pool_file}", "--max_num_load_retries=0")
    with running_pool(model_config({name: root / name for name in names}), *flags) as pool:
        yield Sources(pool, root)


@dataclass
class Watch:
    """What was seen of a model's versions: each state with its error's code."""

    seen: set[tuple[int, str, str]] = field(default_factory=set)


@contextmanager
def watching(pool: Pool, model: str) -> Iterator[Watch]:
    """Look at the status again and again meanwhile."""
    watch = Watch()

    def look(stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            watch.seen |= {(v["version"], v["state"], v["error"]["code"]) for v in pool.model(model)["versions"]}

    with beside(look):
        yield watch


def stays(predicate: Callable[[], bool], for_s: float) -> bool:
    """Whether `predicate` holds at each look for so long. For what must not happen there is no fact to wait for."""
    until_s = time.monotonic() + for_s
    while predicate():
        if time.monotonic() >= until_s:
            return True
        time.sleep(POLL_S)
    return False


def test_versions_come_and_go(sources: Sources, models: Path) -> None:
    pool, base = sources.pool, sources.root / "numbered"
    assert pool.versions("numbered") == {}
    put_version(models / "numbered" / "1", base, "1")
    eventually(lambda: pool.versions("numbered") == {1: "AVAILABLE"}, WITHIN_S, "appears")
    put_version(models / "numbered" / "2", base, "0000002")
    eventually(lambda: pool.versions("numbered") == {1: "END", 2: "AVAILABLE"}, WITHIN_S, "grows")
    assert pool.number_by_grpc("numbered") == 2
    (base / "0000002").rename(base / "withdrawn")
    eventually(lambda: pool.versions("numbered") == {1: "AVAILABLE", 2: "END"}, WITHIN_S, "loses one")
    assert pool.number_by_rest("numbered") == 1
    shutil.rmtree(base / "1")
    eventually(lambda: pool.versions("numbered") == {1: "END", 2: "END"}, WITHIN_S, "disappears")
    (base / "withdrawn").rename(base / "2")
    eventually(lambda: pool.versions("numbered") == {1: "END", 2: "AVAILABLE"}, WITHIN_S, "comes back")


def test_a_version_copied_file_by_file(sources: Sources, models: Path) -> None:
    """Quietly long after its graph is there, its variables come: it is loaded once, when it is whole."""
    pool, version = sources.pool, sources.root / "half_plus_two" / "123"
    whole = models / "half_plus_two" / "00000123"
    pause = threading.Event()
    with watching(pool, "half_plus_two") as watch:
        (version / "variables").mkdir(parents=True)
        graph = (whole / "saved_model.pb").read_bytes()
        with (version / "saved_model.pb").open("wb") as file:
            for start in range(0, len(graph), len(graph) // 4 + 1):
                file.write(graph[start : start + len(graph) // 4 + 1])
                file.flush()
                pause.wait(0.4)  # the pace of a slow writer
        shutil.copyfile(whole / "variables" / "variables.index", version / "variables" / "variables.index")
        lacking = "it lacks variables/variables.data-*"
        eventually(lambda: lacking in pool.log, WITHIN_S, "it is noticed that the variables lack")
        assert stays(lambda: pool.versions("half_plus_two") == {}, LONG_ENOUGH_S)
        (shard,) = (whole / "variables").glob("variables.data-*")
        shutil.copyfile(shard, version / "variables" / shard.name)
        eventually(lambda: pool.versions("half_plus_two") == {123: "AVAILABLE"}, WITHIN_S)
    assert {(number, code) for number, _, code in watch.seen} == {(123, "OK")}
    assert pool.worker("half_plus_two", 123)["restarts"] == 0
    assert "load failed" not in "".join(line for line in pool.log.splitlines() if "half_plus_two" in line)
    assert half_plus_two_answers(pool)


def test_a_complete_marker(sources: Sources, models: Path) -> None:
    pool, base = sources.pool, sources.root / "marked"
    put_version(models / "numbered" / "1", base, "1")
    text = "Version 1 of servable marked is not complete yet and is not taken: it does not hold DONE"
    eventually(lambda: text in pool.log, WITHIN_S)
    assert stays(lambda: pool.versions("marked") == {}, LONG_ENOUGH_S)
    (base / "1" / "DONE").touch()
    eventually(lambda: pool.versions("marked") == {1: "AVAILABLE"}, WITHIN_S)
    assert pool.number_by_grpc("marked") == 1


def test_a_failed_version_is_mended_in_place(sources: Sources, models: Path) -> None:
    """Its files change, and it is tried again, without a new version and without a restart."""
    pool, base = sources.pool, sources.root / "mended"
    put_version(models / "corrupt" / "1", base, "1")
    eventually(lambda: pool.versions("mended") == {1: "END"}, WITHIN_S)
    (version,) = pool.model("mended")["versions"]
    text = f"Can't parse {base}/1/saved_model.pb as binary proto"
    assert version["error"] == {"code": "DATA_LOSS", "message": text}
    good = base / "good"
    shutil.copyfile(models / "numbered" / "3" / "saved_model.pb", good)
    good.replace(base / "1" / "saved_model.pb")
    eventually(lambda: pool.versions("mended") == {1: "AVAILABLE"}, WITHIN_S)
    assert pool.number_by_rest("mended") == 3, "the content is that of version 3"
    (version,) = pool.model("mended")["versions"]
    assert version["error"] == {"code": "OK", "message": ""}


def test_polled_once(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    put_version(models / "numbered" / "1", tmp_path, "1")
    config = model_config({"numbered": tmp_path})
    pool = start_pool(config, "--file_system_poll_wait_seconds=0")
    assert pool.versions("numbered") == {1: "AVAILABLE"}
    put_version(models / "numbered" / "2", tmp_path, "2")
    assert stays(lambda: pool.versions("numbered") == {1: "AVAILABLE"}, LONG_ENOUGH_S)
    pool.reload(config)
    eventually(lambda: pool.versions("numbered") == {1: "END", 2: "AVAILABLE"}, WITHIN_S, "a reload looks once more")


def test_a_remote_base_path(start_pool: StartPool, models: Path, tmp_path: Path) -> None:
    """By fsspec's `local` file system: versions are served from a copy in the cache."""
    base, cache, pool_file = tmp_path / "bucket", tmp_path / "cache", tmp_path / "pool.toml"
    base.mkdir()
    put_version(models / "numbered" / "1", base, "1")
    pool_file.write_text(f'[defaults]\nsettle_s = 0.5\n[source]\ncache_dir = "{cache}"\n')
    pool = start_pool(model_config({"numbered": f"local://{base}"}), f"--pool_config_file={pool_file}")
    pool.wait_available("numbered")
    assert (pool.number_by_grpc("numbered"), pool.number_by_rest("numbered")) == (1, 1)
    (version,) = pool.model("numbered")["versions"]
    assert Path(version["path"]).is_relative_to(cache)
    put_version(models / "numbered" / "2", base, "2")
    eventually(lambda: pool.versions("numbered") == {1: "END", 2: "AVAILABLE"}, WITHIN_S)
    assert pool.number_by_grpc("numbered") == 2
    base.rename(tmp_path / "away")
    text = (
        f"Could not find base path local://{base} for servable numbered with error NOT_FOUND: local://{base} not found"
    )
    error = {"code": "NOT_FOUND", "message": text}
    eventually(lambda: pool.model("numbered")["source_error"] == error, WITHIN_S)
    assert pool.number_by_grpc("numbered") == 2, "what is in the cache is served on"
    pool.reload("model_config_list {}")
    eventually(lambda: list(cache.glob("*/numbered/*")) == [], WITHIN_S, "no copy is left of a model that is gone")
