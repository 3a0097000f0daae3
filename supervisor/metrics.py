"""Adds up what frontends, workers and the supervisor report. Pure.

A process reports absolute values. Those of one that has ended go on counting: its counters and histograms are folded
into totals by name and labels, its gauges end with it. So no counter ever goes back, and what is kept grows with the
number of label values and not with that of restarts.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .wire.ids import Incarnation, ServableId
from .wire.metric_families import FAMILIES
from .wire.metric_messages import MetricSample
from .wire.metrics import Family, Kind, unpack
from .wire.sockets import Peer

Values = list[float]
Labels = tuple[str, ...]
Series = dict[str, dict[Labels, Values]]
"""By family name and label values. See `Family.size`."""

Source = tuple[Peer, Incarnation]
# A process's last report may still be on its way when its end is seen.
MAX_UNFOLDED = 32
# Of one family, series that no living process has: model paths and names come and go for years.
MAX_DEAD_SERIES = 5000
# Sums of any number of values below it are finite.
_LIMIT = 2.0**900


@dataclass(slots=True)
class MetricsBook:
    """All metrics of the pool."""

    _live: dict[Source, Series] = field(default_factory=dict)
    _ended: dict[Source, Series] = field(default_factory=dict)
    _totals: Series = field(default_factory=dict)

    def joined(self, source: Source) -> None:
        """A process has started; what others report is ignored."""
        self._live.setdefault(source, {})

    def report(self, source: Source, samples: Iterable[MetricSample]) -> None:
        """Take in what a process says. What makes no sense, such as a count that shrinks, is ignored."""
        series = self._live.get(source)
        if series is None:
            series = self._ended.get(source)
        if series is None:
            return
        for sample in samples:
            family = FAMILIES.get(sample.family)
            if family is None or len(sample.labels) != len(family.labels):
                continue
            values = _values(family, sample.values)
            known = series.setdefault(family.name, {})
            before = known.get(sample.labels)
            if values is not None and (before is None or family.kind is Kind.GAUGE or _grew(before, values)):
                known[sample.labels] = values

    def ended(self, source: Source) -> None:
        """A process is gone: its gauges are forgotten, its counts stay."""
        series = self._live.pop(source, None)
        if series is None:
            return
        self._ended[source] = series
        while len(self._ended) > MAX_UNFOLDED:
            self._fold(self._ended.pop(next(iter(self._ended))))

    def retain(self, servables: Iterable[ServableId]) -> None:
        """Forget the totals of versions that are not among these and that no process reports any more."""
        wanted = {(id_.name, str(id_.version)) for id_ in servables}
        for name, totals in self._totals.items():
            family = FAMILIES[name]
            kept = self._reported(name)
            if family.labels[:2] == ("model", "version"):
                for labels in [each for each in totals if each[:2] not in wanted and each not in kept]:
                    del totals[labels]
            dead = [labels for labels in totals if labels not in kept]
            for labels in dead[: max(0, len(dead) - MAX_DEAD_SERIES)]:
                del totals[labels]

    def series(self) -> Series:
        """The sums over all processes, with every family that there is."""
        merged: Series = {name: {} for name in FAMILIES}
        _add(merged, self._totals)
        for series in self._ended.values():
            _add(merged, series, gauges=False)
        for series in self._live.values():
            _add(merged, series)
        return merged

    def _fold(self, series: Series) -> None:
        _add(self._totals, series, gauges=False)

    def _reported(self, name: str) -> set[Labels]:
        return {
            labels for each in (self._live, self._ended) for series in each.values() for labels in series.get(name, ())
        }


def _values(family: Family, raw: bytes) -> Values | None:
    try:
        values = unpack(raw)
    except ValueError:
        return None
    # Neither a NaN nor an infinity is a count, and one would stay in the sums for ever.
    if len(values) != family.size or not math.isfinite(sum(values)):
        return None
    return values if max(values) < _LIMIT and min(values) > -_LIMIT else None


def _grew(before: Values, after: Values) -> bool:
    """No number is smaller; a histogram's sum, which comes first, may be where observations are negative."""
    first = 1 if len(before) > 1 else 0
    return all(map(operator.le, before[first:], after[first:]))


def _add(into: Series, series: Mapping[str, Mapping[Labels, Values]], *, gauges: bool = True) -> None:
    for name, metrics in series.items():
        if not gauges and FAMILIES[name].kind is Kind.GAUGE:
            continue
        sums = into.setdefault(name, {})
        for labels, values in metrics.items():
            before = sums.get(labels)
            sums[labels] = list(values) if before is None else list(map(operator.add, before, values))
