"""A thousand deaths: what they leave behind in the processes that live on."""

import time
from dataclasses import dataclass
from pathlib import Path

import chaos_client
import grpc
import psutil
from chaos_load import Calls, Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_MIB = 1 << 20
_SUPERVISOR_MIB = 10.0
_MODELS = ("a", "b")
_POOL_FILE = "[defaults]\nmax_restarts = 1000000\n"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Left:
    """What processes hold: memory of the supervisor, descriptors, zombies, files."""

    supervisor_mib: float
    frontends_mib: float
    descriptors: int
    processes: int
    zombies: int
    files: int
    shared_memory: int

    @classmethod
    def of(cls, pool: ChaosPool) -> "Left":
        supervisor = psutil.Process(pool.process.pid)
        frontends = [psutil.Process(pid) for pid in pool.frontends()]
        children = supervisor.children(recursive=True)
        return cls(
            supervisor.memory_info().rss / _MIB,
            sum(each.memory_info().rss for each in frontends) / _MIB,
            supervisor.num_fds() + sum(each.num_fds() for each in frontends),
            len(children),
            sum(each.status() == psutil.STATUS_ZOMBIE for each in children),
            sum(1 for _ in pool.runtime_dir.iterdir()),
            sum(1 for _ in _SHARED_MEMORY.iterdir()),
        )


def many_kills(stage: Stage) -> list[Check]:
    """kill -9 of two workers as soon as they are back and have answered, 500 times, while clients ask and count."""
    warm, rounds = (5, 15) if stage.short else (25, 500)
    kills = rounds * len(_MODELS)
    with ChaosPool(stage.scratch, dict.fromkeys(_MODELS, stage.models / "quick"), _POOL_FILE) as pool:
        clients = dict.fromkeys(_MODELS, 2)
        with Load(pool.target, clients, pause_s=0.02) as load, grpc.insecure_channel(pool.target) as channel:
            for _ in range(warm):
                _kill_each_once(pool, channel)
            before = Left.of(pool)
            began_s = time.monotonic()
            for _ in range(rounds):
                _kill_each_once(pool, channel)
            took_s = time.monotonic() - began_s
        time.sleep(1.5)  # a frontend counts once a second
        after = Left.of(pool)
        told = sum(each["answered"] for each in pool.status()["frontends"]) - (warm + rounds) * len(_MODELS)
    calls = Calls([call for model in _MODELS for call in load.calls[model].all])
    return [*_left(before, after, f"over {kills} kills in {took_s:.0f} s"), *_answers(calls, told)]


def _kill_each_once(pool: ChaosPool, channel: grpc.Channel) -> None:
    """One that dies before it has answered would be taken for one that is no good, and waited with."""
    killed = {model: pool.kill_worker(model) for model in _MODELS}
    for model, incarnation in killed.items():
        pool.wait_replaced(model, incarnation)
        channel.unary_unary(chaos_client.PREDICT)(chaos_client.request_bytes(model, 0), timeout=30.0)


def _left(before: Left, after: Left, what: str) -> list[Check]:
    names = ("descriptors", "processes", "zombies", "files")
    grown = {name: getattr(after, name) - getattr(before, name) for name in names}
    memory, shared = after.supervisor_mib - before.supervisor_mib, after.shared_memory - before.shared_memory
    return [
        Check(f"supervisor within {_SUPERVISOR_MIB:g} MB", memory <= _SUPERVISOR_MIB, f"{memory:+.1f} MiB {what}"),
        Check("frontends (figure)", None, f"{after.frontends_mib - before.frontends_mib:+.1f} MiB"),
        Check("no zombie, process, descriptor or file more", all(each <= 0 for each in grown.values()), str(grown)),
        Check("no shared memory more", shared <= 0, f"{shared:+d} in {_SHARED_MEMORY}"),
    ]


def _answers(a: Calls, told: int) -> list[Check]:
    """`told`: how many answers the pool says it has given to these clients."""
    refused = f"{len(a)} calls, {a.codes or 'no error'} {a.texts[:2] or ''}"
    return [
        Check("no request is lost: each has an answer", not a.refused, refused),
        Check("no answer is another request's", a.wrong == 0, f"{a.wrong} wrong"),
        Check("and none is given twice: the pool counts as the clients do", told == len(a), f"{told} and {len(a)}"),
    ]


SCENES: dict[str, Scene] = {"a thousand kills": many_kills}
