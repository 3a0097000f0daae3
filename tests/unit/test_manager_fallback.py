"""What a rollback falls back on: it gets the place of what failed, and is a version that can come back."""

import pytest

from modelpool.supervisor.devices import Device
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.status import Code
from tests.unit.manager_world import KILLED, World, crash_loop, promote

GIB = 1 << 30
RESOURCE, AVAILABILITY = TransitionPolicy.RESOURCE_PRESERVING, TransitionPolicy.AVAILABILITY_PRESERVING


def disk(*versions: int) -> dict[int, str]:
    return {version: f"/models/m/{version}" for version in versions}


def live(world: World) -> set[int]:
    return {spawn.slot.servable.version for spawn in world.alive.values()}


def on_a_gpu_for_one(transition: TransitionPolicy) -> World:
    """Version 1 serves on a GPU that has no room for two."""
    world = World(transition, devices=(Device("gpu:0", "GPU-a", "x", 10 * GIB), Device("cpu", "-1")))
    settings = ModelSettings(transition=transition, devices=DevicePolicy(("gpu:0",), 1, 6 * GIB))
    world.manager.configure({"m": settings})
    world.manager.aspire("m", disk(1), disk(1, 2))
    world.advance()
    world.ready(1)
    world.ack()
    world.ack()
    return world


def wait_for(world: World, version: int) -> None:
    """Until it is started: the next load on a device waits for what a dead process had there, for 30 s at most."""
    for _ in range(40):
        if version in live(world):
            return
        world.sleep(1.0)
    raise AssertionError(f"version {version} was not started")


@pytest.mark.parametrize("served", [False, True])
def test_it_gets_the_place_of_what_failed(served: bool) -> None:
    world = on_a_gpu_for_one(RESOURCE)
    world.manager.aspire("m", disk(2), disk(1, 2))
    world.advance()
    world.ack()
    world.ack()
    world.bury()
    wait_for(world, 2)
    if served:
        world.ready(2)
        world.ack()
        world.ack()
        world.die(world.incarnation(2), KILLED)
        wait_for(world, 2)
    world.fail_load(2, permanent=True)
    wait_for(world, 1)


@pytest.mark.parametrize("by", ["failed loads", "deaths while loading"])
def test_a_version_that_did_not_come_back_is_not_the_last_good_one(by: str) -> None:
    world = World(restart=RestartPolicy())
    promote(world, 1)
    promote(world, 2)
    world.die(world.incarnation(2), KILLED)
    for _ in range(3):
        if by == "failed loads":
            world.fail_load(2, permanent=False, code=Code.NOT_FOUND)
        else:
            world.die(world.incarnation(2), KILLED)
        world.sleep(64.0)
    world.manager.aspire("m", disk(3), disk(1, 2, 3))
    world.advance()
    world.ready(3)
    world.ack()
    world.ack()
    world.bury()
    world.die(world.incarnation(3), KILLED)
    world.fail_load(3, permanent=True)
    assert live(world) == {1}


def test_one_that_failed_for_good_is_no_fallback_any_more() -> None:
    world = World(restart=RestartPolicy())
    promote(world, 1)
    promote(world, 2)
    world.die(world.incarnation(2), KILLED)
    for _ in range(6):
        world.fail_load(2, permanent=False)
        world.sleep(60.0)
    world.fail_load(1, permanent=True)
    assert world.manager.models["m"].good_instead_of(2) is None


def test_what_serves_until_the_next_one_can_is_tried_again() -> None:
    world = World()
    promote(world, 1)
    world.manager.aspire("m", disk(2), disk(1, 2))
    world.advance()
    world.fail_load(2, permanent=True)
    world.ack()
    crash_loop(world, 1)
    assert not world.alive
    world.ack()
    world.sleep(60.0)
    assert live(world) == {1}


def test_it_makes_room_for_one_that_has_no_place_yet() -> None:
    world = on_a_gpu_for_one(AVAILABILITY)
    world.manager.aspire("m", disk(2), disk(1, 2))
    world.advance()
    world.die(world.incarnation(1), KILLED)
    wait_for(world, 1)
    world.fail_load(1, permanent=True)
    world.ack()
    world.bury()
    wait_for(world, 2)


def test_a_restart_by_hand_waits_until_the_fallback_is_gone_where_two_must_not_be_in_memory() -> None:
    world = World(RESOURCE)
    world.manager.configure({"m": ModelSettings(transition=RESOURCE)})
    promote(world, 1)
    world.manager.aspire("m", disk(2), disk(1, 2))
    world.advance()
    world.ack()
    world.ack()
    world.bury()
    world.fail_load(2, permanent=True)
    world.ready(1)
    world.ack()
    (restart,) = world.manager.restart("m", 2, world.now_s)
    for _ in range(5):
        world.advance()
        assert len(live(world)) <= 1
        world.ack()
        world.bury()
    assert live(world) == {2}
    assert restart.slot.state is SlotState.STARTING
