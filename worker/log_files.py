"""The files of a request log: their names, where one ends and the next begins, and which are deleted. One thread.

`PREFIX.MODEL.VERSION.TIME.INCARNATION.NUMBER.tfrecord`, the model percent-encoded, dots included: no two models,
workers or runs share a name. While a file is written its name ends in `.partial` and its writer holds an flock on
it, which the kernel lets go of however the writer ends. So the next writer of the model finds what a killed one left
behind, cuts it after its last whole record, and gives it its final name. Knows neither records nor TensorFlow.
"""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import PoolError
from modelpool.supervisor.wire.worker_spec import RequestLog

from .prediction_logs import MAX_RECORDS

log = logging.getLogger(__name__)

_PARTIAL = ".partial"
# Of a file that nobody holds a lock on yet; other writers do not look at it.
_UNBORN = ".new"
# What TFRecord's framing adds to a record: a length and two checksums.
RECORD_OVERHEAD_BYTES = 16


class RecordFile(Protocol):
    """An open file of records. Its methods raise PoolError or OSError."""

    def write(self, record: bytes) -> None: ...

    def flush(self) -> None:
        """Hand what was written to the kernel, so that it outlives this process."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """How files of records are written. `whole_bytes`: how much of a file its whole records are."""

    open: Callable[[str], RecordFile]
    whole_bytes: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: what tells its files from all others."""

    model: str
    version: int
    incarnation: int


@dataclass(slots=True)
class _Open:
    """The file in progress; `lock_fd` is another descriptor of it."""

    path: Path
    file: RecordFile
    lock_fd: int
    records: int = 0
    size_bytes: int = 0


class LogFiles:
    """One worker's files under one configuration. Methods raise PoolError or OSError where the disk fails."""

    def __init__(
        self, settings: RequestLog, writer: Writer, record_format: RecordFormat, wall: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self._writer = writer
        self._format = record_format
        self._wall = wall
        folder, name = os.path.split(settings.filename_prefix)
        self._folder = Path(folder)
        self._stem = f"{name}{'.' if name else ''}{quote(writer.model, safe='').replace('.', '%2E')}"
        self._ours = re.compile(
            rf"{re.escape(self._stem)}\.\d+\.(\d{{8}}T\d{{6}}Z)\.(\d+)\.(\d+)\.tfrecord(\.partial)?"
        )
        self._open: _Open | None = None
        self._number = 0

    def append(self, record: bytes) -> None:
        """Write a record, in a new file if the last one is full."""
        size = len(record) + RECORD_OVERHEAD_BYTES
        current = self._open
        if current is not None and (
            current.records == MAX_RECORDS or current.size_bytes + size > self.settings.max_file_bytes
        ):
            self.finish()
            current = None
        if current is None:
            current = self._open = self._begin()
        current.file.write(record)
        current.records += 1
        current.size_bytes += size

    def flush(self) -> None:
        """See to it that what was appended outlives this process."""
        if self._open is not None:
            self._open.file.flush()

    def finish(self) -> None:
        """Complete the file in progress, and delete the oldest beyond those to keep."""
        current, self._open = self._open, None
        if current is None:
            return
        try:
            current.file.close()
            current.path.rename(current.path.with_suffix(""))
        finally:
            os.close(current.lock_fd)
        self._prune()

    def abandon(self) -> None:
        """Let go of a file that could not be written; it is mended, as a dead writer's is, before the next is begun."""
        current, self._open = self._open, None
        if current is not None:
            try:
                current.file.close()
            finally:
                os.close(current.lock_fd)

    def _begin(self) -> _Open:
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
        self._adopt()
        self._number += 1
        began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        name = f"{self._stem}.{self._writer.version}.{began}.{self._writer.incarnation}.{self._number:06}.tfrecord"
        path, unborn = self._folder / (name + _PARTIAL), self._folder / (name + _UNBORN)
        lock_fd = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):  # A file system without locks: what is left behind there stays.
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unborn.rename(path)
            return _Open(path, self._format.open(str(path)), lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise

    def _adopt(self) -> None:
        """Complete the files that writers of this model left when they were killed."""
        for path in self._files(partial=True):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its writer may have completed it meanwhile, and we have opened what is no longer partial.
                if path.exists():
                    self._mend(path, fd)
            except (OSError, PoolError):
                continue  # It is being written; or there are no locks here, or it cannot be read.
            finally:
                os.close(fd)

    def _mend(self, path: Path, fd: int) -> None:
        whole = self._format.whole_bytes(str(path))
        if whole:
            os.ftruncate(fd, whole)
            path.rename(path.with_suffix(""))
        else:
            path.unlink()
        log.info("request log completed for a writer that is gone %s", fields(file=path.name, size_bytes=whole))

    def _prune(self) -> None:
        for path in self._files(partial=False)[: -self.settings.max_files or None]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("old request log not deleted %s", fields(file=path, error=error))

    def _files(self, *, partial: bool) -> list[Path]:
        """This model's files of all versions, workers and runs, the oldest first."""
        found = []
        for name in os.listdir(self._folder):
            match = self._ours.fullmatch(name)
            if match is not None and (match[4] is not None) == partial:
                found.append(((match[1], int(match[2]), int(match[3])), self._folder / name))
        return [path for _, path in sorted(found)]
