"""Restarts by hand and before a death, told by the manager's fake world: no gap, and never two for one place."""

import pytest

from modelpool.supervisor.exits import Exit
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import OK, Code, NotFound
from tests.unit.manager_world import KILLED, World, crash_loop, promote


def serving() -> tuple[World, Incarnation]:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    return world, incarnation


def loading(world: World, besides: Incarnation) -> Incarnation:
    """The one worker that is not `besides`."""
    (incarnation,) = set(world.alive) - {besides}
    return incarnation


def test_a_restart_by_hand_loads_the_new_worker_before_the_old_one_goes() -> None:
    world, old = serving()
    (restart,) = world.manager.restart("m", None, world.now_s)
    world.advance()
    new = loading(world, old)
    assert world.alive[new].renewal
    assert world.routed() == {old}
    assert restart.outcome(world.manager.board.acked_epoch) is None
    world.speak(new)
    assert world.routed() == {old, new}, "every frontend must know the new one first"
    assert not world.doomed
    world.ack()
    assert world.routed() == {new}
    assert restart.outcome(world.manager.board.acked_epoch) == OK
    world.ack()
    world.bury()
    assert set(world.alive) == {new}
    (slot,) = world.servable(1).slots
    assert (slot.incarnation, slot.restarts, slot.served_before) == (new, 1, 1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_two_restarts_by_hand_start_one_replacement() -> None:
    world, old = serving()
    first, second = (world.manager.restart("m", 1, world.now_s)[0] for _ in range(2))
    world.advance()
    world.speak(loading(world, old))
    world.ack()
    assert first.slot is second.slot
    assert second.outcome(world.manager.board.acked_epoch) == OK


def test_a_restart_by_hand_ends_with_the_replacement_that_is_on_its_way() -> None:
    world, old = serving()
    (first,) = world.manager.restart("m", 1, world.now_s)
    world.advance()
    new = loading(world, old)
    (second,) = world.manager.restart("m", 1, world.now_s)
    world.advance()
    assert set(world.alive) == {old, new}
    assert second.outcome(world.manager.board.acked_epoch) is None
    world.speak(new)
    world.ack()
    assert [each.outcome(world.manager.board.acked_epoch) for each in (first, second)] == [OK, OK]


def test_a_restart_by_hand_fails_with_the_replacement_that_was_on_its_way() -> None:
    world, old = serving()
    world.manager.restart("m", 1, world.now_s)
    world.advance()
    (restart,) = world.manager.restart("m", 1, world.now_s)
    world.fail(loading(world, old), permanent=True)
    status = restart.outcome(world.manager.board.acked_epoch)
    assert status is not None
    assert status.code is Code.DATA_LOSS


def test_a_replacement_that_cannot_load_leaves_the_old_one_serving() -> None:
    world, old = serving()
    (restart,) = world.manager.restart("m", None, world.now_s)
    world.advance()
    world.fail(loading(world, old), permanent=True)
    status = restart.outcome(world.manager.board.acked_epoch)
    assert status is not None
    assert (status.code, status.message) == (Code.DATA_LOSS, "no good")
    assert world.routed() == {old}
    world.sleep(1000)
    assert set(world.alive) == {old}
    assert world.servable(1).error == OK


def test_a_replacement_takes_over_at_once_when_the_old_one_dies() -> None:
    world, old = serving()
    world.manager.restart("m", None, world.now_s)
    world.advance()
    new = loading(world, old)
    world.die(old, KILLED)
    assert set(world.alive) == {new}, "there is one on its way already"
    assert world.servable(1).error.code is Code.UNAVAILABLE
    world.speak(new)
    assert world.routed() == {new}
    (slot,) = world.servable(1).slots
    assert (slot.restarts, slot.last_exit, slot.replaces) == (1, KILLED, None)
    world.die(new, KILLED)
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_too_many_deaths_end_the_replacement_too() -> None:
    world = World(restart=RestartPolicy(max_restarts=0))
    world.aspire(1)
    old = world.ready(1)
    (restart,) = world.manager.restart("m", None, world.now_s)
    world.advance()
    world.die(old, KILLED)
    world.bury()
    assert world.slot(1).state is SlotState.FAILED
    assert not world.alive
    status = restart.outcome(world.manager.board.acked_epoch)
    assert status is not None
    assert status != OK


def test_an_unload_amid_a_restart_ends_both() -> None:
    world, _ = serving()
    (restart,) = world.manager.restart("m", None, world.now_s)
    world.advance()
    world.aspire()
    world.ack()
    world.bury()
    assert not world.alive
    assert world.states() == {1: ServableState.END}
    status = restart.outcome(world.manager.board.acked_epoch)
    assert status is not None
    assert status.code is Code.ABORTED


@pytest.mark.parametrize("permanent", [False, True])
def test_a_slot_that_was_given_up_is_tried_now(permanent: bool) -> None:
    world = World()
    world.aspire(1)
    for _ in range(1 if permanent else 3):
        world.fail_load(1, permanent=permanent)
        world.sleep(10.0)
    assert world.slot(1).state is SlotState.FAILED
    (restart,) = world.manager.restart("m", 1, world.now_s)
    world.advance()
    assert restart.outcome(world.manager.board.acked_epoch) is None
    world.ready(1)
    world.ack()
    assert restart.outcome(world.manager.board.acked_epoch) == OK


def test_a_restart_that_fails_again_says_so() -> None:
    world = World()
    world.aspire(1)
    world.fail_load(1, permanent=True)
    (restart,) = world.manager.restart("m", 1, world.now_s)
    world.advance()
    world.fail_load(1, permanent=True)
    status = restart.outcome(world.manager.board.acked_epoch)
    assert status is not None
    assert status.code is Code.DATA_LOSS


def test_one_that_loads_is_started_afresh() -> None:
    world = World()
    world.aspire(1)
    (restart,) = world.manager.restart("m", 1, world.now_s)
    world.advance()
    world.bury()
    assert world.slot(1).last_exit is not None
    assert world.slot(1).last_exit.kind == "killed"
    world.sleep(1.0)
    world.ready(1)
    world.ack()
    assert restart.outcome(world.manager.board.acked_epoch) in {None, OK}


def test_a_version_that_was_rolled_back_is_tried_again_by_hand() -> None:
    world = World()
    promote(world, 1)
    promote(world, 2)
    crash_loop(world, 2)
    world.ready(1)
    world.ack()
    world.manager.restart("m", 2, world.now_s)
    world.advance()
    world.ready(2)
    world.ack()
    world.ack()
    world.bury()
    assert world.states() == {1: ServableState.END, 2: ServableState.AVAILABLE}


@pytest.mark.parametrize(("name", "version"), [("other", None), ("m", 7)])
def test_there_must_be_something_to_restart(name: str, version: int | None) -> None:
    world, _ = serving()
    with pytest.raises(NotFound):
        world.manager.restart(name, version, world.now_s)


def test_what_never_ran_is_no_fault_of_the_model() -> None:
    world, old = serving()
    not_started = Exit(None, None, "could not be started: the fork server was killed by SIGKILL")
    world.die(old, KILLED)
    for wait_s in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0):
        world.die(world.incarnation(1), not_started)
        world.sleep(wait_s)
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_a_replacement_that_was_let_go_of_and_does_not_go_is_no_replacement_any_more() -> None:
    world = World(restart=RestartPolicy(max_restarts=0))
    world.aspire(1)
    old = world.ready(1)
    world.manager.restart("m", None, world.now_s)
    world.advance()
    stuck = loading(world, old)
    world.die(old, KILLED)
    assert set(world.doomed) == {stuck}
    world.manager.restart("m", None, world.now_s)
    world.advance()
    new = loading(world, stuck)
    world.speak(new)
    world.die(new, KILLED)
    assert world.slot(1).state is SlotState.FAILED
    world.bury()
    assert [slot.state for slot in world.servable(1).slots] == [SlotState.FAILED]
