"""A version that is given up is left for the last good one, against a world of fake processes."""

from collections.abc import Callable

import pytest

from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code
from tests.unit.manager_world import KILLED, World, crash_loop, promote


def take_over_unready(world: World, old: int, new: int) -> None:
    """`new` is wanted alone, and takes over while `old` has no worker that answers."""
    world.manager.aspire("m", {new: f"/models/m/{new}"}, {old: f"/models/m/{old}", new: f"/models/m/{new}"})
    world.advance()
    world.bury()
    world.ready(new)
    world.ack()
    world.ack()
    world.bury()


def make_room(world: World) -> None:
    """Version 2 is wanted instead of 1, which goes first."""
    world.manager.aspire("m", {2: "/models/m/2"}, {v: f"/models/m/{v}" for v in (1, 2)})
    world.advance()
    world.ack()
    world.ack()
    world.bury()


def promote_after(world: World, version: int) -> None:
    """The source wants `version` alone; it is loaded when all others are gone."""
    world.manager.aspire("m", {version: f"/models/m/{version}"}, {v: f"/models/m/{v}" for v in (1, 2, 3)})
    world.advance()
    world.ack()
    world.ack()
    world.bury()
    world.ready(version)
    world.ack()


def crash_slowly(world: World, version: int, life_s: float, times: int) -> int:
    """It dies so long after each time that it is ready, `times` or until it is given up; how often it died."""
    for died in range(times):
        if world.slot(version).state is SlotState.FAILED:
            return died
        world.sleep(life_s)
        world.die(world.incarnation(version), KILLED)
        if world.slot(version).state is not SlotState.FAILED:
            world.ready(version)
            world.ack()
    return times


def die_for_good(world: World) -> None:
    world.fail_load(2, permanent=True)


def die_while_it_loads(world: World) -> None:
    while world.slot(2).state is not SlotState.FAILED:
        world.sleep(64.0)
        world.die(world.incarnation(2), KILLED)


def use_up_the_load_retries(world: World) -> None:
    while world.slot(2).state is not SlotState.FAILED:
        world.sleep(10.0)
        world.fail_load(2, permanent=False, code=Code.NOT_FOUND)


def test_a_version_that_crash_loops_is_rolled_back_to_the_last_good_one() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    assert world.states()[2] is ServableState.END
    assert "Rolled back to version 1" in world.servable(2).error.message
    world.ready(1)
    assert world.states()[1] is ServableState.AVAILABLE
    world.sleep(1e5)
    world.aspire(2)
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}, "the same news changes nothing"


def test_the_next_version_ends_a_rollback() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    world.ready(1)
    world.ack()
    promote(world, 3)
    assert world.states() == {1: ServableState.END, 2: ServableState.END, 3: ServableState.AVAILABLE}


def test_when_the_fallback_fails_too_the_version_before_it_is_tried_again() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    world.fail_load(1, permanent=True)
    world.sleep(60.0)
    world.ready(2)
    assert world.states()[2] is ServableState.AVAILABLE


def test_when_the_fallback_vanishes_the_version_before_it_is_tried_again() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    world.ready(1)
    world.ack()
    world.manager.aspire("m", {2: "/models/m/2"}, {2: "/models/m/2"})
    world.advance()
    world.sleep(60.0)
    world.ready(2)
    assert world.states()[2] is ServableState.AVAILABLE


def test_a_version_that_is_skipped_stands_in_nobodys_way() -> None:
    world = World(transition=TransitionPolicy.RESOURCE_PRESERVING)
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.aspire(2)
    world.aspire(3)
    world.ack()
    world.bury()
    world.ready(3)
    assert world.states() == {1: ServableState.END, 3: ServableState.AVAILABLE}


def test_there_is_no_rollback_to_what_is_not_on_disk_any_more() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    world.manager.aspire("m", {2: "/models/m/2"}, {2: "/models/m/2"})
    crash_loop(world, 2)
    assert 1 not in {spawn.slot.servable.version for spawn in world.alive.values()}
    assert world.slot(2).retry_at_s is not None


def test_rollback_can_be_turned_off() -> None:
    world = World()
    world.manager.configure({"m": ModelSettings(rollback=False)})
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    assert not world.alive
    assert world.slot(2).retry_at_s is not None


@pytest.mark.parametrize("come_to_its_end", [die_for_good, die_while_it_loads, use_up_the_load_retries])
def test_a_version_that_served_and_cannot_be_brought_back_is_rolled_back(
    come_to_its_end: Callable[[World], None],
) -> None:
    world = World(restart=RestartPolicy(max_load_retries=2, load_retry_interval_s=10.0))
    promote(world, 1)
    promote(world, 2)
    world.die(world.incarnation(2), KILLED)
    come_to_its_end(world)
    assert world.servable(2).error.message.endswith("Rolled back to version 1")
    world.ready(1)
    world.sleep(1e5)
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}


