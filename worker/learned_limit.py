"""How many rows one run of a model should have: learned from what runs have taken. Pure; one thread.

Sizes are counted in classes of powers of two. The best class is that with the most rows per second among those whose
runs are short enough for the latency wanted; where larger ones have paid so far, the next larger one is tried. Where it
was better once it is soon again, for it may have been a stall, or a neighbour, that made it small.
"""

from dataclasses import dataclass

MAX_ROWS = 1024
_FIRST_ROWS = 32
# So many runs of a size before it counts, and how fast what it takes is forgotten.
_ENOUGH = 4
_WEIGHT = 1 / 8
# A larger size must pay: so much more rows per second than the one before.
_GAIN = 1.03
# The next larger size is tried once more, since models and machines change: after so many runs, twice as many each time
# that it was in vain, and so many at the most.
_SOON, _LATE = 16, 2_000
# What was left because it took too long comes back when it is clearly short enough.
_CLEARLY = 0.9
# A size that brings so many times fewer rows per second needs no second run.
_HOPELESS = 2.0


@dataclass(slots=True)
class _Class:
    """Runs of up to so many rows: how many there were, and moving averages."""

    count: int = 0
    rows: float = 0.0
    seconds: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        weight = max(_WEIGHT, 1 / (self.count + 1))
        self.rows += (rows - self.rows) * weight
        self.seconds += (seconds - self.seconds) * weight
        self.count += 1

    @property
    def rows_per_s(self) -> float:
        return self.rows / max(self.seconds, 1e-9)


class LearnedLimit:
    """`target_s`: how long a request may take that comes while another run has just begun; 0: as long as it pays."""

    def __init__(self, target_s: float = 0.0) -> None:
        self._target_s = target_s
        self._classes: dict[int, _Class] = {}
        self._since = 0
        self._tried = 0
        """The size that is new, while it is not known what it is worth."""
        self._home = 0
        """What it was good at before it fell: one stall must not cost it that for long."""
        self._back, self._beyond = _SOON, _SOON
        """After how many runs a larger size is tried, up to there and above."""
        self.rows = _FIRST_ROWS
        """Rows of the next run at the most."""

    @property
    def rows_per_s(self) -> float:
        """What runs of that size have reached; 0 when there was none."""
        known = self._classes.get(self.rows)
        return known.rows_per_s if known is not None else 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A run of so many rows took so long."""
        size = 1 << max(0, rows - 1).bit_length()
        known = self._classes.get(size)
        if known is None:
            known = self._classes[size] = _Class()
        known.observe(rows, seconds)
        self._since += 1
        if self._too_long(size) or (size == self.rows and self._is_known(size)):
            self._settle()
        if self._since >= min(self._back, self._beyond):
            self._try_larger()  # the last, for it may forget the very size that was run

    def _try_larger(self) -> None:
        larger = min(MAX_ROWS, 2 * self._best())
        if self._tried or larger <= self.rows or self._since < (self._back if larger <= self._home else self._beyond):
            return
        self._since = 0
        self._classes.pop(larger, None)  # what it was like is long ago
        self.rows = self._tried = larger

    def _settle(self) -> None:
        """On the best size, or the next larger one, where larger ones have paid so far."""
        before, best = self.rows, self._best()
        grows = best >= before and best == max(self._classes)
        self.rows = min(MAX_ROWS, 2 * best if grows else best)
        if self.rows < before:
            self._fell(before)
        elif before == self._tried and self._is_known(before):
            self._rose(before)
        if self.rows > before:
            self._tried, self._since = self.rows, 0

    def _rose(self, size: int) -> None:
        """What was tried is good."""
        self._tried = self._since = 0
        if size <= self._home:
            self._back = _SOON
        else:
            self._beyond = _SOON

    def _fell(self, before: int) -> None:
        """What was tried is not, or what was good is so no more."""
        if before != self._tried:
            self._home = before if self._back >= _LATE else max(before, self._home)
            self._back = _SOON
        elif before <= self._home:
            self._back = min(2 * self._back, _LATE)
        else:
            self._beyond = min(2 * self._beyond, _LATE)
        self._tried = self._since = 0

    def _is_known(self, size: int) -> bool:
        known = self._classes.get(size)
        if known is None:
            return False
        return known.count >= _ENOUGH or (size == self._tried and self._is_hopeless(known))

    def _is_hopeless(self, tried: _Class) -> bool:
        best = self._classes.get(self._best())
        return best is not None and tried.rows_per_s * _HOPELESS < best.rows_per_s

    def _too_long(self, size: int) -> bool:
        """Whether a request may have to wait for one such run and then take another."""
        most_s = self._target_s * (_CLEARLY if size == self._tried else 1.0)
        return bool(self._target_s) and 2 * self._classes[size].seconds > most_s

    def _best(self) -> int:
        """Of the sizes that are known."""
        known = sorted(size for size, each in self._classes.items() if each.count >= _ENOUGH)
        if not known:
            return self.rows
        fitting = [size for size in known if not self._too_long(size)]
        if not fitting:
            return max(1, known[0] // 2)
        best = fitting[0]
        for size in fitting[1:]:
            if self._classes[size].rows_per_s > self._classes[best].rows_per_s * _GAIN:
                best = size
        return best
