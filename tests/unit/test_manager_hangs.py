"""Hangs, and what an exit is taken for, told by the manager's fake world."""

import pytest

from modelpool.supervisor.commands import Kill
from modelpool.supervisor.exits import Exit, ExitKind
from modelpool.supervisor.lifecycle import SlotState
from modelpool.supervisor.memory_limit import Sample
from modelpool.supervisor.model import ModelSettings
from modelpool.supervisor.wire.flight_recorder import Flight, Recording
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.states import ServableState, WorkerPhase
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import (
    WorkerBroken,
    WorkerHeartbeat,
    WorkerLoadFailed,
    WorkerNotStarted,
    WorkerProgress,
)
from tests.unit.manager_world import KILLED, World

BEAT_S = 0.5


def serving(run_timeout_s: float) -> tuple[World, Incarnation]:
    world = World()
    world.manager.configure({"m": ModelSettings(run_timeout_s=run_timeout_s)})
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    return world, incarnation


def beat(world: World, incarnation: Incarnation, busy_s: float | None) -> None:
    message = WorkerHeartbeat(1, 0, 0.0) if busy_s is None else WorkerHeartbeat(1, 1, busy_s)
    world.manager.worker_message(incarnation, message, world.now_s)
    world.advance()


def beats_until_killed(world: World, incarnation: Incarnation, busy: bool, at_most_s: float) -> float:
    """Seconds until it was doomed, while it sends a heartbeat each half second."""
    started_s = world.now_s
    while world.now_s - started_s < at_most_s and not world.doomed:
        beat(world, incarnation, world.now_s - started_s if busy else None)
        world.sleep(BEAT_S)
    return world.now_s - started_s


