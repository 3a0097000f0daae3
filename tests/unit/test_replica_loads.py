"""What frontends are told of the workers that they share."""

from modelpool.supervisor.replica_loads import ReplicaLoads
from modelpool.supervisor.wire.frontend_messages import FrontendStats, WorkerLoads
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code
from modelpool.supervisor.wire.worker_messages import WorkerHeartbeat


def table(*versions: tuple[int, ...]) -> RouteTable:
    routes = [
        VersionRoute(
            n, ServableState.AVAILABLE, Code.OK, "", tuple(WorkerRoute(Incarnation(i), "ipc://x") for i in workers)
        )
        for n, workers in enumerate(versions, 1)
    ]
    return RouteTable(1, (ModelRoute("m", tuple(routes), {}),))


def test_nobody_is_told_of_workers_without_siblings() -> None:
    assert ReplicaLoads().view(Incarnation(1), {}, table((4,), (5,))) is None


def test_each_is_told_what_the_others_have_in_flight() -> None:
    loads = ReplicaLoads()
    loads.heard(Incarnation(5), WorkerHeartbeat(10, 1, 2.5))
    loads.heard(Incarnation(6), WorkerHeartbeat(10, 0, 0.0))
    stats = {
        Incarnation(1): FrontendStats({4: 9, 5: 1}, 0),
        Incarnation(2): FrontendStats({5: 3}, 0),
        Incarnation(3): FrontendStats({5: 2, 6: 1}, 0),
        Incarnation(4): None,
    }
    told = loads.view(Incarnation(1), stats, table((4,), (5, 6)))
    assert told == WorkerLoads({5: 5, 6: 1}, {5: 2.5, 6: 0.0})
    loads.ended(Incarnation(5))
    told = loads.view(Incarnation(2), stats, table((4,), (5, 6)))
    assert told == WorkerLoads({5: 3, 6: 1}, {5: 0.0, 6: 0.0})
