"""A thousand deaths: what they leave behind in the processes that live on."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from chaos_load import Load
from chaos_pool import ChaosPool
from chaos_scene import Check, Scene, Stage

_MIB = 1 << 20
_SUPERVISOR_MIB = 10.0
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
    """kill -9 of a worker as soon as it is back, a thousand times, while clients ask and count."""
    warm, kills = (5, 30) if stage.short else (50, 1000)
    clients = 4
    with ChaosPool(stage.scratch, {"a": stage.models / "quick"}, _POOL_FILE) as pool:
        with Load(pool.target, {"a": clients}, pause_s=0.02) as load:
            for _ in range(warm):
                pool.wait_replaced("a", pool.kill_worker("a"))
            before = Left.of(pool)
            began_s = time.monotonic()
            for _ in range(kills):
                pool.wait_replaced("a", pool.kill_worker("a"))
            took_s = time.monotonic() - began_s
        time.sleep(1.5)  # a frontend counts once a second
        after = Left.of(pool)
        told = sum(each["answered"] for each in pool.status()["frontends"])
    a = load.calls["a"]
    grown = {
        name: getattr(after, name) - getattr(before, name) for name in ("descriptors", "processes", "zombies", "files")
    }
    memory = after.supervisor_mib - before.supervisor_mib
    return [
        Check(
            f"supervisor within {_SUPERVISOR_MIB:g} MB",
            memory <= _SUPERVISOR_MIB,
            f"{memory:+.1f} MiB over {kills} kills in {took_s:.0f} s",
        ),
        Check("frontends (figure)", None, f"{after.frontends_mib - before.frontends_mib:+.1f} MiB"),
        Check("no zombie, process, descriptor or file more", all(each <= 0 for each in grown.values()), str(grown)),
        Check(
            "no shared memory more",
            after.shared_memory <= before.shared_memory,
            f"{after.shared_memory - before.shared_memory:+d} in {_SHARED_MEMORY}",
        ),
        Check(
            "no request is lost: each has an answer",
            not a.refused,
            f"{len(a)} calls, {a.codes or 'no error'} {a.texts[:2] or ''}",
        ),
        Check("no answer is another request's", a.wrong == 0, f"{a.wrong} wrong"),
        Check(
            "and none is given twice: the pool counts as many as the clients", told == len(a), f"{told} and {len(a)}"
        ),
    ]


SCENES: dict[str, Scene] = {"a thousand kills": many_kills}
