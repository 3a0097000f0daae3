"""Poison requests kept on disk for replay, one file each, in a folder that stays bounded. In a thread of its own.

A file is the payload as the client sent it: a serialized request of the gRPC API, or the JSON body of a REST call. Its
name says the rest: `<model>-<version>-<method>-<fingerprint>`. The payload is private, and so is the file.
"""

import logging
import os
import threading
from pathlib import Path
from urllib.parse import quote

from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.frontend_messages import Quarantined
from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

SUFFIX = ".poison"
MAX_FILES = 100
MAX_BYTES = 1 << 30
_MAX_NAME_CHARS = 100


class PoisonFiles:
    """Of a folder the newest MAX_FILES files with MAX_BYTES in all are kept. What cannot be written is logged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def keep(self, folder: str, entry: Quarantined, method: Method, payload: bytes) -> threading.Thread:
        """Begin to write it; the thread that does."""
        model = quote(entry.name, safe="")[:_MAX_NAME_CHARS]
        name = f"{model}-{entry.version}-{method.name.lower()}-{entry.fingerprint.hex()}{SUFFIX}"
        thread = threading.Thread(target=self._write, args=(Path(folder), name, payload), name="poison", daemon=True)
        thread.start()
        return thread

    def _write(self, folder: Path, name: str, payload: bytes) -> None:
        try:
            with self._lock:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _make_room(folder, len(payload))
                unfinished = folder / f".{name}.{os.getpid()}"
                try:
                    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                        file.write(payload)
                    unfinished.replace(folder / name)
                finally:
                    unfinished.unlink(missing_ok=True)
        except OSError as error:
            log.error("poison request not kept %s", fields(folder=folder, name=name, error=error))


def _make_room(folder: Path, size_bytes: int) -> None:
    """Delete the oldest files until one more of this size fits. Raises OSError."""
    kept = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # another frontend makes room, too
        kept.append((status.st_mtime_ns, status.st_size, path))
    kept.sort(reverse=True)
    files, total_bytes = 1, size_bytes
    for _, file_bytes, path in kept:
        files, total_bytes = files + 1, total_bytes + file_bytes
        if files > MAX_FILES or total_bytes > MAX_BYTES:
            path.unlink(missing_ok=True)
