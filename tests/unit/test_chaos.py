"""Who is hurt on purpose, and who never: the supervisor's side of `modelpool chaos`, with a real manager."""

from dataclasses import dataclass, field

import pytest

from modelpool.supervisor.chaos import Chaos, Hands
from modelpool.supervisor.commands import Spawn
from modelpool.supervisor.devices import Device, Inventory
from modelpool.supervisor.manager import Manager, ManagerOptions
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.places import Places
from modelpool.supervisor.wire.client_messages import HurtModel
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import Harm, WorkerPhase
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import HurtWorker, WorkerHello, WorkerProgress, WorkerReady
from modelpool.supervisor.wire.worker_spec import NOT_DEADLY

POISON = HurtWorker(Harm.POISON, 1234)


@dataclass
class World:
    """A manager whose one worker of each named model is ready, and what was done to whom."""

    done: list[tuple[str, Incarnation]] = field(default_factory=list)
    told: list[tuple[Incarnation, HurtWorker]] = field(default_factory=list)

    def chaos(self, *names: str, allowed: bool = True, limit_mb: float = 0.0) -> Chaos:
        manager = Manager(
            ManagerOptions(
                max_loading=9,
                endpoint=lambda incarnation: f"ipc:///fake/{incarnation}",
                jitter=lambda: 0.0,
                places=Places(Inventory((Device("cpu", "-1"),))),
            )
        )
        manager.configure({name: ModelSettings() for name in names})
        for name in names:
            manager.aspire(name, {1: f"/{name}/1"})
        for command in manager.advance(0.0):
            if isinstance(command, Spawn):
                loading = (WorkerProgress(WorkerPhase.LOADING), WorkerProgress(WorkerPhase.WARMING))
                for message in (WorkerHello(1), *loading, WorkerReady(0.1, 0.0)):
                    manager.worker_message(command.incarnation, message, 0.0)
        manager.advance(0.0)
        hands = Hands(
            kill=lambda worker: self.done.append(("kill", worker)),
            stop=lambda worker: self.done.append(("stop", worker)),
            tell=lambda worker, order: self.told.append((worker, order)),
        )
        return Chaos(allowed, manager, hands, lambda name: limit_mb)


def order(harm: Harm, model: str = "a", amount: int = 0) -> HurtModel:
    return HurtModel(7, model, None, harm, amount)


@pytest.mark.parametrize("harm", list(Harm))
def test_nobody_is_hurt_unless_it_is_allowed(harm: Harm) -> None:
    world = World()
    chaos = world.chaos("a", allowed=False)
    reply = chaos.hurt(order(harm, amount=1234))
    assert (reply.token, reply.code) == (7, Code.FAILED_PRECONDITION)
    assert reply.message == "this pool was not started with --allow_chaos: nobody in it is hurt"
    assert not world.done
    assert not world.told
    assert chaos.deadly_size_bytes("a") == NOT_DEADLY


@pytest.mark.parametrize("harm", [Harm.KILL, Harm.STOP])
def test_one_worker_is_hurt(harm: Harm) -> None:
    world = World()
    reply = world.chaos("a", "b").hurt(order(harm, "b"))
    assert reply.code is Code.OK
    assert world.done == [(harm.value, reply.incarnation)]


def test_a_model_that_does_not_serve_is_not_hurt() -> None:
    world = World()
    reply = world.chaos("a").hurt(order(Harm.KILL, "other"))
    assert (reply.code, world.done) == (Code.NOT_FOUND, [])


def test_a_poison_holds_for_workers_to_come_until_it_is_cured() -> None:
    world = World()
    chaos = world.chaos("a", "b")
    worker = chaos.hurt(order(Harm.POISON, amount=1234)).incarnation
    assert world.told == [(worker, POISON)]
    assert (chaos.deadly_size_bytes("a"), chaos.deadly_size_bytes("b")) == (1234, NOT_DEADLY)
    world.told.clear()
    chaos.hurt(order(Harm.CURE))
    assert world.told == [(worker, HurtWorker(Harm.CURE, NOT_DEADLY))]
    assert chaos.deadly_size_bytes("a") == NOT_DEADLY
    world.told.clear()
    chaos.ready(worker)
    assert world.told == [(worker, HurtWorker(Harm.POISON, NOT_DEADLY))], "it may have been started with the poison"


def test_a_poison_without_a_size_is_refused() -> None:
    world = World()
    reply = world.chaos("a").hurt(order(Harm.POISON))
    assert (reply.code, reply.message) == (
        Code.INVALID_ARGUMENT,
        "poison: expected the size of a request in bytes, got 0",
    )


@pytest.mark.parametrize(("harm", "amount"), [(Harm.OOM, 0), (Harm.LEAK, 20)])
def test_only_a_model_with_a_limit_runs_out_of_memory(harm: Harm, amount: int) -> None:
    world = World()
    reply = world.chaos("a").hurt(order(harm, amount=amount))
    assert reply.code is Code.FAILED_PRECONDITION
    assert reply.message == "model a has no host_memory_mb in --pool_config_file to run out of"
    assert not world.told
    reply = world.chaos("a", limit_mb=100.0).hurt(order(harm, amount=amount))
    assert reply.code is Code.OK
    assert world.told == [(reply.incarnation, HurtWorker(harm, amount))]


def test_a_leak_without_a_rate_is_refused() -> None:
    reply = World().chaos("a", limit_mb=100.0).hurt(order(Harm.LEAK))
    assert (reply.code, reply.message) == (Code.INVALID_ARGUMENT, "leak: expected MiB a second, got 0")
