"""Which worker a request goes to, and what is answered when there is none."""

from typing import Any

import pytest

from modelpool.frontend.model_spec import ModelSpec
from modelpool.frontend.routes import Routes, Target, without_worker, workers_of
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, InvalidArgument, NotFound, PoolError, Unavailable

LOST = {"state": ServableState.LOADING, "code": Code.UNAVAILABLE, "message": "killed by signal 9"}


def version(number: int, *workers: int, **changes: Any) -> VersionRoute:
    routes = tuple(WorkerRoute(Incarnation(worker), f"ipc://w{worker}") for worker in workers)
    values: dict[str, Any] = {
        "state": ServableState.AVAILABLE,
        "code": Code.OK,
        "message": "",
        "workers": routes,
    } | changes
    return VersionRoute(number, **values)


def routes(*versions: VersionRoute, labels: dict[str, int] | None = None) -> Routes:
    return Routes(RouteTable(1, (ModelRoute("m", versions, labels or {}),)))


def target(number: int, *workers: int) -> Target:
    return Target(ServableId("m", number), tuple(map(Incarnation, workers)))


def test_no_version_is_the_highest_available() -> None:
    table = routes(version(2, 12), version(10, 110), version(11, state=ServableState.LOADING), version(1, 11))
    assert table.find(ModelSpec("m")) == target(10, 110)


def test_version_and_label() -> None:
    table = routes(version(1, 11), version(2, 12, 13), labels={"stable": 1, "": 2})
    assert table.find(ModelSpec("m", 2)) == target(2, 12, 13)
    assert table.find(ModelSpec("m", None, "stable")) == target(1, 11)
    assert table.find(ModelSpec("m", None, "")) == target(2, 12, 13)


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        (None, InvalidArgument, "Missing ModelSpec"),
        (ModelSpec(), InvalidArgument, "ModelSpec has no name specified."),
        (ModelSpec("", 1), InvalidArgument, "ModelSpec has no name specified."),
        (ModelSpec("x"), NotFound, "Servable not found for request: Latest(x)"),
        (ModelSpec("x", 1), NotFound, "Servable not found for request: Specific(x, 1)"),
        (ModelSpec("x", None, "l"), InvalidArgument, "Unrecognized servable version label: l"),
        (ModelSpec("m", None, "l"), InvalidArgument, "Unrecognized servable version label: l"),
        (ModelSpec("m", None, ""), InvalidArgument, "Unrecognized servable version label: "),
        (ModelSpec("m", 2), NotFound, "Servable not found for request: Specific(m, 2)"),
        (ModelSpec("m", -2), NotFound, "Servable not found for request: Specific(m, -2)"),
        (ModelSpec("m", 3), NotFound, "Servable not found for request: Specific(m, 3)"),
        (ModelSpec("m", 4), Unavailable, "killed by signal 9"),
        (ModelSpec("m", None, "lost"), Unavailable, "killed by signal 9"),
        (ModelSpec("m", None, "loading"), NotFound, "Servable not found for request: Specific(m, 3)"),
    ],
)
def test_no_route(spec: ModelSpec | None, kind: type[PoolError], text: str) -> None:
    table = routes(
        version(1, 11),
        version(3, state=ServableState.LOADING),
        version(4, **LOST),
        labels={"lost": 4, "loading": 3},
    )
    with pytest.raises(kind) as caught:
        table.find(spec)
    assert caught.value.message == text


def test_latest_passes_over_a_lost_version() -> None:
    assert routes(version(1, 11), version(2, **LOST)).find(ModelSpec("m")) == target(1, 11)


def test_latest_of_nothing_but_lost_versions_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="killed by signal 9"):
        routes(version(1, state=ServableState.END), version(2, **LOST)).find(ModelSpec("m"))


def test_a_version_that_returns_is_a_target_without_workers() -> None:
    table = routes(version(1, **LOST), version(2, **LOST, returning=True), version(3, state=ServableState.END))
    back = Target(ServableId("m", 2), (), "killed by signal 9")
    assert table.find(ModelSpec("m")) == table.find(ModelSpec("m", 2)) == back
    with pytest.raises(Unavailable):
        table.find(ModelSpec("m", 1))


def test_what_the_table_says_of_a_version() -> None:
    table = routes(version(1, **LOST), version(2, state=ServableState.UNLOADING))
    said = [table.message(ServableId("m", number)) for number in (1, 2, 3)]
    assert said == ["killed by signal 9", "its state is UNLOADING", "it is not configured any more"]


@pytest.mark.parametrize("state", [ServableState.START, ServableState.UNLOADING, ServableState.END])
def test_latest_of_a_version_that_is_not_coming_back_is_not_found(state: ServableState) -> None:
    with pytest.raises(NotFound):
        routes(version(1, state=state, code=Code.INTERNAL, message="broken")).find(ModelSpec("m"))


def test_versions_newest_first() -> None:
    table = routes(version(2), version(10), version(1))
    assert [entry.version for entry in table.versions("m")] == [10, 2, 1]
    assert table.versions("x") == ()


def test_without_one_of_two_workers() -> None:
    table = without_worker(routes(version(1, 11, 12)).table, Incarnation(11), "died")
    assert Routes(table).find(ModelSpec("m")) == target(1, 12)


def test_without_the_last_worker() -> None:
    before = routes(version(1, 11), version(2, 12), labels={"l": 2}).table
    table = without_worker(before, Incarnation(12), "died")
    assert [worker.incarnation for _, worker in workers_of(table)] == [11]
    assert Routes(table).find(ModelSpec("m", None, "l")) == Target(ServableId("m", 2), (), "died")
    assert Routes(table).find(ModelSpec("m")) == target(1, 11)
    assert Routes(table).versions("m")[0].state is ServableState.LOADING


def test_without_an_unknown_worker() -> None:
    before = routes(version(1, 11)).table
    assert without_worker(before, Incarnation(99), "died") == before


FIRST_LOAD_FAILED = {"state": ServableState.LOADING, "code": Code.NOT_FOUND, "message": "no saved_model.pb"}


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.INTERNAL, Code.INVALID_ARGUMENT])
def test_a_version_whose_first_load_failed_is_not_found(code: Code) -> None:
    table = routes(version(3, **(FIRST_LOAD_FAILED | {"code": code})), labels={"canary": 3})
    for spec, asked in (
        (ModelSpec("m"), "Latest(m)"),
        (ModelSpec("m", 3), "Specific(m, 3)"),
        (ModelSpec("m", None, "canary"), "Specific(m, 3)"),
    ):
        with pytest.raises(NotFound) as caught:
            table.find(spec)
        assert caught.value.message == f"Servable not found for request: {asked}"


def test_latest_of_a_failed_load_and_a_lost_version_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="killed by signal 9"):
        routes(version(1, **LOST), version(2, **FIRST_LOAD_FAILED)).find(ModelSpec("m"))
