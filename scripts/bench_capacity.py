"""What a server can do just then, turns of an open loop at a share of it, and what these are worth.

On a machine whose speed changes from one minute to the next, seven tenths of what a server could do before all rounds
may be all that it can do in one of them. So each round finds the capacity right before its turn, by a closed loop, and
once more right after it; a turn between capacities that lie too far apart is taken again. Which turns are, follows from
the capacities alone: a latency, good or bad, is no reason to measure again, or to leave anything out.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AT = 32  # requests in flight in the closed loop that finds out what a server can do
MOST_ATTEMPTS = 3
# So many times longer is the median of a third of a turn than that of another, where a queue grows or shrinks.
_SWINGS = 1.5

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Turns at one rate, by condition, between the closed loops right before and right after them."""

    before: Figures
    rate_per_s: float
    turns: Mapping[str, Figures]
    after: Figures

    def paces(self) -> dict[str, float]:
        """`capacity_cpu_us`: what a request took of the CPUs in the closed loops, the mean of both."""
        return {
            "capacity_per_s": _capacity(self.before),
            "rate_per_s": self.rate_per_s,
            "capacity_after_per_s": _capacity(self.after),
            "capacity_cpu_us": statistics.fmean((self.before["cpu_us"], self.after["cpu_us"])),
        }


def _capacity(closed: Figures) -> float:
    """What a server without one right answer can do is 1/s, so that there is a rate."""
    return max(1.0, float(closed["requests_per_s"]))


def take(
    closed: Callable[[], Figures], share: float, turns: Callable[[float], Mapping[str, Figures]], what: str
) -> dict[str, Figures]:
    """One round of each condition: `turns` at `share` of what `closed` finds, again until they are steady.

    After `MOST_ATTEMPTS` the last ones stay, steady or not. Each attempt finds the capacity anew: that after the one
    before it was an odd one, and a turn by it would likely be odd, too. A round has its `Attempt.paces`; under
    `again` those attempts that do not count, whole; `other_bad`: see `_other_bad`.
    """
    attempts: list[Attempt] = []
    while len(attempts) < MOST_ATTEMPTS:
        before = closed()
        rate = share * _capacity(before)
        attempts.append(Attempt(before, rate, turns(rate), closed()))
        paces = attempts[-1].paces()
        if is_steady(paces):
            break
        then = "taken again" if len(attempts) < MOST_ATTEMPTS else "not steady, and kept"
        print(f"  {what}: {words(paces)}: {then}", flush=True)
    *dropped, kept = attempts
    return {
        name: {
            **turn,
            **kept.paces(),
            "again": [{**each.turns[name], **each.paces()} for each in dropped],
            "other_bad": _other_bad(name, attempts),
        }
        for name, turn in kept.turns.items()
    }


def _other_bad(name: str, attempts: Sequence[Attempt]) -> int:
    """Bad answers that a round's own figures have not: with the first condition those of the closed loops; and those of
    attempts that do not count. Not the failures of one that may have been beyond the capacity, where a server has to
    refuse; no load makes a wrong answer right.
    """
    bad = 0
    for each in attempts[:-1]:
        turn = each.turns[name]
        within = each.rate_per_s < min(_capacity(each.before), _capacity(each.after))
        bad += turn["wrong"] + (turn["failures"] if within else 0)
    if name == next(iter(attempts[0].turns)):
        closed = [loop for each in attempts for loop in (each.before, each.after)]
        bad += sum(each["failures"] + each["wrong"] for each in closed)
    return int(bad)


def is_steady(paces: Mapping[str, Any]) -> bool:
    """Whether a turn was at about the share of the capacity that was asked for; a fixed rate is no share of anything.

    Slower: requests wait about as 1 / (1 - load), twice as long where half of what was to stay free is gone. So the
    load by the capacity after the turn may be halfway between the share and 1 at most: 85 % for 70 %, when the capacity
    fell to 0.82 of what it was, and 75 % for 50 %. Where in the turn it fell is not known; but with both ends within
    the bounds a load that moves from one to the other is, too.

    Faster: by as much, at most (to 1.21 times for 70 %, a load of 58 %). Such a turn was at too small a share, which
    flatters; a rule that minded only the slower ones would choose in the server's favour.
    """
    if "capacity_per_s" not in paces:
        return True
    before, after = paces["capacity_per_s"], paces["capacity_after_per_s"]
    share = paces["rate_per_s"] / before
    least = share / ((share + 1) / 2)
    return bool(least <= after / before <= 1 / least)


