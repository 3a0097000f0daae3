"""Which replica takes the next request: least outstanding work among two drawn at random. Pure; clock and chance given.

Counts what this frontend has sent and not seen answered, and what the supervisor tells of the other frontends. A
replica that is sick (its last answers were failures) or stalled (no answer for long, while its siblings answer) is left
out and tried again with one request; never are all left out. Knows nothing of links, requests or routes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from modelpool.supervisor.wire.frontend_messages import WorkerLoads
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.status import Code

# Failures one after the other that make a replica sick, and for how long it is then left out: twice as long each time.
SICK_AFTER = 5
HOLD_S, HOLD_LIMIT_S = 1.0, 30.0
# A replica stands still when it has work and answered nothing for this long, and this many times its siblings' pace.
STALL_S, STALL_FACTOR = 1.0, 8.0
# Codes that speak of the worker. INVALID_ARGUMENT and the like speak of the request.
_SICK = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that is routed, and how many of this frontend's requests it has not answered."""

    worker: Incarnation
    outstanding: int


@dataclass(slots=True)
class _Load:
    """`progress_s`: when it last answered, or got work after it had none. `pace_s`: time between answers, smoothed."""

    progress_s: float
    pace_s: float = 0.0
    failures: int = 0
    holds: int = 0
    out_until_s: float = 0.0
    last_turn: int = 0
    elsewhere: int = 0
    busy_s: float = 0.0


class Balance:
    """What this frontend knows of the workers that have siblings."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        """`clock`: monotonic seconds; `chance`: a number in [0, 1)."""
        self._clock = clock
        self._chance = chance
        self._turn = 0
        self._loads: dict[Incarnation, _Load] = {}

    def __contains__(self, worker: Incarnation) -> bool:
        """It has, or had, siblings."""
        return worker in self._loads

    def pick(self, candidates: Sequence[Candidate]) -> Incarnation:
        """The one that gets the next request; it counts as sent there. `candidates` must not be empty."""
        now_s = self._clock()
        loads = [self._loads.setdefault(each.worker, _Load(now_s)) for each in candidates]
        pace_s = min((load.pace_s for load in loads if load.pace_s), default=0.0)
        stall_s = max(STALL_S, STALL_FACTOR * pace_s)
        both = list(zip(candidates, loads, strict=True))
        fit = [pair for pair in both if _takes(*pair, now_s, stall_s)] or both
        chosen, load = min(
            self._two(fit), key=lambda pair: (pair[0].outstanding + pair[1].elsewhere, pair[1].last_turn)
        )
        self._turn += 1
        load.last_turn = self._turn
        if chosen.outstanding == 0:
            load.progress_s = now_s
        return chosen.worker

    def _two(self, pairs: list[tuple[Candidate, _Load]]) -> list[tuple[Candidate, _Load]]:
        if len(pairs) <= 2:
            return pairs
        first = int(self._chance() * len(pairs))
        second = int(self._chance() * (len(pairs) - 1))
        return [pairs[first], pairs[second + (second >= first)]]

    def answered(self, worker: Incarnation, code: Code) -> None:
        """A worker has answered a request. Without effect for one that has no siblings."""
        load = self._loads.get(worker)
        if load is None:
            return
        now_s = self._clock()
        gap_s, load.progress_s, load.busy_s = now_s - load.progress_s, now_s, 0.0
        load.pace_s = gap_s if not load.pace_s else load.pace_s + _SMOOTHING * (gap_s - load.pace_s)
        if code in _SICK:
            self._failed(load, now_s)
        else:
            load.failures, load.holds, load.out_until_s = 0, 0, 0.0

    def expired(self, worker: Incarnation) -> None:
        """A request ran into its deadline there. One that stands still has thereby failed its trial."""
        load = self._loads.get(worker)
        if load is None:
            return
        now_s = self._clock()
        if now_s - load.progress_s > STALL_S:
            load.failures = SICK_AFTER
        self._failed(load, now_s)

    def told(self, loads: WorkerLoads) -> None:
        """What the supervisor heard from the workers and from the other frontends."""
        for incarnation, elsewhere in loads.elsewhere.items():
            load = self._loads.get(Incarnation(incarnation))
            if load is not None:
                load.elsewhere = elsewhere
                load.busy_s = loads.busy_s.get(incarnation, 0.0)

    def keep(self, workers: Collection[Incarnation]) -> None:
        """Forget all but these."""
        for worker in self._loads.keys() - workers:
            del self._loads[worker]

    def _failed(self, load: _Load, now_s: float) -> None:
        load.failures += 1
        if load.failures >= SICK_AFTER and load.out_until_s <= now_s:
            load.out_until_s = now_s + min(HOLD_LIMIT_S, HOLD_S * 2.0 ** min(load.holds, 16))
            load.holds += 1


def _takes(candidate: Candidate, load: _Load, now_s: float, stall_s: float) -> bool:
    if now_s < load.out_until_s:
        return False
    if load.failures >= SICK_AFTER:
        return candidate.outstanding == 0  # on trial
    if candidate.outstanding == 0:
        return load.busy_s <= stall_s
    return now_s - load.progress_s <= stall_s
