"""When a slot whose process died, or whose load failed, is tried again. Pure: time and chance are handed in.

After OTP's supervisor: a restart intensity within a period. Beyond it the slot is given up, and tried again at long,
growing intervals (half open). Load retries are TF Serving's `max_num_load_retries` and `load_retry_interval_micros`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Death(StrEnum):
    """How an incarnation ended, as far as the next try is concerned."""

    AFTER_READY = "after_ready"
    BEFORE_READY = "before_ready"
    """The process died while it loaded."""
    LOAD_FAILED = "load_failed"
    """The load or the warmup ended with an error that may pass."""
    PERMANENT = "permanent"
    """The load ended with an error that another try would meet again."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`max_restarts` deaths within `period_s` are replaced; the one after is too many."""

    max_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    max_restarts: int = 20
    period_s: float = 60.0
    backoff_base_s: float = 1.0
    backoff_limit_s: float = 64.0
    half_open_s: float = 60.0
    half_open_limit_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Start the next incarnation at `at_s`."""

    at_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The slot is FAILED; `retry_at_s` is the half-open try, None when another try is pointless."""

    reason: str
    retry_at_s: float | None


@dataclass(slots=True)
class RestartHistory:
    """What one slot remembers of its deaths. `jitter` gives a number in [0, 1)."""

    policy: RestartPolicy
    jitter: Callable[[], float]
    _deaths: deque[float] = field(default_factory=deque)
    _failed_loads: int = 0
    _given_up: int = 0
    _ready_since_s: float | None = None

    def died(self, death: Death, now_s: float) -> TryAgain | GiveUp:
        """What to do about one death at `now_s`."""
        if death is Death.PERMANENT:
            return GiveUp("the load failed for good", None)
        if death is Death.AFTER_READY:
            return self._after_ready(now_s)
        self._failed_loads += 1
        if self._failed_loads > self.policy.max_load_retries:
            return self._give_up(f"{self._failed_loads} loads failed", now_s)
        if death is Death.LOAD_FAILED:
            return TryAgain(now_s + max(0.0, self.policy.load_retry_interval_s))
        return TryAgain(now_s + self._backoff_s())

    def became_ready(self, now_s: float) -> None:
        """The slot answers again: earlier failed loads are forgotten, deaths only after a quiet period."""
        self._failed_loads = 0
        self._ready_since_s = now_s

    def _after_ready(self, now_s: float) -> TryAgain | GiveUp:
        while self._deaths and self._deaths[0] <= now_s - self.policy.period_s:
            self._deaths.popleft()
        if self._ready_since_s is not None and now_s - self._ready_since_s >= self.policy.period_s:
            self._given_up = 0
        self._deaths.append(now_s)
        if len(self._deaths) > self.policy.max_restarts:
            return self._give_up(f"{len(self._deaths)} deaths within {self.policy.period_s:g} s", now_s)
        if self._given_up:
            return self._give_up("it died again on trial", now_s)
        return TryAgain(now_s)

    def _give_up(self, reason: str, now_s: float) -> GiveUp:
        wait_s = min(self.policy.half_open_limit_s, self.policy.half_open_s * _doubled(self._given_up))
        self._given_up += 1
        self._failed_loads = 0
        self._deaths.clear()
        return GiveUp(reason, now_s + wait_s)

    def _backoff_s(self) -> float:
        """1, 2, 4 ... seconds, less up to a quarter so that slots that died together do not come back together."""
        full_s = self.policy.backoff_base_s * _doubled(self._failed_loads - 1)
        return min(self.policy.backoff_limit_s, full_s) * (1.0 - 0.25 * self.jitter())


def _doubled(times: int) -> float:
    """2 to the power of `times`, as far as any limit reaches: a model may fail for years."""
    return 2.0 ** min(times, 60)
