"""Scenes with a worker that takes more memory than it may have."""

import time

from chaos_load import Calls, Load
from chaos_pool import BrokenPromise, ChaosPool
from chaos_scene import Check, Scene, Stage

from modelpool.supervisor.control_client import ControlClient
from modelpool.supervisor.wire.messages import HurtModel, HurtReply
from modelpool.supervisor.wire.states import Harm
from modelpool.supervisor.wire.status import Code

_LIMIT_MB = 500
_LEAK_MB_PER_S = 25
_POOL_FILE = f"[models.a]\nhost_memory_mb = {_LIMIT_MB}\n"
_WITHIN_S = 90.0


def _hurt(pool: ChaosPool, harm: Harm, amount: int) -> int:
    """Have the worker of A hurt itself; its incarnation."""
    with ControlClient(pool.runtime_dir) as control:
        reply = control.ask(lambda token: HurtModel(token, "a", None, harm, amount), HurtReply)
    if reply.code is not Code.OK:
        raise BrokenPromise(f"{harm}: {reply.code.name}: {reply.message}")
    return reply.incarnation


def _kept(name: str, calls: Calls) -> Check:
    seen = f"{len(calls)} calls, {calls.codes or 'no error'}, {calls.wrong} wrong {calls.texts[:2] or ''}"
    return Check(f"{name}: 0 errors", not calls.refused and not calls.wrong, seen)


def out_of_memory(stage: Stage) -> list[Check]:
    """A worker takes memory as fast as it can until it is over its limit."""
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    with (
        ChaosPool(stage.scratch, models, _POOL_FILE, ["--allow_chaos"]) as pool,
        Load(pool.target, {"a": 4, "b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        hurt_s = time.monotonic()
        incarnation = _hurt(pool, Harm.OOM, 0)
        pool.wait_replaced("a", incarnation, _WITHIN_S)
        back_s = time.monotonic() - hurt_s
        time.sleep(stage.seconds(3.0, 0.5))
        cause = pool.cause(incarnation)
    return [
        Check("it is ended at its limit, and that is told", "memory" in cause, cause),
        Check("it is back", True, f"after {back_s:.2f} s, with the time to fill {_LIMIT_MB} MiB"),
        _kept("A, whose requests are retried", load.calls["a"]),
        _kept("B", load.calls["b"]),
    ]


def leak(stage: Stage) -> list[Check]:
    """A worker leaks slowly: it is replaced before it is at its limit, by one that is warm before it goes."""
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    with (
        ChaosPool(stage.scratch, models, _POOL_FILE, ["--allow_chaos"]) as pool,
        Load(pool.target, {"a": 4, "b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        hurt_s = time.monotonic()
        incarnation = _hurt(pool, Harm.LEAK, _LEAK_MB_PER_S)
        pool.wait_replaced("a", incarnation, _WITHIN_S)
        replaced_s = time.monotonic() - hurt_s
        time.sleep(stage.seconds(3.0, 0.5))
        cause = pool.cause(incarnation)
    return [
        Check("it ends in good order, before it is killed for it", "code 0" in cause, cause),
        Check("it is replaced", True, f"after {replaced_s:.1f} s at {_LEAK_MB_PER_S} MiB/s, limit {_LIMIT_MB} MiB"),
        _kept("A", load.calls["a"]),
        _kept("B", load.calls["b"]),
    ]


SCENES: dict[str, Scene] = {"out of memory": out_of_memory, "a leak": leak}
