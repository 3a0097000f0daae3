"""Remote base paths in memory: a file system of fsspec that fails on demand, and a source that looks at it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from modelpool.supervisor.model_config import ModelConfig
from modelpool.supervisor.source import Poll, Source, SourceOptions
from modelpool.supervisor.version_policy import Latest, VersionPolicy


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """The memory file system, with what goes wrong in `faults`: the name of a call, and what it raises or does."""

    protocol = "faulty"
    faults: dict[str, Any] = {}  # noqa: RUF012 - shared, as the store is

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._strike("ls", path)
        return super().ls(path, detail, **kwargs)

    def find(self, path: str, **kwargs: Any) -> Any:
        self._strike("find", path)
        return super().find(path, **kwargs)

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        super().get_file(rpath, lpath, **kwargs)
        self._strike("get_file", lpath)

    def _strike(self, call: str, path: str) -> None:
        match self.faults.get(call):
            case Exception() as error:
                raise error
            case None:
                pass
            case act:
                act(path)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("faulty://")))


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def emptied_store() -> Iterator[Any]:
    """What the faulty file system holds, with nothing in it and no faults; the same again at the end."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()
    FaultyFileSystem.faults.clear()


def save(fs: Any, path: str, graph: bytes = b"graph") -> None:
    fs.pipe(f"{path}/saved_model.pb", graph)
    fs.pipe(f"{path}/variables/variables.index", b"index")
    fs.pipe(f"{path}/variables/variables.data-00000-of-00001", b"data")


def source_of(
    tmp_path: Path,
    clock: Clock,
    base_path: str = "faulty://base/m",
    policy: VersionPolicy = Latest(),  # noqa: B008 - frozen
    marker: str = "",
) -> Source:
    options = SourceOptions(clock=clock, cache_dir=str(tmp_path / "cache"), complete_marker=marker)
    return Source(ModelConfig("m", base_path, version_policy=policy), options)


def settled(source: Source, clock: Clock) -> Poll:
    """The second of two polls that are so far apart that what did not change is whole."""
    source.poll()
    clock.now_s += 1
    return source.poll()


def entries(tmp_path: Path) -> list[str]:
    """What lies in the one model's cache, finished or not."""
    return sorted(path.name for path in (tmp_path / "cache").glob("*/m/*")) + sorted(
        path.name for path in (tmp_path / "cache").glob("*/m/.*")
    )
