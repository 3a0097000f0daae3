"""How many rows one run of a model should have: learned from what runs have taken. Pure; one thread.

Sizes are counted in classes of powers of two. The best class is that with the most rows per second among those whose
runs are short enough for the latency wanted; where larger ones have paid so far, the next larger one is tried.
"""

from dataclasses import dataclass

MAX_ROWS = 1024
_FIRST_ROWS = 32
# So many runs of a size before it counts, and how fast what it takes is forgotten.
_ENOUGH = 4
_WEIGHT = 1 / 8
# A larger size must pay: so much more rows per second than the one before.
_GAIN = 1.03
# After so many runs the next larger size is tried once more, since models and machines change.
_TRY_AGAIN = 2_000


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
        self._runs = 0
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
        self._classes.setdefault(size, _Class()).observe(rows, seconds)
        self._runs += 1
        if self._runs % _TRY_AGAIN == 0:
            self.rows = min(MAX_ROWS, 2 * self._best())
            self._classes.pop(self.rows, None)  # what it was like is long ago
        elif self._too_long(size) or (size == self.rows and self._classes[size].count >= _ENOUGH):
            self.rows = self._best()

    def _too_long(self, size: int) -> bool:
        """Whether a request may have to wait for one such run and then take another."""
        return bool(self._target_s) and 2 * self._classes[size].seconds > self._target_s

    def _best(self) -> int:
        known = sorted(size for size, each in self._classes.items() if each.count >= _ENOUGH)
        fitting = [size for size in known if not self._too_long(size)]
        if not fitting:
            return max(1, min(known, default=self.rows) // 2) if known else self.rows
        best = fitting[0]
        for size in fitting[1:]:
            if self._classes[size].rows_per_s > self._classes[best].rows_per_s * _GAIN:
                best = size
        grows = best == fitting[-1] and best == known[-1]
        return min(MAX_ROWS, 2 * best) if grows and best >= self.rows else best
