"""A core over links that only record, for tests: what it sends, cancels, lets go of and tells of its requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from modelpool.frontend.core import Core
from modelpool.frontend.in_flight import Awaited, Bounds
from modelpool.frontend.model_spec import ModelSpec
from modelpool.frontend.settling import Fate
from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import NO_DEADLINE_NS, Method
from modelpool.supervisor.wire.frontend_messages import Quarantined, WorkerDied
from modelpool.supervisor.wire.ids import Incarnation
from modelpool.supervisor.wire.route_table import ModelRoute, RequestRules, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, Unavailable

RULES = RequestRules()


@dataclass
class FakeLink:
    """Records what is sent. `slow_end`: the end of a dead worker's connection is yet to be seen."""

    on_message: Callable[[list[bytes]], None]
    full: bool = False
    closed: bool = False
    slow_end: bool = False
    sent: list[data.RequestHeader] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    on_finished: Callable[[], None] | None = None

    def send(self, *frames: bytes) -> bool:
        assert not self.closed
        head = data.unpack_request(frames[0])
        if head.method is Method.CANCEL:
            self.cancelled.append(head.request_id)
        elif not self.full:
            self.sent.append(head)
            self.payloads.append(frames[1])
        return not self.full

    def finish(self, on_finished: Callable[[], None]) -> None:
        if self.slow_end:
            self.on_finished = on_finished
        else:
            on_finished()

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[int]:
        return [head.request_id for head in self.sent]


@dataclass
class FakeWitness:
    fates: list[tuple[str, Fate]] = field(default_factory=list)
    refused: int = 0
    poison: list[tuple[Quarantined, bytes, str]] = field(default_factory=list)

    def settled(self, model: str, fate: Fate) -> None:
        self.fates.append((model, fate))

    def quarantine_refused(self, model: str) -> None:
        self.refused += 1

    def poisoned(self, entry: Quarantined, method: Method, payload: bytes, poison_dir: str) -> None:
        self.poison.append((entry, payload, poison_dir))


class Bench:
    """A core, its links by incarnation, and the workers it has released."""

    def __init__(self, rules: RequestRules = RULES, bounds: Bounds | None = None) -> None:
        self.links: dict[int, FakeLink] = {}
        self.released: list[int] = []
        self.unreachable: set[int] = set()
        self.rules = rules
        self.witness = FakeWitness()
        self.core = Core(self._connect, self.released.append, self.witness, bounds)
        self.epoch = 0

    def _connect(self, route: WorkerRoute, on_message: Callable[[list[bytes]], None]) -> FakeLink:
        if route.incarnation in self.unreachable:
            raise Unavailable("no way")
        return self.links.setdefault(route.incarnation, FakeLink(on_message))

    def route(self, *workers: int) -> None:
        self.route_models(*([("m", workers)] if workers else []))

    def route_models(self, *served: tuple[str, tuple[int, ...]]) -> None:
        """A table of models with one version each, and the workers of that."""
        self.publish(
            *(
                self.model(
                    VersionRoute(
                        1,
                        ServableState.AVAILABLE,
                        Code.OK,
                        "",
                        tuple(WorkerRoute(Incarnation(worker), "ipc://x") for worker in workers),
                    ),
                    name,
                )
                for name, workers in served
            )
        )

    def model(self, version: VersionRoute, name: str = "m") -> ModelRoute:
        return ModelRoute(name, (version,), {}, rules=self.rules)

    def publish(self, *models: ModelRoute) -> None:
        self.epoch += 1
        assert self.core.swap_routes(RouteTable(self.epoch, models))
        self.core.release_idle()

    def submit(
        self, deadline_ns: int = NO_DEADLINE_NS, size_bytes: int = 0, model: str = "m", payload: bytes = b""
    ) -> Awaited:
        return self.core.submit(Method.PREDICT, payload or bytes(size_bytes), ModelSpec(model), deadline_ns)

    def reply(self, worker: int, request_id: int, body: bytes = b"", code: Code = Code.OK, hint_ms: int = 0) -> None:
        self.links[worker].on_message([data.pack_reply(request_id, code, hint_ms), body])

    def die(self, worker: int, executing: Sequence[int] = (), finished: Sequence[int] = ()) -> None:
        self.core.bury(WorkerDied(Incarnation(worker), "killed by SIGKILL", tuple(executing), tuple(finished)))


def worker_of(pending: Awaited) -> int:
    assert pending.worker is not None
    return int(pending.worker.incarnation)


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())
