"""Scenes in which the pool's own processes die, alone or in the same instant as a worker."""

import os
import signal
import time

from chaos_load import Calls, Load
from chaos_pool import BrokenPromise, ChaosPool
from chaos_scene import Check, Scene, Stage

_BACK_WITHIN_S = 30.0
# One that does not answer is killed after 30 s.
_STOPPED_BACK_WITHIN_S = 30.0 + _BACK_WITHIN_S
_GONE_WITHIN_S = 5.0
_ENDS_WITHIN_S = 10.0
# A start is at once when it is not waited with; one on a busy machine takes a moment.
_AT_ONCE_S = 1.0


def fork_server(stage: Stage) -> list[Check]:
    """The fork server is killed under load, and then a worker, which the next one must fork."""
    with ChaosPool(stage.scratch, {"a": stage.models / "work", "b": stage.models / "work"}) as pool:
        with Load(pool.target, {"a": 4, "b": 4}) as load:
            time.sleep(stage.seconds(3.0, 0.5))
            first = pool.status()["supervisor"]["fork_server_pid"]
            os.kill(first, signal.SIGKILL)
            killed_s = time.monotonic()
            second = pool.until(lambda: _fork_server_pid(pool, first), _BACK_WITHIN_S, "another fork server")
            started_s = time.monotonic() - killed_s
            # Young as it is: a single kill must not make the next one wait.
            os.kill(second, signal.SIGKILL)
            killed_s = time.monotonic()
            third = pool.until(lambda: _fork_server_pid(pool, second), _BACK_WITHIN_S, "a third fork server")
            started_again_s = time.monotonic() - killed_s
            time.sleep(stage.seconds(6.0, 2.0))
        before_s = time.monotonic()
        pool.wait_replaced("a", pool.kill_worker("a"), _BACK_WITHIN_S)
        back_s = time.monotonic() - before_s
    a, b = load.calls["a"], load.calls["b"]
    refused = len(a.refused) + len(b.refused) + a.wrong + b.wrong
    return [
        Check("0 errors", not refused, f"{len(a) + len(b)} calls, {refused} refused or wrong"),
        Check(
            f"another one is started at once, and so is one for a young one: within {_AT_ONCE_S:g} s",
            stage.timed(len({first, second, third}) == 3 and max(started_s, started_again_s) <= _AT_ONCE_S),
            f"after {started_s:.2f} s and {started_again_s:.2f} s",
        ),
        Check("it forks the next worker", True, f"back after {back_s:.2f} s"),
    ]


def _fork_server_pid(pool: ChaosPool, other_than: int) -> int | None:
    pid: int | None = pool.status()["supervisor"]["fork_server_pid"]
    return pid if pid != other_than else None


def fork_server_and_worker(stage: Stage) -> list[Check]:
    """A worker, and the fork server that is to fork the next one, die in the same instant."""
    with (
        ChaosPool(stage.scratch, {"a": stage.models / "work", "b": stage.models / "work"}) as pool,
        Load(pool.target, {"a": 4, "b": 4}) as load,
    ):
        time.sleep(stage.seconds(2.0, 0.5))
        fork_server_pid, worker = pool.status()["supervisor"]["fork_server_pid"], pool.serving_worker("a", 1.1)
        killed_s = time.monotonic()
        for pid in (fork_server_pid, worker["pid"]):
            os.kill(pid, signal.SIGKILL)
        pool.wait_replaced("a", worker["incarnation"], _BACK_WITHIN_S)
        back_s = time.monotonic() - killed_s
        time.sleep(stage.seconds(2.0, 0.5))
    a, b = load.calls["a"], load.calls["b"]
    return [
        Check("A, whose requests wait for both: 0 errors", not a.refused and not a.wrong, _seen(a)),
        Check("B: 0 errors", not b.refused and not b.wrong, _seen(b)),
        Check("A is back", True, f"after {back_s:.2f} s, with the import of TensorFlow"),
    ]


def _seen(calls: Calls) -> str:
    return f"{len(calls)} calls, {calls.codes or 'no error'}, {calls.wrong} wrong {calls.texts[:2] or ''}"


def frontend(stage: Stage) -> list[Check]:
    """One of two frontends is killed under load: its clients lose what they had in flight there, and connect again."""
    models = {"a": stage.models / "work"}
    clients = 8
    with (
        ChaosPool(stage.scratch, models, flags=["--frontends=2"]) as pool,
        Load(pool.target, {"a": clients}) as load,
    ):
        time.sleep(stage.seconds(3.0, 0.5))
        old = pool.frontends()
        killed_s = time.monotonic()
        os.kill(old[0], signal.SIGKILL)
        pool.until(lambda: _serving(pool, old[0]) == 2, _BACK_WITHIN_S, "two frontends again")
        back_s = time.monotonic() - killed_s
        time.sleep(stage.seconds(5.0, 1.0))
        restarts = pool.worker("a")["restarts"]
    a = load.calls["a"]
    later = a.between(killed_s + 5.0).codes
    return [
        Check(
            "clients lose at most what they had in flight there",
            len(a.refused) <= clients,
            f"{a.codes or 'no error'} of {len(a)} calls",
        ),
        Check("they are told so with UNAVAILABLE", set(a.codes) <= {"UNAVAILABLE"}, str(a.texts[:2])),
        Check("no answer is another request's", a.wrong == 0, f"{a.wrong} wrong"),
        Check("it is replaced", True, f"after {back_s:.2f} s"),
        Check(
            "the clients serve themselves at the others meanwhile",
            stage.timed(not later),
            f"{later or 'no error'} later than 5 s",
        ),
        Check("no worker died of it", restarts == 0, f"{restarts} restarts"),
    ]


