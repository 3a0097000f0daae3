"""A model is asked for twice what it can do."""

import time

from chaos_load import Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_QUEUED = 40
_POOL_FILE = f"[models.a]\nmax_queued_requests = {_QUEUED}\n"
_GOODPUT = 0.9
_FACTOR = 2.0
# Whoever is accepted waits for a full queue at most, at the rate of the peak; and so much more on a busy machine.
_SLACK = 1.5


def overload(stage: Stage) -> list[Check]:
    """Its peak in closed loops first, then twice that, as an open loop; B is asked all the time."""
    models = {"a": stage.models / "spin", "b": stage.models / "quick"}
    seconds = stage.seconds(20.0, 2.0)
    with ChaosPool(stage.scratch, models, _POOL_FILE) as pool, Load(pool.target, {"b": 2}, pause_s=0.01) as neighbours:
        with Load(pool.target, {"a": 8}) as closed:
            time.sleep(seconds)
        peak = closed.calls["a"].answered / (closed.ended_s - closed.began_s)
        calm_s = time.monotonic()
        with Load(pool.target, {"a": 1}, rate_per_s=_FACTOR * peak) as flood:
            time.sleep(seconds)
    a, b = flood.calls["a"].between(flood.began_s, flood.ended_s), neighbours.calls["b"]
    goodput = a.answered / (flood.ended_s - flood.began_s)
    bound_ms = _SLACK * (_QUEUED + 1) / peak * 1e3
    hurt, refused_ms = b.between(calm_s), [call.took_s * 1e3 for call in a.refused]
    refused = f"{len(refused_ms)}, the slowest after {max(refused_ms, default=0.0):.0f} ms, {a.texts[:1]}"
    return [
        Check(
            f"goodput at least {_GOODPUT:.0%} of the peak",
            goodput >= _GOODPUT * peak,
            f"{goodput:.0f}/s of {len(a) / (flood.ended_s - flood.began_s):.0f}/s asked, peak {peak:.0f}/s",
        ),
        Check(
            "p99 of the accepted is bounded by the queue",
            a.p99_ms <= bound_ms,
            f"{a.p99_ms:.0f} ms, {bound_ms:.0f} allowed",
        ),
        Check("the rest is refused, with the code for a full queue", set(a.codes) == {"UNAVAILABLE"}, refused),
        Check("no answer is another request's", a.wrong == 0, f"{a.wrong} wrong"),
        Check(
            "B is unharmed",
            not hurt.refused,
            f"{len(hurt)} calls, {hurt.codes or 'no error'}, p99 {hurt.p99_ms:.1f} ms",
        ),
    ]


SCENES: dict[str, Scene] = {"overload": overload}
