"""Profiles: where they may be written, who is answered, what a worker does with an order, and which model is meant."""

import threading
from pathlib import Path

import pytest

from modelpool.frontend.profiler import chosen
from modelpool.supervisor.profilings import Asker, Profilings
from modelpool.supervisor.wire.client_messages import ProfileOf
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute
from modelpool.supervisor.wire.sockets import Peer
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, FailedPrecondition, InvalidArgument, PoolError
from modelpool.supervisor.wire.worker_messages import Profile, Profiled
from modelpool.worker.profiler import Profiler

WITHIN_S = 10.0


def wanted(
    root: str, *, duration_s: float = 1.0, session: str = "s", host: str = "h", version: int | None = None
) -> ProfileOf:
    return ProfileOf("a/b", version, Profile(5, duration_s, root, session, host))


def profilings(profiler_dir: str = "") -> Profilings:
    return Profilings(profiler_dir, "box", lambda: 1_700_000_000.0)


def refused(profiler_dir: Path | str, order: ProfileOf, peer: Peer = Peer.FRONTEND) -> tuple[Code, str]:
    with pytest.raises(PoolError) as caught:
        profilings(str(profiler_dir)).order(peer, order)
    return caught.value.status.code, caught.value.message


def test_the_command_line_may_write_anywhere() -> None:
    order = profilings().order(Peer.CLIENT, wanted("/any/where"))
    assert order == Profile(5, 1.0, "/any/where", "s", "h")


def test_names_that_are_not_given() -> None:
    order = profilings().order(Peer.CLIENT, wanted("/x", session="", host=""))
    assert order.host == "box.a%2Fb"
    assert len(order.session) == len("2023_11_14_22_13_20")
    assert profilings().order(Peer.CLIENT, wanted("/x", host="", version=3)).host == "box.a%2Fb.3"
    assert profilings().order(Peer.CLIENT, wanted("/x", host="box:8500")).host == "box_8500"


def test_over_grpc_only_in_and_below_one_folder(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "out").symlink_to(tmp_path)
    (tmp_path / "in").symlink_to(allowed)
    for root in (allowed, allowed / "x" / "y", tmp_path / "in" / "x", allowed / "x" / ".."):
        assert profilings(str(allowed)).order(Peer.FRONTEND, wanted(str(root))).root == str(root)
    for root in (tmp_path, allowed / "..", allowed / "out" / "x", tmp_path / "allowed2", Path("/")):
        assert refused(allowed, wanted(str(root)))[0] is Code.PERMISSION_DENIED, root
    assert refused("", wanted(str(allowed)))[0] is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "order",
    [
        wanted("x"),
        wanted(""),
        wanted("/x", duration_s=60.1),
        wanted("/x", duration_s=-1.0),
        wanted("/x", duration_s=float("nan")),
        wanted("/x", session=".."),
        wanted("/x", session="a/b"),
        wanted("/x", host="../a"),
        wanted("/x", host="a\0"),
        wanted("/x", host="a" * 300),
    ],
)
def test_orders_that_make_no_sense(order: ProfileOf) -> None:
    assert refused("", order, Peer.CLIENT)[0] is Code.INVALID_ARGUMENT


def test_each_asker_is_told_with_its_own_token() -> None:
    known = profilings()
    askers = [Asker(Peer.FRONTEND, Incarnation(1), 5), Asker(Peer.FRONTEND, Incarnation(2), 5)]
    orders = [
        known.begin(asker, Incarnation(10 + index), Profile(5, 1.0, "/x", f"s{index}", "h"))
        for index, asker in enumerate(askers)
    ]
    assert orders[0].token != orders[1].token
    assert known.workers("s1") == [Incarnation(11)]
    assert known.workers("other") == []
    assert known.ended(Profiled(orders[1].token, Code.OK, "", "/x/f", True)) == (
        askers[1],
        Profiled(5, Code.OK, "", "/x/f", True),
    )
    assert known.ended(Profiled(orders[1].token, Code.OK, "", "/x/f", True)) is None
    assert known.died(Incarnation(11)) == []
    ((asker, answer),) = known.died(Incarnation(10))
    assert (asker, answer.token, answer.code) == (askers[0], 5, Code.UNAVAILABLE)
    assert known.died(Incarnation(10)) == []


# -- a worker ------------------------------------------------------------------------------------------------------


class Desk:
    def __init__(self) -> None:
        self.said: list[Profiled] = []
        self.error: PoolError | None = None
        self.profiler = Profiler(self.said.append, self.begin, lambda file: not file.read_bytes())

    def begin(self, directory: str) -> "Desk":
        if self.error is not None:
            raise self.error
        self._file = Path(directory) / "x.xplane.pb"
        return self

    def finish(self) -> Path:
        self._file.write_bytes(b"trace")
        return self._file


def test_a_trace_is_ended_early_and_appears_whole(tmp_path: Path) -> None:
    desk = Desk()
    root = tmp_path / "new" / "root"
    desk.profiler.start(Profile(1, 1000.0, str(root), "s", "h"))
    desk.profiler.start(Profile(2, 1000.0, str(root), "t", "h"))
    desk.profiler.end("t")
    assert [(each.token, each.code) for each in desk.said] == [(2, Code.FAILED_PRECONDITION)]
    desk.profiler.end("s")
    desk.profiler.close(WITHIN_S)
    assert desk.said[1:] == [Profiled(1, Code.OK, "", str(root / "s" / "h.xplane.pb"), False)]
    assert [str(each.relative_to(root)) for each in root.rglob("*")] == ["s", "s/h.xplane.pb"]
    assert "profiler" not in {each.name for each in threading.enumerate()}


def test_a_trace_that_fails_leaves_nothing(tmp_path: Path) -> None:
    desk = Desk()
    desk.error = FailedPrecondition("no")
    desk.profiler.start(Profile(1, 0.0, str(tmp_path), "s", "h"))
    desk.profiler.close(WITHIN_S)
    assert desk.said == [Profiled(1, Code.FAILED_PRECONDITION, "no", "", False)]
    assert [each.name for each in tmp_path.iterdir()] == ["s"]
    (tmp_path / "file").touch()
    desk.error = None
    desk.profiler.start(Profile(2, 0.0, str(tmp_path / "file"), "s", "h"))
    desk.profiler.close(WITHIN_S)
    assert desk.said[1].code is Code.INTERNAL
    assert "cannot write the profile" in desk.said[1].message


# -- the frontend --------------------------------------------------------------------------------------------------


def table(**states: ServableState) -> RouteTable:
    return RouteTable(
        1,
        tuple(ModelRoute(name, (VersionRoute(1, state, Code.OK, "", ()),), {}) for name, state in states.items()),
    )


def test_the_model_that_is_meant() -> None:
    one = table(a=ServableState.AVAILABLE, b=ServableState.LOADING)
    assert chosen(None, one) == ("a", None)
    assert chosen("b", one) == ("b", None)
    assert chosen("b/12", one) == ("b", 12)
    assert chosen("x/y/12", one) == ("x/y", 12)
    two = table(a=ServableState.AVAILABLE, b=ServableState.AVAILABLE)
    for metadata, routes, text in (
        (None, two, "Served: a, b"),
        (None, table(), "Served: none"),
        ("a/", two, "expected NAME or NAME/VERSION, got 'a/'"),
        ("a/-1", two, "expected NAME"),
        ("a/9223372036854775808", two, "expected NAME"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            chosen(metadata, routes)
