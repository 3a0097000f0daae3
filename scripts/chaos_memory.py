"""Scenes with a worker that takes more memory than it may have, at once or slowly, or more than there is."""

import time
from dataclasses import dataclass
from functools import partial

from chaos_load import Calls, Load
from chaos_pool import BrokenPromise, ChaosPool
from chaos_scene import Check, Scene, Skipped, Stage
from memory_group import MemoryGroup, NoGroup

from modelpool.supervisor.control_client import ControlClient
from modelpool.supervisor.wire.client_messages import HurtModel, HurtReply
from modelpool.supervisor.wire.states import Harm
from modelpool.supervisor.wire.status import Code

_WITHIN_S = 90.0
# All the memory that there is. The limit of one worker is far above it.
_ALL_MIB = 2048


@dataclass(frozen=True, slots=True)
class Hunger:
    """How a worker takes memory, and what its end is to say. `mib_per_s` 0: as fast as it can."""

    harm: Harm
    mib_per_s: int
    limit_mib: int
    promise: str
    causes: tuple[str, ...]


# What is left of its limit when another one is ordered is taken in no time. But a limit that is watched is looked at
# five times a second, and a small model may be replaced between two looks: then the old one has gone in good order.
_AT_ONCE = Hunger(
    Harm.OOM, 0, 200, "it is ended at its limit, or replaced before that is seen, and told so", ("memory", "code 0")
)
# Replaced before it is at its limit, by one that is warm before it goes.
_SLOWLY = Hunger(Harm.LEAK, 25, 500, "it ends in good order, before it is killed for it", ("code 0",))


def takes_memory(stage: Stage, hunger: Hunger) -> list[Check]:
    """A worker of A takes memory while clients ask A and B."""
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    with (
        ChaosPool(stage.scratch, models, _limited(hunger.limit_mib), ["--allow_chaos"]) as pool,
        Load(pool.target, {"a": 4, "b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        hurt_s = time.monotonic()
        incarnation = _hurt(pool, hunger)
        pool.wait_replaced("a", incarnation, _WITHIN_S)
        back_s = time.monotonic() - hurt_s
        time.sleep(stage.seconds(2.0, 0.5))
        cause = pool.cause(incarnation)
    speed = f"at {hunger.mib_per_s} MiB/s" if hunger.mib_per_s else "as fast as it can"
    return [
        Check(hunger.promise, any(each in cause for each in hunger.causes), cause),
        Check("another one serves in its place", True, f"after {back_s:.1f} s, {speed}, limit {hunger.limit_mib} MiB"),
        _kept("A", load.calls["a"]),
        _kept("B", load.calls["b"]),
    ]


def no_memory_left(stage: Stage) -> list[Check]:
    """A worker of A takes all the memory that the pool's control group has: the kernel ends whom it chooses."""
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    try:
        with (
            MemoryGroup.made(_ALL_MIB << 20) as group,
            ChaosPool(
                stage.scratch, models, _limited(64 * _ALL_MIB), ["--allow_chaos"], before_exec=group.enter
            ) as pool,
            Load(pool.target, {"a": 4, "b": 4}) as load,
        ):
            time.sleep(stage.seconds(2.0, 0.5))
            hurt_s, before = time.monotonic(), _needed_by_all(pool)
            incarnation = _hurt(pool, _AT_ONCE)
            pool.wait_replaced("a", incarnation, _WITHIN_S)
            back_s = time.monotonic() - hurt_s
            time.sleep(stage.seconds(2.0, 0.5))
            cause, kills, after = pool.cause(incarnation), group.kills, _needed_by_all(pool)
    except NoGroup as reason:
        raise Skipped(str(reason)) from reason
    return [
        Check("the kernel ends one process, and that is told", kills == 1 and "by the kernel" in cause, cause),
        Check("it is the worker of A, and no process that others need", before == after, f"{kills} killed"),
        Check("another one serves in its place", True, f"after {back_s:.1f} s, with {_ALL_MIB} MiB for the whole pool"),
        _kept("A", load.calls["a"]),
        _kept("B", load.calls["b"]),
    ]


def _needed_by_all(pool: ChaosPool) -> list[int]:
    """The pids of supervisor, fork server, frontends, and of B's worker."""
    return [
        pool.process.pid,
        pool.status()["supervisor"]["fork_server_pid"],
        *pool.frontends(),
        pool.worker("b")["pid"],
    ]


def _limited(limit_mib: int) -> str:
    """The pool's file."""
    return f"[models.a]\nhost_memory_mb = {limit_mib}\n"


def _hurt(pool: ChaosPool, hunger: Hunger) -> int:
    """Have the worker of A hurt itself; its incarnation."""
    with ControlClient(pool.runtime_dir) as control:
        reply = control.ask(lambda token: HurtModel(token, "a", None, hunger.harm, hunger.mib_per_s), HurtReply)
    if reply.code is not Code.OK:
        raise BrokenPromise(f"{hunger.harm}: {reply.code.name}: {reply.message}")
    return reply.incarnation


def _kept(name: str, calls: Calls) -> Check:
    seen = f"{len(calls)} calls, {calls.codes or 'no error'}, {calls.wrong} wrong {calls.texts[:2] or ''}"
    return Check(f"{name}: 0 errors", not calls.refused and not calls.wrong, seen)


SCENES: dict[str, Scene] = {
    "out of memory": partial(takes_memory, hunger=_AT_ONCE),
    "a leak": partial(takes_memory, hunger=_SLOWLY),
    "no memory left for anybody": no_memory_left,
}
