"""The directory of crash reports: one JSON file per death, bounded in number. Blocking calls; any thread.

Several pools of a user may share it. A file is there whole or not at all; only its owner may read it. Knows nothing of
what is in a report but the names of the model and the version.
"""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .wire.status import FailedPrecondition, NotFound

MAX_FILES = 200
MAX_FILES_PER_MODEL = 40
_SUFFIX = ".json"
_UNFINISHED = ".unfinished"
# Unfinished files of a writer that died are removed after this.
_STALE_S = 3600.0
_MAX_NAME_BYTES = 150


class CrashFiles:
    """Below `directory`, which is made with the first report."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, report: Mapping[str, Any], wall_s: float) -> str:
        """Keep a report of a death at this time; its id. Older ones go when there are too many. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(wall_s)) + f"{wall_s % 1:.6f}"[1:]
        model = quote(str(report["model"]), safe="")[:_MAX_NAME_BYTES]
        id_ = f"{stamp}-{os.getpid()}.{report['incarnation']}-{model}"
        raw = json.dumps({"id": id_, "time": _iso(wall_s), **report}, indent=1, ensure_ascii=True).encode()
        unfinished = self._directory / f"{id_}{_UNFINISHED}"
        try:
            fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(raw)
            unfinished.replace(self._directory / f"{id_}{_SUFFIX}")
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        self._prune(wall_s)
        return id_

    def ids(self) -> list[str]:
        """All reports, the newest first. Raises OSError."""
        if not self._directory.is_dir():
            return []
        names = [entry.name for entry in os.scandir(self._directory)]
        return sorted((name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)), reverse=True)

    def newest(self, model: str | None, count: int) -> Iterator[dict[str, Any]]:
        """The newest reports, of one model or of all; what cannot be read is passed over."""
        for id_ in [each for each in self.ids() if model is None or _model(each) == model][:count]:
            with contextlib.suppress(NotFound, FailedPrecondition):
                yield self.read(id_)

    def read(self, id_: str) -> dict[str, Any]:
        """One report; the beginning of its id is enough where it is unique.

        Raises NotFound; FailedPrecondition when it is not to be read.
        """
        found = [each for each in self.ids() if each == id_] or [each for each in self.ids() if each.startswith(id_)]
        if len(found) != 1:
            raise NotFound(f"{'no' if not found else 'more than one'} crash report begins with {id_!r}")
        path = self._directory / f"{found[0]}{_SUFFIX}"
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"{path}: {error}") from error
        if not isinstance(document, dict):
            raise FailedPrecondition(f"{path}: expected a JSON object")
        return document

    def _prune(self, wall_s: float) -> None:
        """Keep the newest of each model, and the newest of all. What another pool removes meanwhile is fine."""
        seen: Counter[str] = Counter()
        kept = 0
        for id_ in self.ids():
            seen[_model(id_)] += 1
            if kept >= MAX_FILES or seen[_model(id_)] > MAX_FILES_PER_MODEL:
                (self._directory / f"{id_}{_SUFFIX}").unlink(missing_ok=True)
            else:
                kept += 1
        for entry in list(os.scandir(self._directory)):
            with contextlib.suppress(OSError):
                if entry.name.endswith(_UNFINISHED) and entry.stat().st_mtime < wall_s - _STALE_S:
                    os.unlink(entry.path)


def _model(id_: str) -> str:
    return unquote(id_.split("-", 2)[-1])


def _iso(wall_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall_s)) + f"{wall_s % 1:.3f}"[1:] + "Z"
