"""What a pool's metrics page says of the stages of requests, and of their batches: sums over a time, from two looks.

The parsing is pure; `StageClock` and `BatchClock` ask a server's REST port.
"""

import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

PATH = "/monitoring/prometheus/metrics"
STAGES = ("queue", "deserialize", "batch", "execute", "serialize")
# Of `--monitoring_config_file`, without which there is no page.
MONITORING = "prometheus_config { enable: true }\n"
_STAGES = "modelpool_request_stage_seconds"
_BATCHES = "modelpool_batch_requests"
_LINE = re.compile(rf"({_STAGES}|{_BATCHES})_(sum|count)\{{([^}}]*)\}} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_REPORTED_WITHIN_S = 5.0
_POLL_S = 0.2
Totals = TypeVar("Totals")


@dataclass(frozen=True, slots=True)
class StageTotals:
    """By stage: seconds in all, and how often."""

    seconds: Mapping[str, float]
    counts: Mapping[str, float]

    def since(self, before: "StageTotals") -> "StageTotals":
        return StageTotals(
            {name: total - before.seconds.get(name, 0.0) for name, total in self.seconds.items()},
            {name: count - before.counts.get(name, 0.0) for name, count in self.counts.items()},
        )

    def mean_us(self) -> dict[str, float]:
        """Of each stage that there was."""
        return {name: self.seconds[name] / count * 1e6 for name, count in self.counts.items() if count > 0}


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """Requests that were run in batches, and how many runs there were."""

    requests: float
    runs: float

    def since(self, before: "BatchTotals") -> "BatchTotals":
        return BatchTotals(self.requests - before.requests, self.runs - before.runs)

    def mean(self) -> float:
        """Requests of a run; 0 when there was none."""
        return self.requests / self.runs if self.runs > 0 else 0.0


def read_stages(page: str, model: str) -> StageTotals:
    """Of one model, over all methods and versions."""
    totals: dict[str, dict[str, float]] = {"sum": {}, "count": {}}
    for kind, named, value in _lines(page, _STAGES, model):
        stage = named["stage"]
        totals[kind][stage] = totals[kind].get(stage, 0.0) + value
    return StageTotals(totals["sum"], totals["count"])


def read_batches(page: str, model: str) -> BatchTotals:
    """Of one model, over all versions."""
    totals = {"sum": 0.0, "count": 0.0}
    for kind, _, value in _lines(page, _BATCHES, model):
        totals[kind] += value
    return BatchTotals(totals["sum"], totals["count"])


def _lines(page: str, family: str, model: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for name, kind, labels, value in _LINE.findall(page):
        named = dict(_LABEL.findall(labels))
        if name == family and named.get("model") == model:
            yield kind, named, float(value)


class _Clock(Generic[Totals]):
    """Asks one server for one model's totals. Workers report each second: it asks until nothing changes any more."""

    def __init__(self, address: str, model: str, read: Callable[[str, str], Totals]) -> None:
        self._url = f"http://{address}{PATH}"
        self._model = model
        self._read = read

    def read(self) -> Totals:
        """When nothing runs: all that was counted."""
        until = time.monotonic() + _REPORTED_WITHIN_S
        last, since = self._page(), time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < 1.5:
            time.sleep(_POLL_S)
            now = self._page()
            if now != last:
                last, since = now, time.monotonic()
        return last

    def _page(self) -> Totals:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            return self._read(answer.read().decode("utf-8"), self._model)


class StageClock(_Clock[StageTotals]):
    """Of its stages."""

    def __init__(self, address: str, model: str) -> None:
        super().__init__(address, model, read_stages)


class BatchClock(_Clock[BatchTotals]):
    """Of its batches."""

    def __init__(self, address: str, model: str) -> None:
        super().__init__(address, model, read_batches)
