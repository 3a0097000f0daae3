"""A world of fake processes and frontends for a manager, with a clock that the test owns."""

from collections.abc import Iterable

from modelpool.supervisor.commands import AnnounceDeath, Command, Kill, Publish, Spawn, Stop
from modelpool.supervisor.devices import Device, Inventory
from modelpool.supervisor.exits import Exit
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.places import Places
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.routes import RouteBoard
from modelpool.supervisor.servable import Servable, Slot
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import RouteTable
from modelpool.supervisor.wire.states import ServableState, WorkerPhase
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import (
    WorkerHeartbeat,
    WorkerHello,
    WorkerLoadFailed,
    WorkerProgress,
    WorkerReady,
)

FRONTEND = Incarnation(1)
KILLED = Exit(None, 9, "killed by SIGKILL")
STOPPED = Exit(0, None, "exited with code 0")
LOAD_FAILED = Exit(3, None, "exited with code 3")
GPUS = (Device("gpu:0", "GPU-a"), Device("gpu:1", "GPU-b"))


def take_newest_table(board: RouteBoard, alive: Iterable[Incarnation]) -> None:
    """What FRONTEND does with it: it acknowledges it, and lets go of those alive that it does not name."""
    board.ack(FRONTEND, board.table.epoch)
    named = {w.incarnation for m in board.table.models for v in m.versions for w in v.workers}
    for incarnation in set(alive) - named:
        board.released(FRONTEND, incarnation)


class World:
    """Fake processes and one frontend; does what the manager says, when the test says so."""

    def __init__(
        self,
        transition: TransitionPolicy = TransitionPolicy.AVAILABILITY_PRESERVING,
        restart: RestartPolicy | None = None,
        max_loading: int = 100,
        devices: tuple[Device, ...] = (Device("cpu", "-1"),),
        places: Places | None = None,
    ) -> None:
        self.now_s = 1000.0
        self.alive: dict[Incarnation, Spawn] = {}
        self.doomed: dict[Incarnation, Exit] = {}
        self.tables: list[RouteTable] = []
        self.deaths: list[AnnounceDeath] = []
        self.manager = Manager(
            ManagerOptions(
                max_loading=max_loading,
                endpoint=lambda incarnation: f"ipc:///fake/w{incarnation}",
                jitter=lambda: 0.0,
                places=places or Places(Inventory(devices)),
                restart=restart or RestartPolicy(max_load_retries=2, load_retry_interval_s=10.0, max_restarts=3),
            )
        )
        self.manager.board.join(FRONTEND)
        self.manager.configure({"m": ModelSettings(transition=transition)})

    def advance(self) -> list[Command]:
        commands = self.manager.advance(self.now_s)
        for command in commands:
            match command:
                case Spawn(incarnation):
                    assert incarnation not in self.alive
                    self.alive[incarnation] = command
                case Kill(incarnation):
                    self.doomed.setdefault(incarnation, KILLED)
                case Stop(incarnation):
                    self.doomed.setdefault(incarnation, STOPPED)
                case Publish(table):
                    self.tables.append(table)
                case AnnounceDeath():
                    self.deaths.append(command)
        return commands

    def aspire(self, *versions: int) -> None:
        self.manager.aspire("m", {version: f"/models/m/{version}" for version in versions})
        self.advance()

    def aspire_in(self, folder: str, *versions: int) -> None:
        """As `aspire`, at another base path."""
        self.manager.aspire("m", {version: f"{folder}/{version}" for version in versions})
        self.advance()

    def incarnation(self, version: int) -> Incarnation:
        return next(i for i, spawn in self.alive.items() if spawn.slot.servable.version == version)

    def ready(self, version: int) -> Incarnation:
        """The worker of this version loads without trouble."""
        incarnation = self.incarnation(version)
        self.speak(incarnation)
        return incarnation

    def speak(self, incarnation: Incarnation) -> None:
        """All that a worker says until it is ready, and has answered once."""
        for message in (
            WorkerHello(pid=100 + incarnation),
            WorkerProgress(WorkerPhase.LOADING),
            WorkerProgress(WorkerPhase.WARMING),
            WorkerReady(load_s=1.0, warmup_s=0.5),
            WorkerHeartbeat(served=1, in_flight=0, busy_s=0.0),
        ):
            self.manager.worker_message(incarnation, message, self.now_s)
        self.advance()

    def fail_load(self, version: int, *, permanent: bool, code: Code = Code.DATA_LOSS) -> None:
        self.fail(self.incarnation(version), permanent=permanent, code=code)

    def fail(self, incarnation: Incarnation, *, permanent: bool, code: Code = Code.DATA_LOSS) -> None:
        self.manager.worker_message(incarnation, WorkerProgress(WorkerPhase.LOADING), self.now_s)
        self.manager.worker_message(incarnation, WorkerLoadFailed(code, "no good", permanent), self.now_s)
        self.die(incarnation, LOAD_FAILED)

    def die(self, incarnation: Incarnation, exit_: Exit) -> None:
        del self.alive[incarnation]
        self.doomed.pop(incarnation, None)
        self.manager.exited(incarnation, exit_, self.now_s)
        self.advance()

    def bury(self) -> None:
        """Those who were told to go, go."""
        while self.doomed:
            incarnation, exit_ = next(iter(self.doomed.items()))
            self.die(incarnation, exit_)

    def ack(self) -> None:
        """The frontend takes the newest table and lets go of the workers that it does not name."""
        take_newest_table(self.manager.board, self.alive)
        self.advance()

    def sleep(self, seconds: float) -> None:
        """Time passes; what comes due at its end is done, with a second look where the manager asks for one."""
        self.now_s += seconds
        self.advance()
        doubted = any(slot.doubted_s is not None for servable in self.servables() for slot in servable.slots)
        due_s = self.manager.next_deadline_s()
        if doubted and due_s is not None:
            self.now_s = max(self.now_s, due_s)
            self.advance()

    def servables(self) -> list[Servable]:
        return list(self.manager.models["m"].servables.values())

    def servable(self, version: int) -> Servable:
        return self.manager.models["m"].servables[version]

    def slot(self, version: int) -> Slot:
        return self.servable(version).slots[0]

    def loads_from(self, version: int) -> str:
        """The folder that the living worker of this version was told."""
        return self.alive[self.incarnation(version)].path

    def states(self) -> dict[int, ServableState]:
        return {version: servable.state for version, servable in self.manager.models["m"].servables.items()}

    def routed(self) -> set[Incarnation]:
        return {w.incarnation for m in self.tables[-1].models for v in m.versions for w in v.workers}


def promote(world: World, version: int) -> None:
    """The source wants `version` alone; it loads, is routed to, and its predecessor goes."""
    world.manager.aspire("m", {version: f"/models/m/{version}"}, {v: f"/models/m/{v}" for v in (1, 2, 3)})
    world.advance()
    world.ready(version)
    world.ack()
    world.ack()
    world.bury()


def crash_loop(world: World, version: int) -> None:
    for _ in range(4):
        world.die(world.incarnation(version), KILLED)
        if world.slot(version).state is SlotState.FAILED:
            return
        world.ready(version)
        world.ack()
