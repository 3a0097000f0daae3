"""How much of some CPUs nobody uses. Linux."""

import time
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from pathlib import Path

_STAT = Path("/proc/stat")
# What was idle in a longer time says nothing of now.
LONG_S = 1.0


class IdleCpus:
    """Looked at again and again."""

    def __init__(self, cpus: Collection[int]) -> None:
        self._names = {f"cpu{number}" for number in cpus}
        self._ticks: tuple[int, int] | None = None
        self._looked_s = 0.0

    def look(self) -> float:
        """The part of the CPUs that nobody used since the last look; 0 where that is not known, or was long ago."""
        now_s = time.monotonic()
        before, self._ticks = self._ticks, ticks(self._names)
        took_s, self._looked_s = now_s - self._looked_s, now_s
        if took_s > LONG_S or before is None or self._ticks is None or self._ticks[1] <= before[1]:
            return 0.0
        return (self._ticks[0] - before[0]) / (self._ticks[1] - before[1])


def ticks(names: AbstractSet[str], stat: Path = _STAT) -> tuple[int, int] | None:
    """Of the CPUs of these names, as the kernel counts them since its start: idle, and all."""
    try:
        rows = [line.split() for line in stat.read_text("ascii").splitlines() if line.startswith("cpu")]
        counts = [[int(word) for word in words] for name, *words in rows if name in names]
    except (OSError, ValueError):
        return None
    # user nice system idle iowait irq softirq steal; guests are in the first two already
    return sum(row[3] + row[4] for row in counts), sum(sum(row[:8]) for row in counts)
