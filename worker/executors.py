"""How many runs of the model go on at the same time: as many as was said, or as many as was found to pay. Pure.

One run seldom keeps all CPUs busy: its threads wait for each other at every operation. A second one beside it fills the
gaps, if the model is one that has any. So while requests wait and runs are long enough for it to matter, one executor
and two are tried in turn, on the requests that come; then, where two were better, two and four. A trial takes a second
or two in which the machine may do anything: so the first goes on for longer while it is not clear, and what all have
found is put together. Main thread.
"""

import math
import statistics
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
# Where nothing is known it is tried for up to so long, until what the turns say is further from `GAIN` than twice its
# standard error. With a standard deviation of 5 % for each turn, four alone are wrong of a gain of 1.11 in one of 17
# trials, and as many as it takes in one of some 190.
MOST_NS = 6_400_000_000
_CLEAR = 2.0
# What one turn may say at the most: beyond that, one of the two was kept from running.
_LEAST_GAIN, _MOST_GAIN = 0.5, 2.0
# It is tried again after a while, for machines and neighbours change: twice as long each time that nothing new was
# found, at most so long. Not sooner: a queue that is full waits for longer meanwhile, and every tenth second such a
# trial would be most of its p99. Soon, where nothing is known yet, since too few requests came to tell.
AGAIN_NS, AGAIN_MOST_NS, SOON_NS = 60_000_000_000, 240_000_000_000, 1_000_000_000
# How much the last trial counts in what is known of a gain: one in a disturbed second is not the whole truth.
_WEIGHT = 1 / 2
_NEXT_TO_NOTHING = 1e-3  # requests/s


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
    """`few` executors against `many`, in turn, the few first; each at least `turns` times, more often until `until_ns`.

    Runs that were under way when a turn began are `skipped`. A turn is as many runs as go on at the same time, or twice
    as many, and so on: those that are alike begin together and end together, and of another number one more may be
    counted than the time was for.
    """

    few: int
    many: int
    turns: int
    until_ns: int
    skipped: int = 0
    began_ns: int = 0
    runs: int = 0
    requests: int = 0
    few_rate: float = 0.0
    pairs: list[tuple[float, float]] = field(default_factory=list)
    """What the few did in a turn, and the many in the one after it, in requests/s."""

    def gain(self) -> tuple[float, float]:
        """What the many bring, in times of the few, and its standard error. Of all turns together: the mean of the
        single ratios would be too much where they are far apart. One in which the few were kept from running says next
        to nothing, and one in which the many were counts as half: where it is wrong, it is for the few.
        """
        turns = [(few + _NEXT_TO_NOTHING, many + _NEXT_TO_NOTHING) for few, many in self.pairs]
        pairs = [(few, min(_MOST_GAIN * few, max(_LEAST_GAIN * few, many))) for few, many in turns]
        sum_of_few = sum(few for few, _ in pairs)
        gain = sum(many for _, many in pairs) / sum_of_few
        off = sum((many - gain * few) ** 2 for few, many in pairs) / (len(pairs) - 1)
        return gain, math.sqrt(off * len(pairs)) / sum_of_few

    @property
    def is_enough(self) -> bool:
        """Whether it says something, were it to end now."""
        return len(self.pairs) >= self.turns

    def is_over(self, now_ns: int) -> bool:
        """After a turn of the many: whether it is clear which are better, or will not be made any clearer."""
        if not self.is_enough:
            return False
        gain, error = self.gain()
        return now_ns >= self.until_ns or abs(gain - GAIN) > _CLEAR * error


class LearnedExecutors:
    """From one to `most`, a power of two. `tell(count, rates)` is called with what is used after each trial, and what
    it has found: requests/s by number of executors.
    """

    def __init__(self, most: int, tell: Callable[[int, dict[int, float]], None]) -> None:
        self.count = 1
        self.most = most
        self._tell = tell
        self._best = 1
        self._gains: dict[int, float] = {}
        """What twice as many as these bring, in times, by all trials."""
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
                self._try(max(1, self._best // 2))
        elif trial.skipped < trial.many + trial.few:
            trial.skipped, trial.began_ns = trial.skipped + 1, now_ns
        else:
            trial.runs, trial.requests = trial.runs + 1, trial.requests + requests
            if trial.runs % self.count == 0 and now_ns - trial.began_ns >= TURN_NS:
                self._turn_over(trial)

    def idle(self, running: int) -> None:
        """Requests must wait for the few, or more executors cannot show what they are worth."""
        self._runs = 0
        trial = self._trial
        if trial is None or (running and self.count == trial.many):
            return
        if trial.is_enough:
            self._end(trial)
        else:
            self._give_up()

    def _try(self, few: int) -> None:
        """Whether twice as many are better, if there may be so many."""
        if 2 * few > self.most:
            self._rest()
            return
        if few in self._gains:
            self._trial = _Trial(few, 2 * few, TURNS // 2, until_ns=self._now_ns)
        else:
            self._trial = _Trial(few, 2 * few, TURNS, until_ns=self._now_ns + MOST_NS)
        self.count = few

    def _turn_over(self, trial: _Trial) -> None:
        rate = trial.requests / (self._now_ns - trial.began_ns) * 1e9
        trial.skipped = trial.runs = trial.requests = 0
        if self.count == trial.few:
            trial.few_rate, self.count = rate, trial.many
            return
        trial.pairs.append((trial.few_rate, rate))
        self.count = trial.few
        if trial.is_over(self._now_ns):
            self._end(trial)

    def _end(self, trial: _Trial) -> None:
        few, many = map(statistics.fmean, zip(*trial.pairs, strict=True))
        better = self._learn(trial)
        self._trial = None
        self._best = self.count = trial.many if better else trial.few
        self._tell(self.count, {trial.few: few, trial.many: many})
        if better:
            self._try(trial.many)
        else:
            self._rest()

    def _learn(self, trial: _Trial) -> bool:
        """Whether the many are better, by this trial and those before it."""
        gain, _ = trial.gain()
        known = self._gains.get(trial.few, gain)
        self._gains[trial.few] = known = known + _WEIGHT * (gain - known)
        better = known > GAIN
        if better != (gain > GAIN) or better != (self._best > trial.few):
            self._again_ns = AGAIN_NS // 2
        return better

    def _give_up(self) -> None:
        """Too few requests came. Where something is known it costs those that wait, so it is not made again soon."""
        self._trial, self.count = None, self._best
        if self._gains:
            self._rest()
        else:
            self._due_ns = self._now_ns + SOON_NS

    def _rest(self) -> None:
        """Until the next trials."""
        self._again_ns = min(AGAIN_MOST_NS, 2 * self._again_ns)
        self._due_ns = self._now_ns + self._again_ns
