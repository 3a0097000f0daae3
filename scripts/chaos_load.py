"""Load on a pool while something is done to it, and what its clients saw. Knows nothing of what is done."""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SCRIPTS = Path(__file__).resolve().parent
_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 60.0


Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Call:
    """One call; times on CLOCK_MONOTONIC. `right`: the answer carried the number of its request."""

    began_s: float
    ended_s: float
    code: str
    text: str
    right: bool

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Calls:
    """What the clients of one model saw."""

    all: Sequence[Call]

    def between(self, from_s: float, to_s: float = math.inf) -> "Calls":
        """Those that ended in this stretch of time."""
        return Calls([call for call in self.all if from_s <= call.ended_s < to_s])

    def within(self, spans: Sequence[Span]) -> "Calls":
        """Those that ended in one of these stretches."""
        return Calls([call for from_s, to_s in spans for call in self.between(from_s, to_s).all])

    @property
    def refused(self) -> list[Call]:
        return [call for call in self.all if call.code != "OK"]

    @property
    def wrong(self) -> int:
        """Answers that were another request's, or nobody's."""
        return sum(call.code == "OK" and not call.right for call in self.all)

    @property
    def answered(self) -> int:
        return sum(call.code == "OK" for call in self.all)

    @property
    def codes(self) -> dict[str, int]:
        """How often which code other than OK."""
        return dict(Counter(call.code for call in self.refused))

    @property
    def texts(self) -> list[str]:
        """The different refusals, the most frequent first."""
        return [text for text, _ in Counter(f"{call.code}: {call.text}" for call in self.refused).most_common()]

    def percentile_ms(self, share: float) -> float:
        """Of the answered calls; 0 when there is none."""
        took_s = sorted(call.took_s for call in self.all if call.code == "OK")
        return took_s[min(len(took_s) - 1, int(share * len(took_s)))] * 1e3 if took_s else 0.0

    @property
    def p99_ms(self) -> float:
        return self.percentile_ms(0.99)

    def __len__(self) -> int:
        return len(self.all)


class Load:
    """So many clients of each model, from the start of the `with` block to its end; then `calls`, by model.

    `pause_s`: of each client, between two calls. `rate_per_s`: in place of clients that wait for their answers, so many
    calls a second of each model.
    """

    def __init__(self, target: str, clients: Mapping[str, int], pause_s: float = 0.0, rate_per_s: float = 0.0) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="mp-chaos-", suffix=".json")  # noqa: SIM115 - closed with it
        models = [f"{model}:{count}:{pause_s}:{rate_per_s}" for model, count in clients.items()]
        self._command = [sys.executable, str(SCRIPTS / "chaos_client.py"), target, self._file.name, *models]
        self._models = tuple(clients)
        self.calls: dict[str, Calls] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "running\n":
            raise SystemExit("the clients of a scene did not start")
        self.began_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended_s = time.monotonic()
        try:
            if error is not None:
                return
            assert self._process.stdin is not None
            self._process.stdin.close()
            if self._process.wait(_STOP_WITHIN_S) != 0:
                raise SystemExit("the clients of a scene failed")
            raw = json.loads(Path(self._file.name).read_text(encoding="utf-8"))
            self.calls = {model: Calls([Call(*call) for call in raw[model]]) for model in self._models}
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._file.close()
