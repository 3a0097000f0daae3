"""The manager against a world of fake processes and frontends."""

import pytest

from modelpool.supervisor.commands import AnnounceDeath, Kill, Stop
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.restart import RestartPolicy
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.flight_recorder import Recording
from modelpool.supervisor.wire.states import ServableState, WorkerPhase
from modelpool.supervisor.wire.status import Code, Status
from modelpool.supervisor.wire.worker_messages import (
    WorkerHello,
    WorkerProgress,
    WorkerReady,
)
from tests.unit.manager_world import FRONTEND, GPUS, KILLED, STOPPED, World


def test_the_processes_that_serve_are_known_by_model() -> None:
    world = World()
    world.aspire(1)
    world.manager.worker_message(world.incarnation(1), WorkerHello(pid=100), world.now_s)
    assert world.manager.workers.serving_pids() == {}, "it loads, at a priority of its own"
    incarnation = world.ready(1)
    world.ack()
    assert world.manager.workers.serving_pids() == {100 + incarnation: "m"}


def test_a_version_is_loaded_published_and_available() -> None:
    world = World()
    world.aspire(1)
    assert world.states() == {1: ServableState.LOADING}
    assert not world.manager.settled
    incarnation = world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}
    assert world.routed() == {incarnation}
    assert not world.manager.settled, "no frontend routes to it yet"
    world.ack()
    assert world.manager.settled


@pytest.mark.parametrize("fails", [False, True])
def test_the_start_waits_for_the_versions_that_have_labels(fails: bool) -> None:
    world = World()
    world.manager.configure({"m": ModelSettings(labels={"stable": 1, "absent": 9})})
    world.aspire(1, 2, 3)
    world.ready(3)
    world.ack()
    assert not world.manager.settled, "a request by label would find nothing"
    assert not world.manager.answering
    if fails:
        world.fail_load(1, permanent=False)
    else:
        world.ready(1)
        world.ack()
    assert world.manager.settled, "nobody waits for version 2"
    assert world.manager.answering


def test_the_old_version_goes_only_when_every_frontend_routes_to_the_new_one() -> None:
    world = World()
    world.aspire(1)
    old = world.ready(1)
    world.ack()
    world.aspire(2)
    new = world.ready(2)
    assert world.routed() == {old, new}
    assert world.states()[1] is ServableState.AVAILABLE
    world.ack()
    assert world.routed() == {new}
    assert world.states() == {1: ServableState.UNLOADING, 2: ServableState.AVAILABLE}


def test_a_drained_worker_is_stopped_only_when_every_frontend_has_let_go_of_it() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    world.aspire()
    board = world.manager.board
    board.ack(FRONTEND, board.table.epoch)
    assert not any(isinstance(command, Stop) for command in world.advance())
    board.released(FRONTEND, incarnation)
    assert Stop(incarnation) in world.advance()
    world.bury()
    assert world.states() == {1: ServableState.END}
    assert world.servable(1).error.code is Code.OK


def test_a_worker_that_does_not_stop_with_nothing_in_flight_is_killed() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    world.aspire()
    world.ack()
    assert world.doomed.pop(incarnation) == STOPPED
    world.sleep(10.0)
    assert world.doomed == {incarnation: KILLED}


def test_a_kill_that_was_lost_is_repeated() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.sleep(30.0)
    assert world.doomed.pop(incarnation) == KILLED
    world.sleep(10.0)
    assert world.doomed == {incarnation: KILLED}


def test_one_that_served_before_does_not_queue_behind_slow_loads() -> None:
    world = World(max_loading=1)
    world.aspire(1)
    served = world.ready(1)
    world.aspire(1, 2)
    world.die(served, KILLED)
    assert sorted(spawn.slot.servable.version for spawn in world.alive.values()) == [1, 2]


def test_a_version_that_was_given_up_keeps_its_error_when_it_is_unloaded() -> None:
    world = World()
    world.aspire(1)
    world.fail_load(1, permanent=True)
    world.aspire()
    assert world.servable(1).state is ServableState.END
    assert world.servable(1).error == Status(Code.DATA_LOSS, "no good")


