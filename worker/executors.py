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
# It is tried again after a while, for machines and neighbours change: twice as long each time that it was found as it
# was known, at most so long. Soon, where nothing is known yet, since too few requests came to tell.
AGAIN_NS, AGAIN_MOST_NS, SOON_NS = 10_000_000_000, 320_000_000_000, 1_000_000_000
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
class _Seen:
    """What so many executors did in their turns."""

    runs: int = 0
    requests: float = 0.0
    took_s: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / max(self.took_s, 1e-9)


@dataclass(slots=True)
class _Trial:
    """`few` executors against `many`, by `turns`. Runs that were under way when a turn began are `skipped`."""

    few: int
    many: int
    seen: dict[int, _Seen] = field(default_factory=dict)
    turns: int = 0
    """Of the many, whole ones."""
    skipped: int = 0
    began_ns: int = 0
    runs: int = 0
    requests: int = 0

    def next_turn(self) -> None:
        self.skipped = self.runs = self.requests = 0

    def note(self, count: int, now_ns: int) -> None:
        """The turn of so many is over."""
        seen = self.seen.setdefault(count, _Seen())
        seen.runs += self.runs
        seen.requests += self.requests
        seen.took_s += (now_ns - self.began_ns) / 1e9

    def note_cut(self, now_ns: int) -> None:
        """That of the many has no more to run.

        The runs that were beside each other when it began have taken little of its time. Where a whole turn ends some
        are under way as well, which makes up for them; here none is.
        """
        begun = self.many - 1
        if self.runs > begun:
            self.requests = round(self.requests * (self.runs - begun) / self.runs)
            self.runs -= begun
            self.note(self.many, now_ns)

    def is_enough(self) -> bool:
        """To tell what the many are worth, though their turns were cut."""
        return self.few in self.seen and self.many in self.seen and self.seen[self.many].runs >= _ENOUGH_RUNS

    def gain(self) -> float:
        """No more than the executors are more, and no less: where one got next to nothing, it was kept from running."""
        most = self.many / self.few
        many, few = (self.seen[count].rate + _NEXT_TO_NOTHING for count in (self.many, self.few))
        return min(most, max(1 / most, many / few))


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
        self._cut: dict[int, _Trial] = {}
        """Trials that too few requests came for, by the fewer: what they have seen counts in the next one."""
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
                self._try(self._first())
        elif trial.skipped < trial.many + trial.few:
            trial.skipped, trial.began_ns = trial.skipped + 1, now_ns
        else:
            trial.runs += 1
            trial.requests += requests
            if now_ns - trial.began_ns >= TURN_NS:
                self._turn_over(trial)

    def idle(self, running: int) -> None:
        """Requests must wait for the few, or more executors cannot show what they are worth.

        Where more have worked off what the few had left, they have shown it.
        """
        self._runs = 0
        trial = self._trial
        if trial is None or (running and self.count == trial.many):
            return
        if self.count == trial.many:
            trial.note_cut(self._now_ns)
            if trial.is_enough():
                self._end(trial)
                return
        self._give_up(trial)

    def _first(self) -> int:
        """The fewer of the first trial: as many as now where nothing is known of more, or else half as many."""
        if self._best not in self._gains and 2 * self._best <= self.most:
            return self._best
        return max(1, self._best // 2)

    def _try(self, few: int) -> None:
        """Whether twice as many are better, if there may be so many."""
        if 2 * few > self.most:
            self._rest()
            return
        self._trial = self._cut.pop(few, None) or _Trial(few, 2 * few)
        self.count = few

    def _turn_over(self, trial: _Trial) -> None:
        trial.note(self.count, self._now_ns)
        trial.turns += self.count == trial.many
        trial.next_turn()
        self.count = trial.many if self.count == trial.few else trial.few
        if trial.turns >= (TURNS // 2 if trial.few in self._gains else TURNS):
            self._end(trial)

    def _end(self, trial: _Trial) -> None:
        better = self._learn(trial.few, trial.gain())
        self._trial, self._best = None, trial.many if better else trial.few
        self.count = self._best
        self._tell(self.count, {count: seen.rate for count, seen in trial.seen.items()})
        if better:
            self._try(trial.many)
        else:
            self._rest()

    def _learn(self, few: int, gain: float) -> bool:
        """Whether twice as many are better, which brought so much now."""
        known = self._gains.get(few, gain)
        self._gains[few] = known = known + _WEIGHT * (gain - known)
        better = known > GAIN
        if better != (gain > GAIN) or better != (self._best > few):
            self._again_ns = AGAIN_NS // 2
        return better

    def _give_up(self, trial: _Trial) -> None:
        trial.next_turn()
        self._trial, self.count = None, self._best
        self._cut[trial.few] = trial
        self._due_ns = self._now_ns + (self._again_ns if trial.few in self._gains else SOON_NS)

    def _rest(self) -> None:
        """Until the next trials."""
        self._again_ns = min(AGAIN_MOST_NS, 2 * self._again_ns)
        self._due_ns = self._now_ns + self._again_ns
