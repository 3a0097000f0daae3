"""Versions, labels and models come and go under a closed loop of 32 clients, and not one request fails.

Who answered is told by the answer itself: three models are copies of `numbered`. What may answer is known by the
windows in which a version may be asked: from its being asked for until its successor is seen to have taken over.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.e2e.beside import beside
from tests.e2e.eventually import eventually
from tests.e2e.pool import CALL_WITHIN_S, Pool, StartPool, model_config, put_version

# Of each protocol; two protocols.
STEADY_CLIENTS, LABEL_CLIENTS, VISITOR_CLIENTS = 10, 3, 3
WITHIN_S = 60.0
ROUNDS = 3
BOTH = "specific { versions: 1 versions: 2 }"

Ask = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Answer:
    """Which version answered, and between what times the request was with the server (monotonic seconds)."""

    version: int
    sent_s: float
    ended_s: float


@dataclass
class Client:
    """Asks without pause while it is allowed to; `idle` while it is not."""

    ask: Ask
    allowed: threading.Event
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if not self.allowed.wait(0.1):
                continue
            with self.busy:
                if not self.allowed.is_set():
                    continue
                sent_s = time.monotonic()
                try:
                    self.answers.append(Answer(self.ask(), sent_s, time.monotonic()))
                except (grpc.RpcError, OSError, AssertionError, http.client.HTTPException) as error:
                    self.failures.append(f"{error!r} {sent_s}")

    def has_seen(self, version: int, since_s: float) -> bool:
        return any(each.version == version and each.sent_s >= since_s for each in self.answers[-100:])


@dataclass
class Windows:
    """When each version might be asked: [from, until), still open while `until` is infinite."""

    spans: list[tuple[int, float, float]] = field(default_factory=list)

    def open(self, version: int) -> None:
        self.spans.append((version, time.monotonic(), float("inf")))

    def close(self, version: int) -> None:
        now_s = time.monotonic()
        self.spans = [(v, a, now_s if v == version and b == float("inf") else b) for v, a, b in self.spans]

    def allow(self, answer: Answer) -> bool:
        """A request that was sent after the end of the window must not get that version, whenever it arrived."""
        return any(v == answer.version and a <= answer.ended_s and answer.sent_s < b for v, a, b in self.spans)


@dataclass(frozen=True, slots=True)
class RestAsk:
    """Asks over a connection that is kept."""

    path: str
    connection: http.client.HTTPConnection

    def __call__(self) -> int:
        self.connection.request("POST", self.path, '{"instances": [0.0]}')
        with closing(self.connection.getresponse()) as response:
            body = response.read()
            assert response.status == 200, body
        (number,) = json.loads(body)["predictions"]
        return int(number)


def clients_of(pool: Pool, model: str, count: int, allowed: threading.Event, label: str = "") -> list[Client]:
    """So many over gRPC and as many over REST; by the label, if one is given."""

    def by_grpc() -> int:
        return pool.number_by_grpc(model, label=label)

    def by_rest() -> RestAsk:
        path = f"/v1/models/{model}{f'/labels/{label}' if label else ''}:predict"
        return RestAsk(path, http.client.HTTPConnection("127.0.0.1", pool.rest_port, timeout=CALL_WITHIN_S))

    asks: list[Ask] = [*[by_grpc] * count, *(by_rest() for _ in range(count))]
    return [Client(ask, allowed) for ask in asks]


@contextmanager
def at_work(clients: list[Client]) -> Iterator[None]:
    with ExitStack() as stack:
        for client in clients:
            if isinstance(client.ask, RestAsk):
                stack.callback(client.ask.connection.close)
        stack.enter_context(beside(*(client.run for client in clients)))
        yield


@dataclass
class Scene:
    """The pool, its clients, and what they may be told."""

    pool: Pool
    models: Path
    base: Path
    steady: list[Client]
    labelled: list[Client]
    visitors: list[Client]
    visiting: threading.Event
    steady_windows: Windows = field(default_factory=Windows)
    label_windows: Windows = field(default_factory=Windows)

    def configure(self, stable: int, visitor: bool) -> None:
        names = {"steady": self.base, "labelled": self.models / "numbered"}
        if visitor:
            names["visitor"] = self.models / "numbered"
        self.pool.reload(model_config(names, {"labelled": BOTH}, {"labelled": {"stable": stable}}))

    def move_label(self, before: int, after: int, visitor: bool) -> None:
        self.label_windows.open(after)
        self.configure(after, visitor)
        self.label_windows.close(before)
        seen_by_all(self.labelled, after)

    def visit(self, stable: int) -> None:
        """The other model appears: it answers as soon as the reload has returned."""
        self.configure(stable, visitor=True)
        self.visiting.set()
        seen_by_all(self.visitors, 3)

    def leave(self, stable: int) -> None:
        """And disappears, when nobody is about to ask it any more."""
        self.visiting.clear()
        for client in self.visitors:
            with client.busy:
                pass
        self.configure(stable, visitor=False)

    def taken_over(self, before: int, after: int) -> None:
        wanted = {before: "END", after: "AVAILABLE"}
        eventually(lambda: wanted.items() <= self.pool.versions("steady").items(), WITHIN_S, f"{before} -> {after}")
        self.steady_windows.close(before)
        seen_by_all(self.steady, after)

    def put(self, number: int) -> None:
        self.steady_windows.open(number)
        put_version(self.models / "numbered" / str(number), self.base, str(number))


def seen_by_all(clients: list[Client], version: int) -> None:
    since_s = time.monotonic()
    eventually(lambda: all(each.has_seen(version, since_s) for each in clients), WITHIN_S, f"{version} seen by all")


@pytest.fixture
def scene(start_pool: StartPool, models: Path, tmp_path: Path) -> Scene:
    base, pool_file = tmp_path / "steady", tmp_path / "pool.toml"
    base.mkdir()
    put_version(models / "numbered" / "1", base, "1")
    pool_file.write_text("[defaults]\nsettle_s = 0\n")
    names = {"steady": base, "labelled": models / "numbered"}
    config = model_config(names, {"labelled": BOTH}, {"labelled": {"stable": 1}})
    pool = start_pool(config, f"--pool_config_file={pool_file}")
    pool.wait_available(*names)
    assert pool.channel is not None  # the one channel, made before the threads share it
    always, visiting = threading.Event(), threading.Event()
    always.set()
    return Scene(
        pool,
        models,
        base,
        clients_of(pool, "steady", STEADY_CLIENTS, always),
        clients_of(pool, "labelled", LABEL_CLIENTS, always, "stable"),
        clients_of(pool, "visitor", VISITOR_CLIENTS, visiting),
        visiting,
    )


def test_no_request_fails(scene: Scene) -> None:
    clients = [*scene.steady, *scene.labelled, *scene.visitors]
    assert len(clients) == 32
    scene.steady_windows.open(1)
    scene.label_windows.open(1)
    with at_work(clients):
        seen_by_all(scene.steady, 1)
        scene.put(2)
        scene.visit(stable=1)
        scene.taken_over(1, 2)
        scene.move_label(1, 2, visitor=True)
        scene.leave(stable=2)
        for _ in range(ROUNDS):
            scene.put(3)
            scene.move_label(2, 1, visitor=False)
            scene.visit(stable=1)
            scene.taken_over(2, 3)
            scene.steady_windows.open(2)
            (scene.base / "3").rename(scene.base / f"withdrawn-{time.monotonic_ns()}")
            scene.leave(stable=1)
            scene.move_label(1, 2, visitor=False)
            scene.taken_over(3, 2)
    assert [client.failures for client in clients] == [[]] * len(clients)
    assert strangers(scene.steady, scene.steady_windows) == []
    assert strangers(scene.labelled, scene.label_windows) == []
    assert {answer.version for client in scene.visitors for answer in client.answers} == {3}
    for client in scene.steady:
        seen = [answer.version for answer in client.answers]
        order = [version for i, version in enumerate(seen) if i == 0 or seen[i - 1] != version]
        assert order == [1, 2] + [3, 2] * ROUNDS, "each switch happens once, for everybody"
    assert "load failed" not in scene.pool.log


def strangers(clients: list[Client], windows: Windows) -> list[Answer]:
    """Answers of versions that were not to be asked when the request was sent."""
    return [answer for client in clients for answer in client.answers if not windows.allow(answer)]
