"""Scenes in which workers die or stand still, while others serve."""

import os
import signal
import statistics
import time
from dataclasses import dataclass
from functools import partial

from chaos_load import Calls, Load, Span
from chaos_log import PoolLog, Ready
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

# By how much the reload of a neighbour may slow the others on a machine that they share.
_P99_FACTOR = 1.2
_BEYOND_LOAD_S = 0.5
_CLIENTS = 8
_EVERY_S = 3.0
# One that dies sooner than this after it was ready may be taken for one that never was any good.
_READY_FOR_S = 1.1
# What a worker executes at the same time when it does not batch.
_EXECUTING = 1
_ONCE, _NEVER = "once", "never"
# What a client is told whose request is not executed a second time.
_AT_ITS_DEATH, _BEFORE_ITS_DEATH = "died while it executed this request", "died when it had executed this request"


@dataclass(frozen=True, slots=True)
class Back:
    """How long after a kill the next worker served, also without its load and warmup."""

    after_s: float
    beyond_load_s: float


def kills(stage: Stage, retry: str) -> list[Check]:
    """kill -9 of A's worker again and again, with as many clients on A as on B.

    Stretches without kills and with them take turns, so that whatever else the machine does hits both.
    """
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    turns, calm_turn_s, hurt_turn_s = (1, 2.0, 3.0) if stage.short else (4, 8.0, 15.0)
    calm: list[Span] = []
    hurt: list[Span] = []
    back: list[Back] = []
    with (
        ChaosPool(stage.scratch, models, f'[models.a]\nretry_on_crash = "{retry}"\n') as pool,
        Load(pool.target, {"a": _CLIENTS, "b": _CLIENTS}) as load,
    ):
        log = PoolLog(pool.log)
        for _ in range(turns):
            calm_s = time.monotonic()
            time.sleep(calm_turn_s)
            hurt_s = time.monotonic()
            back += _kill_again_and_again(pool, log, "a", hurt_turn_s, stage.seconds(_EVERY_S, 1.0))
            calm.append((calm_s, hurt_s))
            hurt.append((hurt_s, time.monotonic()))
    a, b = (load.calls[model] for model in "ab")
    without_ms, with_ms = b.within(calm).p99_ms, b.within(hurt).p99_ms
    return [
        Check(
            "B: 0 errors", not b.refused and not b.wrong, f"{len(b)} calls, {b.codes or 'no error'}, {b.wrong} wrong"
        ),
        Check(
            f"B: p99 within {_P99_FACTOR - 1:.0%} of that without kills",
            stage.timed(with_ms <= _P99_FACTOR * without_ms),
            f"{without_ms:.1f} ms without, {with_ms:.1f} ms with {len(back)} kills",
        ),
        *_victims(a, retry, len(back)),
        *_available_in_time(back, stage),
    ]


def _victims(a: Calls, retry: str, kill_count: int) -> list[Check]:
    seen = f"{len(a)} calls, {kill_count} kills, {a.codes or 'no error'}, {a.wrong} wrong {a.texts[:2]}"
    if retry == _ONCE:
        return [Check("A, which retries once: 0 errors", not a.refused and not a.wrong, seen)]
    told = [call for call in a.refused if call.code == "UNAVAILABLE" and "SIGKILL" in call.text]
    executing = sum(_AT_ITS_DEATH in call.text for call in told)
    unanswered = sum(_BEFORE_ITS_DEATH in call.text for call in told)
    return [
        Check(
            "A, which never retries: at most the one that was executing at each kill is refused for that",
            executing <= _EXECUTING * kill_count,
            f"{executing} at {kill_count} kills",
        ),
        Check(
            "and the one before it, where it was executed and the answer had not left the worker",
            unanswered <= _EXECUTING * kill_count,
            f"{unanswered} at {kill_count} kills",
        ),
        Check(
            "each of these is UNAVAILABLE, with which of the two happened and why; nothing else is refused",
            executing + unanswered == len(a.refused) and not a.wrong,
            seen,
        ),
    ]


def _available_in_time(back: list[Back], stage: Stage) -> list[Check]:
    after_s, beyond_s = [each.after_s for each in back], [each.beyond_load_s for each in back]
    late = sum(each > _BEYOND_LOAD_S for each in beyond_s)
    return [
        Check(
            f"the next worker is AVAILABLE within load + warmup + {_BEYOND_LOAD_S} s of the death, each time",
            stage.timed(not late),
            f"{late} of {len(back)} late; median {statistics.median(beyond_s):.2f} s, worst {max(beyond_s):.2f} s",
        ),
        Check(
            "A: available again after (figure)",
            None,
            f"median {statistics.median(after_s):.2f} s, worst {max(after_s):.2f} s",
        ),
    ]


def _kill_again_and_again(pool: ChaosPool, log: PoolLog, model: str, duration_s: float, every_s: float) -> list[Back]:
    """Each time only when it is back. When that was, the log says: to ask for it would slow what is measured."""
    back: list[Back] = []
    ends_s = time.monotonic() + duration_s
    while time.monotonic() < ends_s:
        worker = pool.serving_worker(model, _READY_FOR_S)
        killed_s = time.time()
        os.kill(worker["pid"], signal.SIGKILL)
        ready = pool.until(partial(_later, log, model, worker["incarnation"]), 60.0, f"{model} is back")
        after_s = ready.at_s - killed_s
        back.append(Back(after_s, after_s - ready.load_s - ready.warmup_s))
        time.sleep(max(0.0, killed_s + every_s - time.time()))
    return back


def _later(log: PoolLog, model: str, incarnation: int) -> Ready | None:
    """A worker of this model that has become ready since, and is none that was there before."""
    return next((each for each in log.ready() if each.model == model and each.incarnation > incarnation), None)


def stopped(stage: Stage) -> list[Check]:
    """SIGSTOP of a worker that has a limit for each execution."""
    run_timeout_s = 2.0
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    with (
        ChaosPool(stage.scratch, models, f"[models.a]\nrun_timeout_s = {run_timeout_s}\n") as pool,
        Load(pool.target, {"a": 4, "b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        stopped_s = time.monotonic()
        incarnation = pool.kill_worker("a", signal.SIGSTOP)
        pool.until(lambda: pool.worker("a")["incarnation"] != incarnation, 60.0, "the stopped worker is given up")
        noticed_s = time.monotonic() - stopped_s
        worker = pool.wait_replaced("a", incarnation)
        time.sleep(stage.seconds(2.0, 0.5))
    a, b = load.calls["a"], load.calls["b"]
    return [
        Check(
            f"detected within run_timeout_s + 1 = {run_timeout_s + 1:g} s",
            stage.timed(noticed_s <= run_timeout_s + 1),
            f"{noticed_s:.2f} s",
        ),
        Check("the others are unharmed", not b.refused and not b.wrong, f"{len(b)} calls, {b.codes or 'no error'}"),
        Check(
            "the cause is told",
            "no heartbeat" in worker["last_exit"]["cause"] or "run_timeout_s" in worker["last_exit"]["cause"],
            worker["last_exit"]["cause"],
        ),
        Check("what its clients saw (figure)", None, f"{len(a)} calls, {a.codes or 'no error'}"),
    ]


SCENES: dict[str, Scene] = {
    "kills, retried once": partial(kills, retry=_ONCE),
    "kills, never retried": partial(kills, retry=_NEVER),
    "a worker stands still": stopped,
}
