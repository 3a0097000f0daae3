"""What is told of workers that are on their way, and when."""

from modelpool.supervisor import loading_progress
from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.loading_progress import EVERY_S
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.wire.states import WorkerPhase
from modelpool.supervisor.wire.worker_messages import WorkerProgress, WorkerReady


def test_each_phase_is_told_while_it_lasts() -> None:
    manager = Manager(ManagerOptions(10, lambda incarnation: f"ipc:///w{incarnation}", lambda: 0.0))
    manager.configure({"big": ModelSettings()})
    manager.aspire("big", {3: "/models/big/3"})
    (worker,) = [command.incarnation for command in manager.advance(0.0) if isinstance(command, Spawn)]

    def told(now_s: float) -> list[str]:
        return loading_progress.lines(manager, now_s)

    assert told(EVERY_S - 1) == []
    assert told(EVERY_S) == [f"still starting slot=big/3@cpu#0 incarnation={worker} seconds=5"]
    manager.worker_message(worker, WorkerProgress(WorkerPhase.LOADING), 10.0)
    assert told(12.0) == [], "a phase begins anew"
    assert told(70.2) == [f"still loading slot=big/3@cpu#0 incarnation={worker} seconds=60"]
    manager.worker_message(worker, WorkerProgress(WorkerPhase.WARMING), 71.0)
    assert told(77.0) == [f"still warming slot=big/3@cpu#0 incarnation={worker} seconds=6"]
    manager.worker_message(worker, WorkerReady(0.5, 0.1), 78.0)
    assert told(100.0) == []