def test_a_killed_worker_is_replaced_at_once_and_the_state_says_so() -> None:
    world = World()
    world.aspire(1)
    first = world.ready(1)
    world.ack()
    world.die(first, KILLED)
    assert world.deaths == [AnnounceDeath(first, "killed by SIGKILL", Recording())]
    assert world.routed() == set()
    assert world.states() == {1: ServableState.LOADING}
    assert world.servable(1).error == Status(
        Code.UNAVAILABLE, "The worker of m/1 died while serving: killed by SIGKILL"
    )
    second = world.ready(1)
    assert second != first
    assert world.slot(1).restarts == 1
    assert world.slot(1).last_exit == KILLED
    assert world.servable(1).error.code is Code.OK


def test_two_workers_that_die_together_both_come_back() -> None:
    world = World()
    world.aspire(1, 2)
    dead = [world.ready(1), world.ready(2)]
    for incarnation in dead:
        del world.alive[incarnation]
        world.manager.exited(incarnation, KILLED, world.now_s)
    world.advance()
    assert world.ready(1) not in dead
    assert world.ready(2) not in dead


def test_a_permanent_load_error_ends_with_its_status_and_others_serve() -> None:
    world = World()
    world.aspire(1, 2)
    world.fail_load(2, permanent=True)
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE, 2: ServableState.END}
    assert world.servable(2).error == Status(Code.DATA_LOSS, "no good")
    world.sleep(1e6)
    assert [spawn.slot.servable.version for spawn in world.alive.values()] == [1]


def test_a_passing_load_error_is_tried_again_after_the_interval() -> None:
    world = World()
    world.aspire(1)
    world.fail_load(1, permanent=False, code=Code.NOT_FOUND)
    assert world.manager.settled, "its first attempt has failed: the others need not wait"
    assert world.states() == {1: ServableState.LOADING}
    assert world.servable(1).error == Status(Code.NOT_FOUND, "no good")
    assert world.manager.next_deadline_s() == world.now_s + 10.0
    world.sleep(9.9)
    assert not world.alive
    world.sleep(0.1)
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_load_retries_used_up_end_it_for_a_long_while() -> None:
    world = World()
    world.aspire(1)
    for _ in range(3):
        world.fail_load(1, permanent=False)
        world.sleep(10.0)
    assert world.states() == {1: ServableState.END}
    assert world.slot(1).retry_at_s is not None
    world.sleep(60.0)
    assert world.states() == {1: ServableState.LOADING}


def test_a_source_that_cannot_look_changes_nothing() -> None:
    world = World()
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.manager.source_failed("m", Status(Code.NOT_FOUND, "gone"))
    world.advance()
    assert world.states() == {1: ServableState.AVAILABLE}
    assert world.manager.models["m"].source_error.code is Code.NOT_FOUND
    world.aspire(1)
    assert world.manager.models["m"].source_error.code is Code.OK


def test_a_model_with_an_empty_or_missing_base_path_is_settled() -> None:
    world = World()
    assert not world.manager.settled
    world.aspire()
    assert world.manager.settled


def test_a_version_that_is_not_wanted_while_it_loads_is_killed_when_nothing_else_is_wanted() -> None:
    world = World()
    world.aspire(1)
    world.aspire()
    assert world.doomed == {world.incarnation(1): KILLED}
    world.bury()
    assert world.states() == {1: ServableState.END}


def test_a_version_that_comes_back_while_it_drains_is_loaded_anew() -> None:
    world = World()
    world.aspire(1)
    first = world.ready(1)
    world.ack()
    world.aspire()
    world.ack()
    world.aspire(1)
    world.bury()
    world.aspire(1)
    assert world.ready(1) != first
    assert world.states() == {1: ServableState.AVAILABLE}


def test_only_so_many_load_at_once() -> None:
    world = World(max_loading=2)
    world.aspire(1, 2, 3)
    assert sorted(spawn.slot.servable.version for spawn in world.alive.values()) == [2, 3]
    world.ready(3)
    assert sorted(spawn.slot.servable.version for spawn in world.alive.values()) == [1, 2, 3]


def test_slots_spread_over_the_gpus() -> None:
    world = World(devices=GPUS)
    world.aspire(1, 2)
    assert {spawn.device.cuda_visible_devices for spawn in world.alive.values()} == {"GPU-a", "GPU-b"}


