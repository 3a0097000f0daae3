"""How long a worker may take for each part of its life, and why it is killed after that. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from .lifecycle import LOADING, SlotState
from .servable import Slot

BEAT_S = 0.5
"""Time between two heartbeats of a worker."""
# One that is late by less than this is late, and not lost.
_MIN_SILENCE_S = 2.0
_LATE_S = 0.4


@dataclass(frozen=True, slots=True)
class Overdue:
    """From `at_s` on the process is to be killed because of `reason`."""

    at_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """`load_s`: what a load, or its warmup, may take. `heartbeat_s`: silence after which a worker is taken for hung.
    `exit_s`: how long one that was told to go, with nothing in flight, may take; a killed one is killed again after it.
    """

    start_s: float = 120.0
    load_s: float = 3600.0
    heartbeat_s: float = 30.0
    exit_s: float = 10.0

    def overdue(self, slot: Slot, run_timeout_s: float = 0.0) -> Overdue | None:
        """When the process of this slot must be killed, and why; None when it has none.

        `run_timeout_s`: what one execution of its model may take, 0 for as long as it likes. One that drains may
        finish what is in flight within that.
        """
        return min(self._all(slot, run_timeout_s), key=lambda overdue: overdue.at_s, default=None)

    def presses(self, slot: Slot, run_timeout_s: float, now_s: float) -> bool:
        """Half of the time is gone after which one that serves is taken for hung.

        Times are of the clock on the wall: one that waits for a CPU must get it as long as there is some left.
        """
        if self._silent(slot, self._silence_s(run_timeout_s) / 2).at_s < now_s:
            return True
        return bool(run_timeout_s) and slot.busy_since_s is not None and slot.busy_since_s + run_timeout_s / 2 < now_s

    def _all(self, slot: Slot, run_timeout_s: float) -> Iterator[Overdue]:
        if slot.state in {SlotState.DRAINING, SlotState.KILLING} and slot.kill_by_s is not None:
            yield Overdue(slot.kill_by_s, f"it did not exit within {self.exit_s:g} s")
            return
        if slot.state is SlotState.STARTING:
            yield Overdue(slot.since_s + self.start_s, f"it did not start within {self.start_s:g} s")
            return
        if slot.state in {SlotState.READY, SlotState.DRAINING}:
            yield self._silent(slot, self._silence_s(run_timeout_s))
            if run_timeout_s and slot.busy_since_s is not None:
                text = f"one execution took longer than run_timeout_s = {run_timeout_s:g} s"
                yield Overdue(self._executed_s(slot, slot.busy_since_s + run_timeout_s), text)
        elif slot.state in LOADING:
            yield self._silent(slot, self.heartbeat_s)
            yield Overdue(slot.since_s + self.load_s, f"it was {slot.state} for {self.load_s:g} s")

    def _executed_s(self, slot: Slot, at_s: float) -> float:
        """The next heartbeat may say that what it was at is done, if there has been none since."""
        heard_s = slot.since_s if slot.heartbeat_s is None else slot.heartbeat_s
        return at_s if heard_s >= at_s else max(at_s, heard_s + BEAT_S + _LATE_S)

    def _silence_s(self, run_timeout_s: float) -> float:
        """One that stands still executes nothing in time either, whether it has a request or not."""
        if not run_timeout_s:
            return self.heartbeat_s
        return min(self.heartbeat_s, max(_MIN_SILENCE_S, run_timeout_s + _LATE_S))

    def _silent(self, slot: Slot, silence_s: float) -> Overdue:
        heard_s = slot.since_s if slot.heartbeat_s is None else slot.heartbeat_s
        return Overdue(heard_s + silence_s, f"no heartbeat for {silence_s:g} s")
