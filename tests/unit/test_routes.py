"""Which frontend may still have a request on which worker."""

from modelpool.supervisor.routes import RouteBoard
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

ONE, TWO, WORKER = Incarnation(1), Incarnation(2), Incarnation(9)


def table(*workers: Incarnation) -> tuple[ModelRoute, ...]:
    routes = tuple(WorkerRoute(worker, f"ipc:///w{worker}") for worker in workers)
    return (ModelRoute("m", (VersionRoute(1, ServableState.AVAILABLE, Code.OK, "", routes),), {}),)


def test_epochs_grow_only_with_changes() -> None:
    board = RouteBoard()
    first = board.publish(table(WORKER))
    assert first is not None
    assert first.epoch == 1
    assert board.publish(table(WORKER)) is None
    second = board.publish(table())
    assert second is not None
    assert second.epoch == 2


def test_the_slowest_frontend_decides_what_is_acknowledged() -> None:
    board = RouteBoard()
    board.join(ONE)
    board.join(TWO)
    board.publish(table(WORKER))
    board.ack(ONE, 1)
    assert board.acked_epoch == 0
    board.ack(TWO, 1)
    assert board.acked_epoch == 1
    board.leave(TWO)
    assert board.acked_epoch == 1


def test_without_frontends_nothing_is_acknowledged_and_everything_is_released() -> None:
    board = RouteBoard()
    board.publish(table(WORKER))
    assert board.acked_epoch == 0
    assert board.is_released(WORKER)


def test_a_worker_is_released_when_every_frontend_that_knew_it_says_so_or_is_gone() -> None:
    board = RouteBoard()
    board.join(ONE)
    board.join(TWO)
    board.publish(table(WORKER))
    board.publish(table())
    assert not board.is_released(WORKER)
    board.released(ONE, WORKER)
    assert not board.is_released(WORKER)
    board.leave(TWO)
    assert board.is_released(WORKER)


def test_a_frontend_that_never_knew_the_worker_need_not_release_it() -> None:
    board = RouteBoard()
    board.publish(table(WORKER))
    board.publish(table())
    board.join(ONE)
    assert board.is_released(WORKER)


def test_a_release_of_a_worker_that_is_named_again_does_not_count() -> None:
    board = RouteBoard()
    board.join(ONE)
    board.publish(table(WORKER))
    board.released(ONE, WORKER)
    assert not board.is_released(WORKER)


def test_the_dead_need_no_release() -> None:
    board = RouteBoard()
    board.join(ONE)
    board.publish(table(WORKER))
    board.publish(table())
    board.died(WORKER)
    assert board.is_released(WORKER)


def test_strangers_are_ignored() -> None:
    board = RouteBoard()
    board.ack(ONE, 5)
    board.released(ONE, WORKER)
    board.leave(ONE)
    assert board.frontends == {}