def test_a_model_that_is_configured_away_is_unloaded() -> None:
    world = World()
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.manager.configure({})
    world.advance()
    world.ack()
    world.bury()
    assert world.states() == {1: ServableState.END}
    assert world.manager.settled


def test_ended_versions_do_not_pile_up() -> None:
    world = World()
    for version in range(1, 30):
        world.aspire(version)
        world.ready(version)
        world.ack()
        world.ack()
        world.bury()
    assert len(world.states()) < 12


def test_shutdown_stops_everybody_and_starts_nobody() -> None:
    world = World()
    world.aspire(1, 2)
    world.ready(1)
    world.manager.board.leave(FRONTEND)
    world.manager.shut_down(world.now_s)
    world.advance()
    world.bury()
    assert world.manager.workers.all_gone
    world.sleep(1000.0)
    assert not world.alive


def test_messages_of_the_dead_are_refused() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.die(incarnation, KILLED)
    assert not world.manager.worker_message(incarnation, WorkerReady(1.0, 1.0), world.now_s)


@pytest.mark.parametrize("policy", list(TransitionPolicy))
def test_resource_preserving_never_has_two_versions_in_memory(policy: TransitionPolicy) -> None:
    world = World(transition=policy)
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.aspire(2)
    together = {spawn.slot.servable.version for spawn in world.alive.values()}
    assert together == ({1} if policy is TransitionPolicy.RESOURCE_PRESERVING else {1, 2})


def test_a_version_that_comes_back_while_it_drains_needs_no_second_news() -> None:
    world = World()
    world.aspire(1)
    world.ready(1)
    world.ack()
    world.aspire()
    world.ack()
    world.aspire(1)
    world.bury()
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_a_failed_version_is_tried_again_when_its_files_change() -> None:
    world = World()
    world.manager.aspire("m", {1: "/models/m/1"}, None, {1: "a"})
    world.advance()
    world.fail_load(1, permanent=True)
    assert world.manager.models["m"].failed_versions() == (1,)
    for fingerprint, tried in (("a", False), ("a", False), ("b", True)):
        world.manager.aspire("m", {1: "/models/m/1"}, None, {1: fingerprint})
        world.advance()
        assert bool(world.alive) is tried


@pytest.mark.parametrize(
    "message", [WorkerProgress(WorkerPhase.LOADING), WorkerReady(1.0, 1.0), WorkerProgress(WorkerPhase.WARMING)]
)
def test_a_worker_that_speaks_out_of_turn_is_killed_and_harms_nobody(message: WorkerProgress | WorkerReady) -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.manager.worker_message(incarnation, message, world.now_s)
    assert [each for each in world.advance() if isinstance(each, Kill)] == [Kill(incarnation, "it spoke out of turn")]
    said = message.phase if isinstance(message, WorkerProgress) else "ready"
    assert str(world.slot(1).error) == f"INTERNAL: The worker of m/1 said {said} while ready"
    assert world.doomed == {incarnation: KILLED}
    assert world.routed() == set()
    world.bury()
    world.ready(1)
    assert world.states() == {1: ServableState.AVAILABLE}


def test_requests_may_wait_for_a_version_that_was_served_and_comes_back() -> None:
    world = World(restart=RestartPolicy(max_load_retries=5, max_restarts=3, backoff_base_s=1.0))

    def returning() -> bool:
        (version,) = world.tables[-1].models[0].versions
        return version.returning

    world.aspire(1)
    assert not returning()
    world.die(world.incarnation(1), KILLED)  # never served: nobody waits for it
    assert not returning()
    world.now_s += 1.0
    world.advance()
    world.ready(1)
    assert not returning()
    world.die(world.incarnation(1), KILLED)
    assert returning()
    world.die(world.incarnation(1), KILLED)  # while it loads: the next try is due after a wait
    assert returning()
    world.now_s += 1.0
    world.advance()
    world.ready(1)
    assert not returning()
    world.die(world.incarnation(1), KILLED)  # one death too many
    assert not returning()
    assert world.states() == {1: ServableState.END}
