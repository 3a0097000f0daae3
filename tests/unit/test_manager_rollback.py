"""A version that crash-loops is left for the last good one, against a world of fake processes."""

from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.states import ServableState
from tests.unit.manager_world import World, crash_loop, promote


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
