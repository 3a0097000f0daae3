"""A model is asked for twice what it can do."""

import bisect
import time
from collections import Counter

from chaos_load import Calls, Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_QUEUED = 40
_POOL_FILE = f"[models.a]\nmax_queued_requests = {_QUEUED}\n"
_GOODPUT = 0.9
_FACTOR = 2.0
# For what the figures below leave out: the scheduling of a machine whose CPUs are all taken.
_SLACK = 1.1


def overload(stage: Stage) -> list[Check]:
    """Its peak in closed loops first, then twice that, as an open loop; B is asked all the time."""
    models = {"a": stage.models / "spin", "b": stage.models / "quick"}
    with ChaosPool(stage.scratch, models, _POOL_FILE) as pool, Load(pool.target, {"b": 2}, pause_s=0.01) as neighbours:
        with Load(pool.target, {"a": 8}) as closed:
            time.sleep(stage.seconds(10.0, 2.0))
        peak = closed.calls["a"].answered / (closed.ended_s - closed.began_s)
        calm_s = time.monotonic()
        with Load(pool.target, {"a": 1}, rate_per_s=_FACTOR * peak) as flood:
            time.sleep(stage.seconds(20.0, 3.0))
    a, b = flood.calls["a"].between(flood.began_s, flood.ended_s), neighbours.calls["b"].between(calm_s)
    goodput = a.answered / (flood.ended_s - flood.began_s)
    return [
        Check(
            f"goodput at least {_GOODPUT:.0%} of the peak",
            stage.timed(goodput >= _GOODPUT * peak),
            f"{goodput:.0f}/s of {len(a) / (flood.ended_s - flood.began_s):.0f}/s asked, peak {peak:.0f}/s",
        ),
        *_bounded(a, flood.began_s),
        Check("the rest is refused, with the code for a full queue", set(a.codes) == {"UNAVAILABLE"}, _refusals(a)),
        Check("no answer is another request's", a.wrong == 0, f"{a.wrong} wrong"),
        Check("B is unharmed", not b.refused, f"{len(b)} calls, {b.codes or 'no error'}, p99 {b.p99_ms:.1f} ms"),
    ]


def _bounded(a: Calls, began_s: float) -> list[Check]:
    """Clients measure from when they ask. A refusal takes the same way and waits nowhere, so it tells what that takes.

    Whoever is accepted waits beyond it for as many as the queue holds, at the pace of the time: that of the slowest
    second.
    """
    ended_s = sorted(call.ended_s for call in a.all if call.code == "OK")
    ahead = sorted(
        bisect.bisect_left(ended_s, call.ended_s) - bisect.bisect_right(ended_s, call.began_s)
        for call in a.all
        if call.code == "OK"
    )
    took_s = sorted(call.took_s for call in a.refused)
    way_s = took_s[int(0.99 * len(took_s))] if took_s else 0.0
    seconds = Counter(int(each - began_s) for each in ended_s)
    slowest = min((count for second, count in seconds.items() if second < max(seconds)), default=len(ended_s))
    pace = len(ended_s) / max(1, len(seconds))
    most, most_ms = _QUEUED + 1 + way_s * pace, ((_QUEUED + 1) / max(1, slowest) + way_s) * 1e3
    ahead_p99 = ahead[int(0.99 * len(ahead))] if ahead else 0
    return [
        Check(
            f"the accepted wait for {_QUEUED} others at most, and those answered while they are on their way",
            ahead_p99 <= _SLACK * most,
            f"p99 {ahead_p99} others, {_SLACK * most:.0f} allowed, median {ahead[len(ahead) // 2] if ahead else 0}",
        ),
        Check(
            "p99 of the accepted is bounded by the queue",
            a.p99_ms <= _SLACK * most_ms,
            f"{a.p99_ms:.0f} ms, {_SLACK * most_ms:.0f} allowed: {_QUEUED + 1} at {slowest}/s in the slowest second, "
            f"and {way_s * 1e3:.0f} ms for the way",
        ),
    ]


def _refusals(a: Calls) -> str:
    slowest_s = max((call.took_s for call in a.refused), default=0.0)
    return f"{len(a.refused)}, the slowest after {slowest_s * 1e3:.0f} ms, {a.texts[:1]}"


SCENES: dict[str, Scene] = {"overload": overload}
