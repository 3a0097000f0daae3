"""What a scene is given and what it says: checks, each a promise that was kept or broken. Knows no scene."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, whether it was kept, and what was seen. `kept` None: a figure without a promise."""

    promise: str
    kept: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class Stage:
    """`models`: where the models are. `short`: the form of a few seconds, which the test suite runs."""

    scratch: Path
    models: Path
    short: bool

    def seconds(self, long_s: float, short_s: float) -> float:
        return short_s if self.short else long_s

    def timed(self, kept: bool) -> bool | None:
        """A promise about time is a figure only in the short form, which runs beside whatever else the machine does."""
        return None if self.short else kept


class Skipped(Exception):
    """The machine does not have what the scene needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scene ended. `skipped`: why it was not played, "" when it was."""

    scene: str
    checks: list[Check]
    skipped: str
    took_s: float

    @property
    def broken(self) -> list[Check]:
        return [check for check in self.checks if check.kept is False]


Scene = Callable[[Stage], list[Check]]


def play(name: str, scene: Scene, stage: Stage, broken: type[Exception]) -> Outcome:
    """Play a scene; an exception of the type `broken` is a broken promise, too."""
    began_s = time.monotonic()
    checks: list[Check] = []
    skipped = ""
    try:
        checks = scene(stage)
    except Skipped as reason:
        skipped = str(reason)
    except broken as reason:
        checks = [Check("the scene can be played to its end", False, str(reason))]
    return Outcome(name, checks, skipped, time.monotonic() - began_s)