def _serving(pool: ChaosPool, other_than: int) -> int:
    """How many frontends have routes, the dead one apart."""
    frontends = pool.status()["frontends"]
    return sum(each["pid"] != other_than and each["routes_epoch"] > 0 for each in frontends)


def frontend_and_worker(stage: Stage) -> list[Check]:
    """A worker and a frontend die in the same instant."""
    models = {"a": stage.models / "work", "b": stage.models / "work"}
    clients = 4
    with (
        ChaosPool(stage.scratch, models, flags=["--frontends=2"]) as pool,
        Load(pool.target, {"a": clients, "b": clients}) as load,
    ):
        time.sleep(stage.seconds(3.0, 0.5))
        old = pool.frontends()
        killed_s = time.monotonic()
        incarnation = pool.kill_worker("a")
        os.kill(old[0], signal.SIGKILL)
        pool.wait_replaced("a", incarnation)
        pool.until(lambda: _serving(pool, old[0]) == 2, _BACK_WITHIN_S, "two frontends again")
        settled_s = time.monotonic()
        time.sleep(stage.seconds(4.0, 0.7))
    a, b = load.calls["a"], load.calls["b"]
    later = len(a.between(settled_s).refused) + len(b.between(settled_s).refused)
    return [
        Check(
            "B loses at most what it had in flight at that frontend",
            len(b.refused) <= clients,
            f"{b.codes or 'no error'}",
        ),
        Check("A is told so", set(a.codes) <= {"UNAVAILABLE"}, f"{a.codes or 'no error'}"),
        Check("no answer is another request's", a.wrong + b.wrong == 0, f"{a.wrong + b.wrong} wrong"),
        Check("afterwards all is served", later == 0, f"{later} refused later than {settled_s - killed_s:.1f} s"),
    ]


def supervisor(stage: Stage) -> list[Check]:
    """kill -9 of the supervisor: everything ends with it, and a new one starts in its place."""
    models = {"a": stage.models / "quick"}
    with ChaosPool(stage.scratch, models) as pool:
        pool.process.kill()
        pool.process.wait()
        died_s = time.monotonic()
        while pool.pids() and time.monotonic() - died_s < _ENDS_WITHIN_S:
            time.sleep(0.02)
        gone_s, left = time.monotonic() - died_s, pool.pids()
        if left:
            raise BrokenPromise(f"{len(left)} processes live on without their supervisor")
        with pool, Load(pool.target, {"a": 1}) as load:
            time.sleep(0.2)
    return [
        Check(
            f"every process ends within {_GONE_WITHIN_S:g} s", stage.timed(gone_s <= _GONE_WITHIN_S), f"{gone_s:.2f} s"
        ),
        Check(
            "started again in the same place, it serves", not load.calls["a"].refused, f"{len(load.calls['a'])} calls"
        ),
    ]


def stopped_fork_server(stage: Stage) -> list[Check]:
    """The fork server stands still (SIGSTOP), and a worker is killed, which it does not fork again."""
    with ChaosPool(stage.scratch, {"a": stage.models / "work", "b": stage.models / "work"}) as pool:
        with Load(pool.target, {"b": 4}) as load:
            time.sleep(stage.seconds(2.0, 0.5))
            stopped = pool.status()["supervisor"]["fork_server_pid"]
            os.kill(stopped, signal.SIGSTOP)
            killed_s = time.monotonic()
            pool.wait_replaced("a", pool.kill_worker("a"), _STOPPED_BACK_WITHIN_S)
            back_s = time.monotonic() - killed_s
            another = _fork_server_pid(pool, stopped)
        b = load.calls["b"]
    return [
        Check("B: 0 errors", not b.refused and not b.wrong, _seen(b)),
        Check("another one is started", another is not None, f"pid {another} after {stopped}"),
        Check("A is back", True, f"after {back_s:.2f} s, with the import of TensorFlow"),
    ]


SCENES: dict[str, Scene] = {
    "the fork server dies": fork_server,
    "the fork server and a worker die at once": fork_server_and_worker,
    "the fork server stands still": stopped_fork_server,
    "a frontend dies": frontend,
    "a frontend and a worker die at once": frontend_and_worker,
    "the supervisor dies": supervisor,
}
