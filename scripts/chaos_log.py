"""What the log of a pool says of its workers, with its own times: looking there costs the pool nothing."""

import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

_TIME = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})"
_READY = re.compile(
    rf"^{_TIME} .*worker ready servable=(?P<model>[^/]+)/\S+ .*incarnation=(?P<incarnation>\d+) pid=(?P<pid>\d+) "
    r"load_s=(?P<load_s>\S+) warmup_s=(?P<warmup_s>\S+)",
    re.MULTILINE,
)


class Ready(NamedTuple):
    """A worker that became ready at `at_s` (seconds since the epoch)."""

    at_s: float
    model: str
    incarnation: int
    pid: int
    load_s: float
    warmup_s: float


class PoolLog:
    """Reads what has been written since it looked last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = ""

    def ready(self) -> list[Ready]:
        """The workers that have become ready since."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        whole, _, self._rest = (self._rest + new.decode("utf-8", "replace")).rpartition("\n")
        return [
            Ready(
                _seconds(found["at"]),
                found["model"],
                int(found["incarnation"]),
                int(found["pid"]),
                float(found["load_s"]),
                float(found["warmup_s"]),
            )
            for found in _READY.finditer(whole)
        ]


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").timestamp()
