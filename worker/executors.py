"""How many runs of the model go on at the same time: as many as was said, or as many as was found to pay. Pure.

One run seldom keeps all CPUs busy: its threads wait for each other at every operation. A second one beside it fills the
gaps, if the model is one that has any. So while requests wait and runs are long enough for it to matter, one executor
and two are tried in turn, on the requests that come; then, where two were better, two and four. A trial takes a second
or two in which the machine may do anything: the first ones come soon after each other, and what they found is put
together. Main thread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

# Shorter runs lose more to the hand-over to another thread than they could gain.
LONG_S = 0.002
_ENOUGH_RUNS = 8
# Each number of executors is tried so often, in turn, for so long; half as often where it is known what more of them
# bring, for who waits meanwhile waits longer. They must bring so much.
TURNS, TURN_NS = 4, 200_000_000
GAIN = 1.05
# It is tried again after a while, for machines and neighbours change: twice as long each time that all was as it had
# been, at most so long. Soon, where too few requests came to tell.
AGAIN_NS, AGAIN_MOST_NS, SOON_NS = 10_000_000_000, 320_000_000_000, 1_000_000_000
# How much the last trial counts in what is known of a gain: one in a disturbed second is not the whole truth.
_WEIGHT = 1 / 2


class Executors(Protocol):
    """`count` is how many may be at it now, never more than `most`. With one the main thread runs the model itself."""

    @property
    def count(self) -> int: ...

    @property
    def most(self) -> int: ...

    def ran(self, now_ns: int, requests: int, took_s: float) -> None:
        """A run has ended, which answered so many requests."""

    def idle(self, running: int) -> None:
        """There is nothing to run for some of them; `running` are at it."""


@dataclass(frozen=True, slots=True)
class FixedExecutors:
    """As many as the operator says."""

    count: int = 1

    @property
    def most(self) -> int:
        return self.count

    def ran(self, now_ns: int, requests: int, took_s: float) -> None:
        """Nothing is learned of it."""

    def idle(self, running: int) -> None:
        """Nothing is learned of it."""


@dataclass(slots=True)
class _Trial:
    """`few` executors against `many`. Runs that were under way when a turn began are `skipped`."""

    few: int
    many: int
    skipped: int = 0
    began_ns: int = 0
    requests: int = 0
    rates: dict[int, list[float]] = field(default_factory=dict)


class LearnedExecutors:
    """From one to `most`, a power of two. `tell(count, rates)` is called with what is used after each trial, and what
    it has found: requests/s by number of executors.
    """

    def __init__(self, most: int, tell: Callable[[int, dict[int, float]], None]) -> None:
        self.count = 1
        self.most = most
        self._tell = tell
        self._best = self._before = 1
        """What is used, and what was before the trials that are being made."""
        self._gains: dict[int, float] = {}
        """What twice as many as these bring, in times, by all trials."""
        self._clear = True
        """No trial since has said something else than all of them together."""
        self._again_ns = AGAIN_NS // 2
        self._run_s = 0.0
        self._runs = 0
        self._now_ns = 0
        self._due_ns = 0
        self._trial: _Trial | None = None

    def ran(self, now_ns: int, requests: int, took_s: float) -> None:
        self._now_ns = now_ns
        self._runs += 1
        self._run_s += (took_s - self._run_s) / min(self._runs, _ENOUGH_RUNS)
        trial = self._trial
        if trial is None:
            if self._runs >= _ENOUGH_RUNS and self._run_s >= LONG_S and now_ns >= self._due_ns:
                self._before, self._clear = self._best, True
                self._try(max(1, self._best // 2))
        elif trial.skipped < trial.many + trial.few:
            trial.skipped, trial.began_ns = trial.skipped + 1, now_ns
        else:
            trial.requests += requests
            if now_ns - trial.began_ns >= TURN_NS:
                self._turn_over(trial, now_ns)

    def idle(self, running: int) -> None:
        """Requests must wait for the few, or more executors cannot show what they are worth."""
        self._runs = 0
        trial = self._trial
        if trial is not None and (self.count == trial.few or not running):
            self._trial, self.count = None, self._best
            self._due_ns = self._now_ns + SOON_NS

    def _try(self, few: int) -> bool:
        """Whether twice as many are better; False where there may not be so many."""
        if 2 * few > self.most:
            return False
        self._trial = _Trial(few, 2 * few)
        self.count = few
        return True

    def _turn_over(self, trial: _Trial, now_ns: int) -> None:
        trial.rates.setdefault(self.count, []).append(trial.requests / (now_ns - trial.began_ns) * 1e9)
        self.count = trial.many if self.count == trial.few else trial.few
        trial.skipped = trial.requests = 0
        turns = TURNS // 2 if trial.few in self._gains else TURNS
        if len(trial.rates.get(trial.many, ())) < turns:
            return
        rates = {count: sum(each) / turns for count, each in trial.rates.items()}
        # No more than twice as much: where the few got next to nothing, they were kept from running.
        gain = min(trial.many / trial.few, rates[trial.many] / max(rates[trial.few], 1e-9))
        better = self._are_better(trial.few, gain)
        self._trial = None
        self._best = self.count = trial.many if better else trial.few
        self._tell(self.count, rates)
        if not better or not self._try(trial.many):
            self._rest(now_ns)

    def _are_better(self, few: int, gain: float) -> bool:
        """Twice as many, which brought so much now."""
        known = self._gains.get(few, gain)
        self._gains[few] = known = known + _WEIGHT * (gain - known)
        better = known > GAIN
        self._clear &= better == (gain > GAIN)
        return better

    def _rest(self, now_ns: int) -> None:
        """Until the next trial."""
        as_before = self._clear and self._best == self._before
        self._again_ns = min(AGAIN_MOST_NS, 2 * self._again_ns) if as_before else AGAIN_NS
        self._due_ns = now_ns + self._again_ns