def test_a_load_that_takes_for_ever_is_killed() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.incarnation(1)
    world.manager.worker_message(incarnation, WorkerProgress(WorkerPhase.LOADING), world.now_s)
    for _ in range(3600 // 20):
        world.manager.worker_message(incarnation, WorkerHeartbeat(0, 0, 0.0), world.now_s)
        world.sleep(20.0)
    assert world.doomed == {incarnation: KILLED}
    world.bury()
    assert world.slot(1).last_exit == Exit(
        None, 9, "killed by SIGKILL: it was loading for 3600 s", special=ExitKind.HANG
    )


def test_a_pause_of_the_supervisor_itself_kills_nobody() -> None:
    world = World()
    world.aspire(1)
    world.ready(1)
    world.sleep(300.0)
    assert not world.doomed, "what the workers said meanwhile is still unread"
    world.sleep(30.0)
    assert world.doomed


def test_silence_is_taken_for_a_hang() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.sleep(29.9)
    assert not world.doomed
    world.sleep(0.1)
    assert world.doomed == {incarnation: KILLED}
    assert world.states() == {1: ServableState.LOADING}
    world.bury()
    assert world.servable(1).error.message.endswith("killed by SIGKILL: no heartbeat for 30 s")


def test_a_worker_that_never_speaks_is_killed_and_tried_again() -> None:
    world = World()
    world.aspire(1)
    silent = world.incarnation(1)
    world.sleep(119.0)
    world.sleep(1.0)
    assert world.doomed == {silent: KILLED}
    world.bury()
    world.sleep(1.0)
    world.ready(1)


def test_a_worker_that_hangs_while_it_drains_is_killed() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.ready(1)
    world.ack()
    world.aspire()
    for _ in range(20):
        world.manager.worker_message(incarnation, WorkerHeartbeat(1, 1, 1.0), world.now_s)
        world.advance()
        world.sleep(25.0)
    assert not world.doomed, "it lives, and may take its time"
    world.sleep(5.0)
    assert world.doomed == {incarnation: KILLED}


def test_an_execution_that_takes_too_long_is_a_hang() -> None:
    world, incarnation = serving(run_timeout_s=5.0)
    assert 5.0 <= beats_until_killed(world, incarnation, True, 20.0) <= 6.0
    world.bury()
    exit_ = world.slot(1).last_exit
    assert exit_ is not None
    assert exit_.kind is ExitKind.HANG
    assert exit_.cause == "killed by SIGKILL: one execution took longer than run_timeout_s = 5 s"
    world.ready(1)


def test_one_whose_execution_is_past_half_of_its_time_is_pressed_until_it_is_done() -> None:
    world, incarnation = serving(run_timeout_s=5.0)
    workers, pid = world.manager.workers, world.slot(1).pid
    beat(world, incarnation, 2.0)
    assert workers.pressed(world.now_s) == set()
    assert workers.pressed(world.now_s + 0.6) == {pid}, "however long ago the last heartbeat was"
    world.sleep(BEAT_S)
    beat(world, incarnation, 2.6)
    assert workers.pressed(world.now_s) == {pid}
    beat(world, incarnation, 0.1)
    assert workers.pressed(world.now_s) == set()


def test_one_that_is_silent_for_half_of_what_it_may_is_pressed() -> None:
    world, incarnation = serving(run_timeout_s=0.5)
    beat(world, incarnation, None)
    assert world.manager.workers.pressed(world.now_s + 2 * BEAT_S) == set()
    assert world.manager.workers.pressed(world.now_s + 1.1) == {world.slot(1).pid}


def test_a_hung_worker_is_looked_at_before_it_is_killed_and_once_only() -> None:
    world, incarnation = serving(run_timeout_s=5.0)
    kills = []
    for _ in range(120):
        world.now_s += 0.2
        kills += [command for command in world.advance() if isinstance(command, Kill)]
    assert [(kill.incarnation, kill.hung) for kill in kills] == [(incarnation, True), (incarnation, False)]


@pytest.mark.parametrize("run_timeout_s", [0.0, 30.0])
def test_an_execution_may_take_its_time(run_timeout_s: float) -> None:
    world, incarnation = serving(run_timeout_s)
    assert beats_until_killed(world, incarnation, True, 20.0) >= 20.0


def test_an_execution_that_takes_too_long_is_a_hang_also_when_its_model_is_not_configured_any_more() -> None:
    world, incarnation = serving(run_timeout_s=5.0)
    beat(world, incarnation, 0.0)
    world.manager.configure({})
    world.advance()
    assert world.slot(1).state is SlotState.DRAINING
    assert 5.0 <= beats_until_killed(world, incarnation, True, 20.0) <= 6.0


def test_a_load_that_has_failed_and_goes_over_its_memory_limit_is_killed_at_once() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.incarnation(1)
    world.manager.worker_message(incarnation, WorkerProgress(WorkerPhase.LOADING), world.now_s)
    world.manager.worker_message(incarnation, WorkerLoadFailed(Code.INTERNAL, "no good", False), world.now_s)
    assert world.manager.memory_used(incarnation, Sample(101 << 20, 100 << 20, 1 << 40, "watch"), world.now_s)
    world.advance()
    world.bury()
    exit_ = world.slot(1).last_exit
    assert exit_ is not None
    assert exit_.kind is ExitKind.LOAD_FAILED
    assert exit_.cause == "killed by SIGKILL: over its memory limit of 100 MiB"


def test_short_executions_one_after_the_other_are_no_hang() -> None:
    world, incarnation = serving(run_timeout_s=1.0)
    for _ in range(100):
        beat(world, incarnation, 0.9)
        world.sleep(BEAT_S)
        beat(world, incarnation, None)
    assert not world.doomed


@pytest.mark.parametrize("run_timeout_s", [2.0, 5.0, 20.0])
def test_one_that_stands_still_is_found_within_the_run_timeout_and_a_second(run_timeout_s: float) -> None:
    world, incarnation = serving(run_timeout_s)
    beat(world, incarnation, None)
    stopped_s = world.now_s
    while not world.doomed:
        world.sleep(0.1)
    assert run_timeout_s <= world.now_s - stopped_s <= run_timeout_s + 1.0


def test_a_late_heartbeat_is_no_hang_however_short_the_run_timeout() -> None:
    world, incarnation = serving(run_timeout_s=0.01)
    for _ in range(20):
        beat(world, incarnation, None)
        world.sleep(1.9)
    assert not world.doomed


def test_a_loading_worker_may_be_silent_for_longer() -> None:
    world = World()
    world.manager.configure({"m": ModelSettings(run_timeout_s=1.0)})
    world.aspire(1)
    world.manager.worker_message(world.incarnation(1), WorkerProgress(WorkerPhase.LOADING), world.now_s)
    for _ in range(29):
        world.sleep(1.0)
    assert not world.doomed


@pytest.mark.parametrize("pause_s", [0.5, 1.9, 3.0, 60.0])
def test_a_supervisor_that_stood_still_itself_reads_before_it_kills(pause_s: float) -> None:
    world, incarnation = serving(run_timeout_s=2.0)
    for _ in range(20):
        world.now_s += pause_s
        world.advance()  # the timer comes before what is to be read
        world.now_s += 0.2
        beat(world, incarnation, None)
    assert not world.doomed


def test_a_hang_is_found_though_this_process_is_always_late() -> None:
    world, incarnation = serving(run_timeout_s=2.0)
    beat(world, incarnation, None)
    for _ in range(30):
        due_s = world.manager.next_deadline_s()
        assert due_s is not None
        world.now_s = due_s + 0.5
        world.advance()
    assert incarnation in world.doomed


def test_a_draining_worker_that_hangs_is_killed() -> None:
    world, incarnation = serving(run_timeout_s=5.0)
    world.aspire()
    world.manager.board.ack(Incarnation(1), world.manager.board.table.epoch)
    assert beats_until_killed(world, incarnation, True, 20.0) <= 6.0


def exit_of(world: World) -> Exit:
    exit_ = world.slot(1).last_exit
    assert exit_ is not None
    return exit_


@pytest.mark.parametrize(
    ("phase", "kind"), [(WorkerPhase.LOADING, ExitKind.LOAD_FAILED), (WorkerPhase.WARMING, ExitKind.WARMUP_FAILED)]
)
def test_a_failed_load_and_a_failed_warmup_are_told_apart(phase: WorkerPhase, kind: ExitKind) -> None:
    world = World()
    world.aspire(1)
    incarnation = world.incarnation(1)
    world.manager.worker_message(incarnation, WorkerProgress(WorkerPhase.LOADING), world.now_s)
    words = WorkerLoadFailed(Code.INTERNAL, "no good", False, phase)
    world.manager.worker_message(incarnation, words, world.now_s)
    world.die(incarnation, Exit(3, None, "exited with code 3"))
    assert exit_of(world).kind is kind


def test_a_worker_that_could_not_start_is_no_fault_of_its_model_and_the_next_comes_at_once() -> None:
    world = World()
    world.aspire(1)
    incarnation = world.incarnation(1)
    why = "The worker's socket /run/w2 cannot be made: No space left on device"
    world.manager.worker_message(incarnation, WorkerNotStarted(why), world.now_s)
    world.die(incarnation, Exit(5, None, "exited with code 5"))
    assert exit_of(world).kind is ExitKind.NOT_STARTED
    assert exit_of(world).cause == f"exited with code 5: {why}"
    error = world.slot(1).error
    assert error.code is Code.UNAVAILABLE
    assert why in error.message
    world.ready(1)


def test_a_start_that_may_fail_does_so_when_no_worker_can_be_started_and_another_serves_later() -> None:
    world = World()
    world.aspire(1)
    began_s = world.now_s
    while world.manager.startup_failure() is None:
        assert world.now_s - began_s < 200.0
        due_s = world.manager.next_deadline_s()
        world.sleep(0.0 if due_s is None or world.alive else due_s - world.now_s)
        incarnation = world.incarnation(1)
        world.manager.worker_message(incarnation, WorkerNotStarted("no socket"), world.now_s)
        world.die(incarnation, Exit(5, None, "exited with code 5"))
    assert world.now_s - began_s == 127.0
    assert "{name: m version: 1} due to error: UNAVAILABLE: " in str(world.manager.startup_failure())
    assert "no socket" in str(world.manager.startup_failure())
    world.sleep(64.0)
    assert world.manager.startup_failure() is not None, "while the next try goes on"
    world.ready(1)
    world.ack()
    assert world.manager.startup_failure() is None
    assert world.manager.answering


def test_a_lost_cuda_context_is_its_own_cause_and_the_worker_is_replaced_at_once() -> None:
    world, incarnation = serving(run_timeout_s=0.0)
    world.manager.worker_message(incarnation, WorkerBroken("CUDA_ERROR_ILLEGAL_ADDRESS: ..."), world.now_s)
    world.die(incarnation, Exit(4, None, "exited with code 4"))
    assert exit_of(world).kind is ExitKind.CUDA_ERROR
    assert exit_of(world).cause == "exited with code 4: CUDA_ERROR_ILLEGAL_ADDRESS: ..."
    world.ready(1)


@pytest.mark.parametrize(
    ("exit_", "kind"),
    [
        (KILLED, ExitKind.SIGNAL),
        (Exit(1, None, "exited with code 1"), ExitKind.EXIT),
        (Exit(0, None, "exited with code 0"), ExitKind.EXIT),
        (Exit(None, None, "could not be started"), ExitKind.NOT_STARTED),
        (Exit(None, 9, "killed by SIGKILL: no memory", special=ExitKind.OOM_KILLED), ExitKind.OOM_KILLED),
    ],
)
def test_other_ends_are_what_they_look_like(exit_: Exit, kind: ExitKind) -> None:
    world, incarnation = serving(run_timeout_s=0.0)
    world.die(incarnation, exit_)
    assert exit_of(world).kind is kind


def test_an_unload_is_no_death() -> None:
    world, incarnation = serving(run_timeout_s=0.0)
    world.aspire()
    world.ack()
    assert incarnation in world.doomed
    world.bury()
    assert exit_of(world).kind is ExitKind.STOPPED


FINISHED = Recording(finished=(Flight(1, 1, 0, 1, 3, 1, 0),))


@pytest.mark.parametrize(
    ("lived_s", "recording", "wait_s"), [(0.0, Recording(), 1.0), (0.0, FINISHED, 0.0), (1.0, Recording(), 0.0)]
)
def test_one_that_dies_as_soon_as_it_is_ready_is_not_replaced_at_once(
    lived_s: float, recording: Recording, wait_s: float
) -> None:
    world, incarnation = serving(run_timeout_s=0.0)
    world.manager.worker_message(incarnation, WorkerHeartbeat(0, 0, 0.0), world.now_s)
    world.sleep(lived_s)
    world.die(incarnation, Exit(None, 6, "killed by SIGABRT", recording))
    assert bool(world.alive) is not bool(wait_s)
    world.sleep(wait_s)
    world.ready(1)
