"""What a pool's metrics page says of the stages of requests: sums over a time, from two looks at the page.

The parsing is pure; `StageClock` asks a server's REST port.
"""

import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

PATH = "/monitoring/prometheus/metrics"
STAGES = ("queue", "deserialize", "batch", "execute", "serialize")
_FAMILY = "modelpool_request_stage_seconds"
_LINE = re.compile(_FAMILY + r"_(sum|count)\{([^}]*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_REPORTED_WITHIN_S = 5.0
_POLL_S = 0.2


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


def read_stages(page: str, model: str) -> StageTotals:
    """Of one model, over all methods and versions."""
    totals: dict[str, dict[str, float]] = {"sum": {}, "count": {}}
    for kind, labels, value in _LINE.findall(page):
        named = dict(_LABEL.findall(labels))
        if named.get("model") == model:
            stage = named["stage"]
            totals[kind][stage] = totals[kind].get(stage, 0.0) + float(value)
    return StageTotals(totals["sum"], totals["count"])


class StageClock:
    """Asks one server for one model's stages. Workers report each second: it asks until nothing changes any more."""

    def __init__(self, address: str, model: str) -> None:
        self._url = f"http://{address}{PATH}"
        self._model = model

    def read(self) -> StageTotals:
        """When nothing runs: all that was counted."""
        until = time.monotonic() + _REPORTED_WITHIN_S
        last, since = self._page(), time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < 1.5:
            time.sleep(_POLL_S)
            now = self._page()
            if now.counts != last.counts:
                last, since = now, time.monotonic()
        return last

    def _page(self) -> StageTotals:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            return read_stages(answer.read().decode("utf-8"), self._model)
