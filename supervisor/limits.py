"""How long a worker may take for each part of its life, and why it is killed after that. Pure."""

import math
from dataclasses import dataclass

from .lifecycle import SlotState
from .servable import Slot


@dataclass(frozen=True, slots=True)
class Limits:
    """`load_s`: what a load, or its warmup, may take. `heartbeat_s`: silence after which a worker is taken for hung.
    `exit_s`: how long one that was told to go, with nothing in flight, may take; a killed one is killed again after it.
    """

    start_s: float = 120.0
    load_s: float = 3600.0
    heartbeat_s: float = 30.0
    exit_s: float = 10.0

    def overdue(self, slot: Slot) -> tuple[float, str] | None:
        """When the process of this slot must be killed, and why; None when it has none.

        One that drains may finish what is in flight however long that takes, as long as it lives.
        """
        match slot.state:
            case SlotState.DRAINING | SlotState.KILLING if slot.kill_by_s is not None:
                return slot.kill_by_s, f"it did not exit within {self.exit_s:g} s"
            case SlotState.DRAINING:
                return self._silence(slot)
            case SlotState.STARTING:
                return slot.since_s + self.start_s, f"it did not start within {self.start_s:g} s"
            case SlotState.LOADING | SlotState.WARMING | SlotState.READY:
                return min(self._silence(slot), self._load(slot))
        return None

    def _silence(self, slot: Slot) -> tuple[float, str]:
        return (slot.heartbeat_s or slot.since_s) + self.heartbeat_s, f"no heartbeat for {self.heartbeat_s:g} s"

    def _load(self, slot: Slot) -> tuple[float, str]:
        if slot.state is SlotState.READY:
            return math.inf, ""
        return slot.since_s + self.load_s, f"it was {slot.state} for {self.load_s:g} s"