@pytest.mark.parametrize("transition", TransitionPolicy)
def test_a_predecessor_that_was_coming_back_when_it_was_replaced_is_good_too(transition: TransitionPolicy) -> None:
    world = World(transition)
    promote(world, 1)
    world.die(world.incarnation(1), KILLED)
    take_over_unready(world, 1, 2)
    crash_loop(world, 2)
    assert "Rolled back to version 1" in world.servable(2).error.message
    world.ready(1)
    assert world.states()[1] is ServableState.AVAILABLE


def test_a_predecessor_that_crash_looped_is_not_taken_for_good() -> None:
    world = World()
    promote(world, 1)
    world.die(world.incarnation(1), KILLED)
    world.ready(1)
    world.die(world.incarnation(1), KILLED)
    take_over_unready(world, 1, 2)
    crash_loop(world, 2)
    assert not world.alive


def test_a_version_that_cannot_be_loaded_after_its_predecessor_went_is_rolled_back() -> None:
    world = World(TransitionPolicy.RESOURCE_PRESERVING)
    promote(world, 1)
    make_room(world)
    world.fail_load(2, permanent=True, code=Code.FAILED_PRECONDITION)
    assert world.servable(2).error.message == "no good. Rolled back to version 1"
    assert {spawn.slot.servable.version for spawn in world.alive.values()} == {1}
    world.ready(1)
    world.ack()
    world.sleep(1e5)
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}
    promote_after(world, 3)
    assert world.states()[3] is ServableState.AVAILABLE


def test_a_fallback_that_fails_is_tried_again_where_what_it_stands_in_for_failed_for_good() -> None:
    world = World(TransitionPolicy.RESOURCE_PRESERVING)
    promote(world, 1)
    make_room(world)
    world.fail_load(2, permanent=True)
    while world.slot(1).state is not SlotState.FAILED:
        world.sleep(10.0)
        world.fail_load(1, permanent=False, code=Code.UNAVAILABLE)
    world.sleep(60.0)
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}


def test_a_version_that_cannot_be_loaded_beside_its_predecessor_changes_nothing() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    world.manager.aspire("m", {3: "/models/m/3"}, {v: f"/models/m/{v}" for v in (1, 2, 3)})
    world.advance()
    world.fail_load(3, permanent=True)
    world.ack()
    assert world.states() == {1: ServableState.END, 2: ServableState.AVAILABLE, 3: ServableState.END}
    assert world.servable(3).error.message == "no good"


@pytest.mark.parametrize("life_s", [3.2, 30.0, 59.0])
def test_a_slow_crash_loop_is_rolled_back(life_s: float) -> None:
    world = World(restart=RestartPolicy())
    promote(world, 1)
    promote(world, 2)
    assert crash_slowly(world, 2, life_s, 100) == 10
    assert "Rolled back to version 1" in world.servable(2).error.message
    world.ready(1)
    world.ack()
    assert crash_slowly(world, 1, life_s, 100) == 100, "there is nothing to fall back to from the fallback"


def test_deaths_now_and_then_are_no_crash_loop() -> None:
    world = World(restart=RestartPolicy())
    promote(world, 1)
    promote(world, 2)
    for _ in range(5):
        assert crash_slowly(world, 2, 3.2, 9) == 9
        assert crash_slowly(world, 2, 61.0, 1) == 1
    assert world.states()[2] is ServableState.AVAILABLE


def test_a_slow_crash_loop_is_endured_where_there_is_nothing_else() -> None:
    world = World(restart=RestartPolicy())
    promote(world, 2)
    assert crash_slowly(world, 2, 3.2, 100) == 100
    assert world.states()[2] is ServableState.AVAILABLE


def test_a_version_is_rolled_back_when_the_last_of_its_workers_is_given_up() -> None:
    world = World()
    world.manager.configure({"m": ModelSettings(devices=DevicePolicy(replicas=2))})
    for version in (1, 2):
        world.manager.aspire("m", {version: f"/models/m/{version}"}, {v: f"/models/m/{v}" for v in (1, 2)})
        world.advance()
        for incarnation in sorted(set(world.alive) - (world.routed() if world.tables else set())):
            world.speak(incarnation)
        world.ack()
        world.ack()
        world.bury()
    for replica, rolled_back in ((0, False), (1, True)):
        slot = world.servable(2).slots[replica]
        while slot.state is not SlotState.FAILED:
            assert slot.incarnation is not None
            world.die(slot.incarnation, KILLED)
            if slot.incarnation is not None:
                world.speak(slot.incarnation)
        assert world.servable(2).rolled_back is rolled_back
    assert all(slot.retry_at_s is None for slot in world.servable(2).slots)
