"""Counters, gauges and histograms of one process, and their way into a report. Standard library only.

Each process keeps one Registry. One thread writes a metric, without a lock: an update is an add to a list of its own.
The thread that reports may be another one: values only grow, and what it misses by a moment comes with the next
report. Reports carry absolute values, so that a lost one costs nothing; adding up processes is the supervisor's.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from .metric_messages import MetricSample


class Kind(StrEnum):
    """As the text format names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics of one name, told apart by the values of `labels`.

    `bounds`: the inclusive upper bounds of a histogram's buckets but the last, which takes the rest.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers a metric of it is: one, or a histogram's sum and its buckets (each for itself)."""
        return len(self.bounds) + 2 if self.kind is Kind.HISTOGRAM else 1


class _Metric:
    """`values`: see `Family.size`."""

    __slots__ = ("changed", "family", "labels", "values")

    def __init__(self, family: Family, labels: tuple[str, ...]) -> None:
        self.family = family
        self.labels = labels
        self.values = [0.0] * family.size
        self.changed = True


class Counter(_Metric):
    """A number that only grows."""

    __slots__ = ()

    def add(self, amount: float = 1.0) -> None:
        self.values[0] += amount
        self.changed = True


class Gauge(_Metric):
    """A number as it is now."""

    __slots__ = ()

    def set(self, value: float) -> None:
        if value != self.values[0]:
            self.values[0] = value
            self.changed = True


class Histogram(_Metric):
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds",)

    def __init__(self, family: Family, labels: tuple[str, ...]) -> None:
        super().__init__(family, labels)
        self._bounds = family.bounds

    def observe(self, value: float) -> None:
        values = self.values
        values[0] += value
        values[bisect_left(self._bounds, value) + 1] += 1.0
        self.changed = True

    def observe_all(self, values: list[int]) -> None:
        """Many at once, for a fraction of what they would take one by one. Sorts them."""
        values.sort()
        counts, before = [], 0
        for bound in self._bounds:
            up_to = bisect_right(values, bound, before)
            counts.append(up_to - before)
            before = up_to
        self.merge(sum(values), [*counts, len(values) - before])

    def merge(self, total: float, counts: Iterable[float]) -> None:
        """Many observations at once: their sum, and how many fell into each bucket."""
        values = self.values
        values[0] += total
        for place, count in enumerate(counts, 1):
            values[place] += count
        self.changed = True


M = TypeVar("M", Counter, Gauge, Histogram)


class Registry:
    """All metrics of a process. Whoever updates one often keeps what `counter`, `gauge` or `histogram` returned."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, tuple[str, ...]], _Metric] = {}

    def counter(self, family: Family, *labels: str) -> Counter:
        """The counter with these label values, in the order of `family.labels`; made when it is new."""
        return self._get(Counter, family, labels)

    def gauge(self, family: Family, *labels: str) -> Gauge:
        return self._get(Gauge, family, labels)

    def histogram(self, family: Family, *labels: str) -> Histogram:
        return self._get(Histogram, family, labels)

    def _get(self, make: type[M], family: Family, labels: tuple[str, ...]) -> M:
        metric = self._metrics.get((family.name, labels))
        if metric is None:
            assert len(labels) == len(family.labels), f"{family.name}: expected labels {family.labels}, got {labels}"
            metric = self._metrics[family.name, labels] = make(family, labels)
        assert isinstance(metric, make), f"{family.name} is a {family.kind}"
        return metric

    def changed(self) -> tuple[MetricSample, ...]:
        """What has changed since this was asked last. Any one thread, while another writes."""
        samples = []
        for metric in list(self._metrics.values()):
            if metric.changed:
                metric.changed = False  # before the values are read: a change from now on is of the next report
                samples.append(MetricSample(metric.family.name, metric.labels, pack(metric.values)))
        return tuple(samples)

    def lost(self, samples: Sequence[MetricSample]) -> None:
        """A report did not leave: its metrics have changed still."""
        for sample in samples:
            self._metrics[sample.family, sample.labels].changed = True


def pack(values: Sequence[float]) -> bytes:
    return array("d", values).tobytes()


def unpack(raw: bytes) -> list[float]:
    """Raises ValueError for what `pack` cannot have made."""
    values = array("d")
    values.frombytes(raw)
    return values.tolist()
