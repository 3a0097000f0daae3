"""Models that use so much of two CPUs, look by look."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from modelpool.supervisor.fair_share import FairShare, Usage

PERIOD_S = 0.1
# So many looks are enough to know one of two.
SURE = 6


def busy() -> float:
    return 0.0


class Looks:
    """A share, looked at each PERIOD_S, or less often."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.share = FairShare(2)
        self.period_s = period_s

    def see(self, idle: Callable[[], float] = busy, times: int = SURE, **cpus: float) -> set[str]:
        """As many times as it takes to be sure."""
        usage = {name: Usage(each, 100) for name, each in cpus.items()}
        for _ in range(times - 1):
            self.share.look(usage, self.period_s, idle)
        return set(self.share.look(usage, self.period_s, idle))

    def until(self, giving_way: AbstractSet[str], limit: int = 30, **cpus: float) -> int:
        """How many looks it takes until just these give way."""
        return next(looks for looks in range(1, limit + 1) if self.see(times=1, **cpus) == giving_way)
