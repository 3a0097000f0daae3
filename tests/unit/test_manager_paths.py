"""A version whose base path has changed: the same by name and number, as in TF Serving, so it stays what it is."""

from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.placement import DevicePolicy
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.wire.states import ServableState
from tests.unit.manager_world import KILLED, World, promote


def test_what_is_loaded_comes_back_from_the_folder_that_it_was_loaded_from() -> None:
    world = World()
    promote(world, 1)
    world.aspire_in("/moved", 1)
    assert world.servable(1).path == "/models/m/1"
    world.die(world.incarnation(1), KILLED)
    assert world.loads_from(1) == "/models/m/1"
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_a_folder_from_which_nothing_can_be_loaded_any_more_is_left_for_the_new_one() -> None:
    world = World(restart=RestartPolicy(max_load_retries=1, load_retry_interval_s=10.0))
    promote(world, 1)
    world.aspire_in("/moved", 1)
    world.die(world.incarnation(1), KILLED)
    world.fail_load(1, permanent=False)
    world.sleep(10.0)
    assert world.loads_from(1) == "/moved/1"
    world.ready(1)
    world.die(world.incarnation(1), KILLED)
    assert world.loads_from(1) == "/moved/1"


def test_a_load_that_fails_for_good_is_tried_in_the_new_folder() -> None:
    world = World()
    promote(world, 1)
    world.aspire_in("/moved", 1)
    world.die(world.incarnation(1), KILLED)
    world.fail_load(1, permanent=True)
    assert world.loads_from(1) == "/moved/1"
    world.fail_load(1, permanent=True)
    assert not world.alive, "once"


def test_a_load_that_is_under_way_ends_where_it_began() -> None:
    world = World()
    world.aspire(1)
    world.aspire_in("/moved", 1)
    assert world.servable(1).path == world.loads_from(1) == "/models/m/1"


def test_all_workers_of_a_version_are_loaded_from_one_folder() -> None:
    world = World()
    promote(world, 1)
    world.manager.configure({"m": ModelSettings(devices=DevicePolicy(replicas=2))})
    world.aspire_in("/moved", 1)
    (second,) = set(world.alive) - world.routed()
    world.fail(second, permanent=False)
    world.sleep(10.0)
    assert {spawn.path for spawn in world.alive.values()} == {"/models/m/1"}


def test_what_waits_for_its_turn_is_loaded_from_the_new_folder() -> None:
    world = World(max_loading=1)
    world.aspire(1, 2)
    world.aspire_in("/moved", 1, 2)
    world.ready(2)
    assert world.loads_from(1) == "/moved/1"


def test_a_version_that_was_rolled_back_is_tried_in_the_new_folder() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    world.die(world.incarnation(2), KILLED)
    world.fail_load(2, permanent=True)
    assert world.servable(2).rolled_back
    world.ready(1)
    world.aspire_in("/moved", 2)
    assert world.loads_from(2) == "/moved/2"
    world.ready(2)
    world.ack()
    world.ack()
    world.bury()
    assert world.states() == {1: ServableState.END, 2: ServableState.AVAILABLE}
