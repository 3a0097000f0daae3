"""When a slot whose process died, or whose load failed, is tried again. Pure: time and chance are handed in.

After OTP's supervisor: a restart intensity within a period. Beyond it the slot is given up, and tried again at long,
growing intervals (half open). Load retries are TF Serving's `max_num_load_retries` and `load_retry_interval_micros`;
they count loads that ended with an error, not processes that died.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

# One that serves for less than so many times what its load took is never worth its load.
_LIVES_PER_LOAD = 10.0


class Death(StrEnum):
    """How an incarnation ended, as far as the next try is concerned."""

    AFTER_READY = "after_ready"
    """It had answered, or had been ready for a while."""
    BEFORE_READY = "before_ready"
    """The process died while it loaded, or as soon as it was ready."""
    NOT_STARTED = "not_started"
    """There never was a process, or none that could take its place: the fork server had died, or the system had no room
    for one, or for its socket."""
    LOAD_FAILED = "load_failed"
    """The load or the warmup ended with an error that may pass."""
    PERMANENT = "permanent"
    """The load ended with an error that another try would meet again."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`max_restarts` deaths within `period_s` are replaced; the one after is too many. So is a death before READY when
    the wait before the last try was `backoff_limit_s` already. Where another version could serve instead, so are
    `max_short_lives` deaths in a row, each within `period_s` (or ten times what its load took) of its being ready: slow
    crash loops are not seen by the intensity, and better endured than given up where there is nothing else.
    """

    max_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    max_restarts: int = 20
    period_s: float = 60.0
    max_short_lives: int = 10
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
    _early_deaths: int = 0
    _not_started: int = 0
    _given_up: int = 0
    _ready_since_s: float | None = None
    _load_s: float = 0.0
    _short_lives: int = 0

    def died(self, death: Death, now_s: float, *, dispensable: bool = False) -> TryAgain | GiveUp:
        """What to do about one death at `now_s`. `dispensable`: another version could serve instead."""
        match death:
            case Death.PERMANENT:
                return GiveUp("the load failed for good", None)
            case Death.LOAD_FAILED:
                return self._load_failed(now_s)
            case Death.NOT_STARTED:
                return self._did_not_start(now_s)
            case _:
                return self._process_died(death, now_s, dispensable=dispensable)

    @property
    def cannot_start(self) -> bool:
        """No process took its place, not after the longest wait either. It is tried on; but a start that is to end
        when something fails has waited long enough.
        """
        tries = self._not_started
        return tries > 2 and self._full_backoff_s(tries - 2) >= self.policy.backoff_limit_s

    @property
    def is_steady(self) -> bool:
        """A death now and then is no crash loop, and it comes back from it."""
        loses = self._given_up or self._failed_loads
        return not loses and self._short_lives <= 1 and self._early_deaths <= 1

    def became_ready(self, now_s: float, load_s: float = 0.0) -> None:
        """The slot answers again: earlier failed loads are forgotten, deaths only after a quiet period."""
        self._failed_loads = self._not_started = 0
        self._ready_since_s, self._load_s = now_s, load_s

    def forget(self) -> None:
        """Start afresh: somebody has looked after it."""
        self._failed_loads = self._early_deaths = self._not_started = self._given_up = self._short_lives = 0
        self._deaths.clear()

    def _load_failed(self, now_s: float) -> TryAgain | GiveUp:
        self._failed_loads += 1
        if self._failed_loads > self.policy.max_load_retries:
            return self._give_up(f"{self._failed_loads} loads failed", now_s)
        return TryAgain(now_s + max(0.0, self.policy.load_retry_interval_s))

    def _did_not_start(self, now_s: float) -> TryAgain:
        """No fault of the model's: once more at once, then ever less often, for as long as it takes."""
        self._not_started += 1
        return TryAgain(now_s if self._not_started == 1 else now_s + self._backoff_s(self._not_started - 1))

    def _process_died(self, death: Death, now_s: float, *, dispensable: bool) -> TryAgain | GiveUp:
        while self._deaths and self._deaths[0] <= now_s - self.policy.period_s:
            self._deaths.popleft()
        if self._ready_since_s is not None and now_s - self._ready_since_s >= self.policy.period_s:
            self._given_up = 0
        if death is Death.AFTER_READY:
            self._short_lives = self._short_lives + 1 if self._lived_short(now_s) else 0
        self._early_deaths = self._early_deaths + 1 if death is Death.BEFORE_READY else 0
        self._ready_since_s = None
        self._deaths.append(now_s)
        if len(self._deaths) > self.policy.max_restarts:
            return self._give_up(f"{len(self._deaths)} deaths within {self.policy.period_s:g} s", now_s)
        if self._given_up:
            return self._give_up("it died again on trial", now_s)
        if dispensable and self._short_lives >= self.policy.max_short_lives:
            return self._give_up(f"{self._short_lives} deaths in a row, each soon after it was ready", now_s)
        if death is Death.AFTER_READY:
            return TryAgain(now_s)
        if self._early_deaths > 1 and self._full_backoff_s(self._early_deaths - 1) >= self.policy.backoff_limit_s:
            return self._give_up(f"{self._early_deaths} deaths before it was ready", now_s)
        return TryAgain(now_s + self._backoff_s(self._early_deaths))

    def _give_up(self, reason: str, now_s: float) -> GiveUp:
        wait_s = min(self.policy.half_open_limit_s, self.policy.half_open_s * _doubled(self._given_up))
        self._given_up += 1
        self._failed_loads = self._early_deaths = self._short_lives = 0
        self._deaths.clear()
        return GiveUp(reason, now_s + wait_s)

    def _lived_short(self, now_s: float) -> bool:
        """Its death counts as the next of a crash loop, however slow that is."""
        if self._ready_since_s is None:
            return False
        return now_s - self._ready_since_s < max(self.policy.period_s, _LIVES_PER_LOAD * self._load_s)

    def _backoff_s(self, times: int) -> float:
        """1, 2, 4 ... seconds, less up to a quarter so that slots that died together do not come back together."""
        return self._full_backoff_s(times) * (1.0 - 0.25 * self.jitter())

    def _full_backoff_s(self, times: int) -> float:
        return min(self.policy.backoff_limit_s, self.policy.backoff_base_s * _doubled(times - 1))


def _doubled(times: int) -> float:
    """2 to the power of `times`, as far as any limit reaches: a model may fail for years."""
    return 2.0 ** min(times, 60)
