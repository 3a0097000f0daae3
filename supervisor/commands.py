"""What the manager says is to be done, as frozen data. The pool does it; nothing here knows how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .devices import Device
from .wire.flight_recorder import Recording
from .wire.ids import Incarnation, SlotId
from .wire.route_table import RouteTable


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker for this slot. `urgent`: it brings back what was served before, and clients wait.

    `memory_limit_bytes`: TensorFlow's part of what the process may take of the device; 0 for no limit.
    `renewal`: it is to replace one that serves. `part` of `parts`: which, where replicas divide something.
    """

    incarnation: Incarnation
    slot: SlotId
    path: str
    device: Device
    urgent: bool
    memory_limit_bytes: int = 0
    renewal: bool = False
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to finish and go; nothing is in flight on it."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL; the exit is reported as any other. `hung`: what its threads are at is worth knowing first."""

    incarnation: Incarnation
    reason: str
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this table to every frontend."""

    table: RouteTable


@dataclass(frozen=True, slots=True)
class AnnounceDeath:
    """Tell every frontend that the worker is gone, and what it was at."""

    incarnation: Incarnation
    cause: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Report:
    """Keep this crash report."""

    document: Mapping[str, Any]


Command = Spawn | Stop | Kill | Publish | AnnounceDeath | Report
