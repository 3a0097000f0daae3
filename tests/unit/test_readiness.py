"""When a server is ready, and what it says is missing."""

from dataclasses import replace

from modelpool.frontend import readiness
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

UP = VersionRoute(1, ServableState.AVAILABLE, Code.OK, "", ())
LOADING = VersionRoute(2, ServableState.LOADING, Code.OK, "", ())
LOST = VersionRoute(1, ServableState.LOADING, Code.UNAVAILABLE, "killed by SIGKILL", ())


def table(*models: ModelRoute, epoch: int = 1) -> RouteTable:
    return RouteTable(epoch, models)


def test_ready_with_every_required_model() -> None:
    good = ModelRoute("good", (UP, LOADING), {})
    optional = ModelRoute("optional", (LOADING,), {}, required=False)
    assert readiness.missing(table(good, optional)) == {}
    assert readiness.is_ready(table(good, optional))
    assert not readiness.is_ready(table(good, replace(optional, required=True)))
    assert readiness.is_ready(table())


def test_not_ready_before_the_first_routes() -> None:
    assert not readiness.is_ready(table(epoch=-1))
    assert not readiness.is_ready(table(epoch=0))


def test_what_is_missing_is_told_newest_version_first() -> None:
    assert readiness.missing(table(ModelRoute("m", (LOST, LOADING), {}), ModelRoute("none", (), {}))) == {
        "m": "version 2 is LOADING; version 1 is LOADING: UNAVAILABLE: killed by SIGKILL",
        "none": "no version was found",
    }
