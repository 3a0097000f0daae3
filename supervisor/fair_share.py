"""Which models give way on the CPUs: those that use more than their share while others have work to do. Pure.

The kernel shares a CPU among threads, not among tenants: a model with many busy threads, or with one that never sleeps,
makes every other's wait for its turn at each step of a request. A model that gives way takes what the others leave. It
does so for as long as the others have work and the CPUs are short: what it uses meanwhile says nothing of what it
wants. If that is next to nothing, for which others than models may be the cause, it is starved and shall have a little
for a while. Then it is seen whether the cause has gone.

Whoever is busy while a flood begins may be taken for one. That is seen by what the flood uses then, and set right: two
models are equals again, and judged anew, but not so soon; of several that give way the light ones come back.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

# A model that uses less than this many CPUs only does its housekeeping.
ACTIVE_CPUS = 0.02
# So long after its last work a model still counts as one that has some: requests come with gaps.
LINGER_S = 1.0
# The CPUs are short when so small a part of them is idle; nobody need give way when it was so large a part lately.
SHORT, SPARE = 0.15, 0.25
# How far beyond its share, of what all models together use, one may be as a rule, and as much as counts of one look: in
# shares of one of two equals. What is beyond adds up (Page's cumulative sum, Biometrika 41, 1954), and is too much from
# `TOO_MUCH` on: a great excess shows within few looks, a small one that lasts does, too, and equals are not set apart
# by chance. Two equals were 0.1 apart for a minute, and by 0.12 more or less from look to look; floods were 0.2 to 0.7.
SLACK, MOST, TOO_MUCH = 0.15, 0.5, 1.25
# Who was busy while all others had no work needs less (the head start of Lucas and Crosier, Technometrics 24, 1982): if
# it used so much of all CPUs, half of its share beside another. The rest is its frontends' and its clients'.
HEAD_START, BUSY = TOO_MUCH / 2, 0.25
# Who was set apart and was an equal after all, is not again before it is so much: until it has given way for so long
# that it is none, or was free for so long.
EQUALLY_MUCH, NO_EQUAL_S, FREE_S = 2 * TOO_MUCH, 5.0, 600.0
# So many times its share are clearly more, where each look counts for itself.
MORE = 1.25
# So many looks in a row show that one was an equal, or is a light one: to set right what is wrong is more urgent.
LOOKS = 3
# Of its share of all CPUs, which nobody gets to the last bit.
ALMOST = 0.9
# One that came back, but was no light one after all, gives way for so long before it may come back again; and twice as
# long after each time, at most so long. Once it was free for as long as it would have to wait, that is forgotten.
DOUBT_S, AGAIN_S, AGAIN_LIMIT_S = 1.0, 2.0, 64.0
# Whoever gives way and gets less than so many CPUs for so long is starved. Well before it counts as one without work:
# one that gets nothing at all looks just like that.
STARVED_CPUS, STARVED_S = 0.05, 0.5
# So long it is, then. Longer than it takes to see that one has no work.
RELIEF_S = 1.5


@dataclass(frozen=True, slots=True)
class Usage:
    """What all workers of one model used, in CPUs, and the weight that its share goes by."""

    cpus: float
    weight: int


def neighbours(cpus: Mapping[str, AbstractSet[int]]) -> dict[frozenset[int], list[str]]:
    """Models by the CPUs that they have among themselves, given those that each may use.

    Models are together when they have CPUs in common, or each has some in common with the same other.
    """
    groups: dict[frozenset[int], list[str]] = {}
    for name, own in cpus.items():
        touched = [each for each in groups if each & own]
        names = [other for each in touched for other in groups.pop(each)]
        groups[frozenset(own).union(*touched)] = [*names, name]
    return groups


@dataclass(slots=True)
class _Way:
    """Of a model that gives way, or did lately."""

    lasts_s: float = 0.0
    """For how long it has given way, or been free again."""
    may_return_s: float = 0.0
    """For how long it must have given way to come back while another goes on."""
    equal: bool = False
    """Whether it was taken for a flood and let go as an equal, as a flood may be, too, in doubt."""


class FairShare:
    """Looked at again and again with what was used since the last time."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self.giving_way: frozenset[str] = frozenset()
        self.starved: frozenset[str] = frozenset()
        """Of those that give way."""
        self._ways: dict[str, _Way] = {}
        """Not only of those that give way: floods may be free now and then because nobody else has work."""
        self._together = 0.0
        """The most that all models used together in one look since somebody gives way."""
        self._hungry_s: dict[str, float] = {}
        self._relief_s: dict[str, float] = {}
        """Of the starved, for how long they are yet."""
        self._quiet_s: dict[str, float] = {}
        self._over: dict[str, float] = {}
        """By how much each of the free has been beyond its share lately, as `TOO_MUCH`."""
        self._alone: dict[str, int] = {}
        """How many times in a row one that is alone among the free has had its share of all CPUs."""
        self._light: dict[str, int] = {}
        self._idle = 0.0
        self._doubt_s, self._patience_s = 0.0, DOUBT_S
        """For how long one that is alone among the free has used too much beside the rest, and how long it may."""

    def look(self, usage: Mapping[str, Usage], took_s: float, idle: Callable[[], float]) -> frozenset[str]:
        """The names of the models that give way from now on, given the usage of each over the last `took_s` seconds.

        `idle`: the part of the CPUs that nobody used; only asked while two models or more have work.
        """
        self._quiet_s = {
            name: 0.0 if each.cpus >= ACTIVE_CPUS else self._quiet_s.get(name, LINGER_S) + took_s
            for name, each in usage.items()
        }
        starved = self._starved(usage, took_s)
        for name in starved - self.starved:
            self._quiet_s[name] = 0.0  # whether it has work shows from now on
        active = {name: each for name, each in usage.items() if self._quiet_s[name] < LINGER_S}
        gave_way = self.giving_way
        self._time_ways(took_s)
        if len(active) > 1:
            self.giving_way = self._greedy(active, took_s, idle())
        else:
            self.giving_way, self._patience_s = frozenset(), DOUBT_S
            self._alone, self._over = {}, dict.fromkeys(self._busy(active), HEAD_START)
        if not self.giving_way:
            self._light = {}
        for name in gave_way ^ self.giving_way:
            self._ways.setdefault(name, _Way()).lasts_s = 0.0
        relief_s = {name: left_s - took_s for name, left_s in self._relief_s.items() if left_s > took_s}
        relief_s |= dict.fromkeys(starved, RELIEF_S)
        self._relief_s = {name: left_s for name, left_s in relief_s.items() if name in self.giving_way}
        self.starved = frozenset(self._relief_s)
        return self.giving_way

    def _starved(self, usage: Mapping[str, Usage], took_s: float) -> set[str]:
        """Of those that gave way since the last look, who got next to nothing for too long."""
        hungry = [name for name in self.giving_way & usage.keys() if usage[name].cpus < STARVED_CPUS]
        self._hungry_s = {name: self._hungry_s.get(name, 0.0) + took_s for name in hungry}
        return {name for name, hungry_s in self._hungry_s.items() if hungry_s >= STARVED_S}

    def _time_ways(self, took_s: float) -> None:
        for name, way in self._ways.items():
            way.lasts_s += took_s
            gives_way = name in self.giving_way
            if not gives_way and way.lasts_s >= way.may_return_s:
                way.may_return_s = 0.0
            if way.lasts_s >= (NO_EQUAL_S if gives_way else FREE_S):
                way.equal = False
        self._ways = {
            name: way for name, way in self._ways.items() if name in self.giving_way or way.may_return_s or way.equal
        }

    def _greedy(self, active: Mapping[str, Usage], took_s: float, idle: float) -> frozenset[str]:
        self._idle += (idle - self._idle) * min(1.0, took_s / LINGER_S) if self.giving_way else -self._idle
        known = self.giving_way & active.keys() if self._idle <= SPARE else frozenset()
        together = sum(each.cpus for each in active.values())
        self._together = max(self._together, together) if known else together
        short = idle <= SHORT
        free = active.keys() - known
        floods = self._floods_of(active, free, short)
        light = self._light_ones(active, known) if short else set()
        self._light = {name: self._light.get(name, 0) + 1 for name in light}
        back = {name for name, looks in self._light.items() if looks >= LOOKS}
        greedy = known - back | floods
        if greedy == active.keys() or self._doubtful(active, free, took_s):
            self._over, self._alone = {}, {}  # equals, and nobody to give way to
            for name in known:
                self._ways[name].equal = True
            return frozenset()
        for name in back:
            way = self._ways[name]
            way.may_return_s = min(AGAIN_LIMIT_S, max(AGAIN_S, 2 * way.may_return_s))
        return greedy

    def _floods_of(self, active: Mapping[str, Usage], free: AbstractSet[str], short: bool) -> set[str]:
        """Those of the free, who do not give way, that have used too much of what models use together.

        That is, not of all CPUs: the frontends and other processes have their part, too. Nor of what they use just now,
        if once it was more: others may take what one leaves that gives way. One that is alone among the free may have
        its share of all CPUs, and shows soon who its equals are.
        """
        weights = sum(each.weight for each in active.values())
        shares = {name: active[name].weight / weights for name in free}
        if len(free) == 1:
            much = ALMOST * self._cpus
            has_it = {name for name, share in shares.items() if short and active[name].cpus > much * share}
            self._over, self._alone = {}, {name: self._alone.get(name, 0) + 1 for name in has_it}
            return {name for name, looks in self._alone.items() if looks >= LOOKS}
        counts = {name: self._beyond(active[name].cpus, share) if short else 0.0 for name, share in shares.items()}
        self._over = {name: max(0.0, self._over.get(name, 0.0) + each - SLACK) for name, each in counts.items()}
        self._alone = {}
        return {name for name, over in self._over.items() if over >= self._enough(name)}

    def _beyond(self, cpus: float, share: float) -> float:
        """How far beyond its share one is at this look, negative below it, as `SLACK` and no more than `MOST`.

        Where slices of CPU time are dealt by chance, what share p of them one gets varies by the root of (1 - p) / p,
        measured by p: a smaller share fluctuates more from look to look, and a larger one less.
        """
        if not self._together:
            return 0.0
        return min(MOST, (cpus / (self._together * share) - 1) * math.sqrt(share / (1 - share)))

    def _enough(self, name: str) -> float:
        return EQUALLY_MUCH if self._was_equal(name) else TOO_MUCH

    def _was_equal(self, name: str) -> bool:
        return name in self._ways and self._ways[name].equal

    def _busy(self, active: Mapping[str, Usage]) -> set[str]:
        """Who may be a flood when others come, given the one that has all CPUs for itself, if any has work."""
        busy = {name for name, each in active.items() if each.cpus >= BUSY * self._cpus}
        return {name for name in busy if not self._was_equal(name)}

    def _doubtful(self, active: Mapping[str, Usage], free: AbstractSet[str], took_s: float) -> bool:
        """Whether one that is alone among the free may be the flood itself: it uses too much, and for long.

        One that has fallen behind does so for a while, and one with much work may always: so not again and again.
        """
        weights = sum(each.weight for each in active.values())
        much = MORE * self._together / weights
        over = len(free) == 1 and any(active[name].cpus > much * active[name].weight for name in free)
        self._doubt_s = self._doubt_s + took_s if over else 0.0
        if self._doubt_s < self._patience_s:
            return False
        self._doubt_s, self._patience_s = 0.0, min(AGAIN_LIMIT_S, 2 * self._patience_s)
        return True

    def _light_ones(self, active: Mapping[str, Usage], known: AbstractSet[str]) -> set[str]:
        """Of those that give way beside a flood, who use no more than their share of what all models use together.

        They compete as equals there, so that is what they want, unless they have fewer threads than it; therefore not
        again and again. The flood itself may use no more either, where other programs leave them all next to nothing.
        """
        weights, cpus = sum(active[name].weight for name in known), sum(active[name].cpus for name in known)
        floods = {name for name in known if active[name].cpus > MORE * cpus * active[name].weight / weights}
        if not floods:
            return set()
        share = self._together / sum(each.weight for each in active.values())
        rested = {name for name in known if self._ways[name].lasts_s >= self._ways[name].may_return_s}
        return {name for name in rested - floods if active[name].cpus <= share * active[name].weight}