def repeats(rounds: Sequence[Mapping[str, Any]]) -> int:
    """How many attempts do not count."""
    return sum(len(each.get("again", ())) for each in rounds)


def share_words(share: float) -> str:
    """Of what was asked for: above 1 it is a rate."""
    return f"{share:.0f}/s" if share > 1 else f"{share * 100:.0f} % of capacity"


def words(paces: Mapping[str, Any]) -> str:
    """Of one turn, for people."""
    rate = f"at {paces['rate_per_s']:.0f}/s"
    if "capacity_per_s" not in paces:
        return rate
    return f"{rate} of {paces['capacity_per_s']:.0f}/s before and {paces['capacity_after_per_s']:.0f}/s after"


# -- verdicts ----------------------------------------------------------------------------------------------------


def is_saturated(turn: Mapping[str, Any]) -> bool:
    """Whether a queue grew in a turn below the capacity: by the server's fault, or because the machine did less for a
    while that neither closed loop saw. A ratio of two waiting times in it comes near 1, and says nothing.

    Then more requests were there at a time than in the closed loops beside it, by Little's law and the median. Or half
    of them waited longer than there (the mean of both is the best guess at what the server could do in between), and
    not all the time: a third of the turn by half longer than another. Where they wait as long from beginning to end no
    queue grows, though it be a little longer: what comes one by one costs more than what a closed loop sends together.
    """
    if "capacity_per_s" not in turn:
        return False
    # Without thirds, as where nothing came in one of them, all that is longer counts.
    swings = turn.get("swing", math.inf) > _SWINGS
    return bool(turn["p50_us"] / 1e6 * turn["rate_per_s"] > AT or (_is_longer(turn) and swings))


def _is_longer(turn: Mapping[str, Any]) -> bool:
    """Whether half of its requests waited longer than in the closed loops beside it."""
    if "capacity_per_s" not in turn:
        return False
    capacity = statistics.fmean((turn["capacity_per_s"], turn["capacity_after_per_s"]))
    return bool(turn["p50_us"] / 1e6 * capacity > AT)


def oddities(turns: Sequence[Mapping[str, Any]]) -> str:
    """How many rounds were not steady, saturated, or but longer than with so many in flight, for people."""
    odd = {
        "unsteady": sum(not is_steady(each) for each in turns),
        "saturated": sum(is_saturated(each) for each in turns),
        f"longer than {AT} in flight": sum(_is_longer(each) and not is_saturated(each) for each in turns),
    }
    return ", ".join(f"{count} of {len(turns)} {how}" for how, count in odd.items() if count)


def judged(ratios: Sequence[float], turns: Sequence[Mapping[str, Any]]) -> float | None:
    """The median of the rounds' ratios, which are to be small; none where it says nothing.

    What is odd about a round is said by `turns`. A saturated one counts as worse than any, for else its small ratio
    would help; where the middle one is saturated, so is the figure, infinite. One that was not steady counts as it is,
    and where half of them were not, there is no figure at the share that was asked for.
    """
    value = statistics.median(
        math.inf if is_saturated(turn) else ratio for ratio, turn in zip(ratios, turns, strict=True)
    )
    unsteady = sum(not is_steady(each) for each in turns)
    return None if 2 * unsteady >= len(turns) else value


def judged_tail(turns: Sequence[Mapping[str, Any]]) -> float | None:
    """`judged`, of p99 against p50."""
    return judged([p99_by_p50(each) for each in turns], turns)


def p99_by_p50(turn: Mapping[str, Any]) -> float:
    return float(turn["p99_us"] / max(turn["p50_us"], 1e-9))
