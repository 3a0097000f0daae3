"""Metrics on their way: from workers and frontends to the supervisor, and the page of all of them to a frontend."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One metric as it stands: absolute `values`, packed (see `metrics`)."""

    family: str
    labels: tuple[str, ...]
    values: bytes


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """The metrics of the sender that have changed since its last report. Sent about once a second, if any has."""

    samples: tuple[MetricSample, ...]


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """Asks for the page of all metrics of the pool."""

    token: int


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Supervisor to frontend: the page as text, for the question with this token."""

    token: int
    body: bytes


MetricMessage = MetricsReport | MetricsRequest | MetricsReply
