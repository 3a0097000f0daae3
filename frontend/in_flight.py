"""What the core keeps of each request in flight and of each worker, and the seams through which it acts. Pure."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.frontend_messages import Quarantined
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.route_table import WorkerRoute
from modelpool.supervisor.wire.status import Code, PoolError

from .model_queue import ModelQueue
from .model_spec import ModelSpec
from .settling import Fate, Lookalikes

Answer = tuple[Code, bytes]  # the reply's bytes, or the error's text in UTF-8


class Link(Protocol):
    """The way to one worker. `send` is False when its queue is full.

    `finish`, once the worker is dead: hand over what it had sent, then call back; perhaps at once.
    """

    def send(self, head: bytes, payload: Payload) -> bool: ...

    def finish(self, on_finished: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


Connect = Callable[[WorkerRoute, Callable[[list[bytes]], None]], Link]


class Witness(Protocol):
    """Who is told of what happens to requests, to count it and to pass it on."""

    def settled(self, model: str, fate: Fate) -> None:
        """A request of a dead worker met this fate."""

    def quarantine_refused(self, model: str) -> None:
        """A request was refused because the same is in quarantine."""

    def poisoned(self, entry: Quarantined, method: data.Method, payload: bytes, poison_dir: str) -> None:
        """A request was found to be poison."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be in flight at one of so many `frontends`, in bytes of payload: a slow model must not take the memory
    of the frontend that all models share. `hold_s`: how long a request without a deadline waits for a worker.
    """

    frontends: int = 1
    model_bytes: int = 1 << 30
    total_bytes: int = 2 << 30
    hold_s: float = 60.0


@dataclass(slots=True, eq=False)
class Worker:
    """One that this frontend has a link to. `leaving`: no route names it any more, and its requests are awaited."""

    incarnation: Incarnation
    servable: ServableId
    link: Link
    queue: ModelQueue
    in_flight: int = 0
    leaving: bool = False
    dead: bool = False


class Pending:
    """A request in flight: at `worker`, or held. Whoever stops waiting for the answer hands it to `Core.drop`.

    Who asks makes one and says what it asks (method, payload, spec, deadline); `Core.begin` sets the rest. A subclass
    says where the answer goes. `timer`: bounds how long it is held when it has no deadline. `deaths`: how often a
    worker died while it executed this; `alone`: it is executed by itself from now on.
    """

    __slots__ = (
        *("alone", "deadline_ns", "deaths", "method", "payload", "queue", "request_id", "servable", "spec", "timer"),
        "worker",
    )

    method: data.Method
    payload: Payload
    spec: ModelSpec | None
    deadline_ns: int
    request_id: int
    servable: ServableId
    queue: ModelQueue
    worker: Worker | None
    timer: asyncio.TimerHandle | None
    deaths: int
    alone: bool

    def done(self) -> bool:
        """Nobody waits for the answer any more."""
        raise NotImplementedError

    def set_result(self, answer: Answer) -> None:
        """The answer, once, unless it is done."""
        raise NotImplementedError

    def set_exception(self, error: PoolError) -> None:
        """Likewise, a refusal that says more than code and text."""
        raise NotImplementedError


class Awaited(Pending):
    """One whose answer is awaited."""

    __slots__ = ("answer",)

    def __init__(
        self,
        method: data.Method,
        payload: Payload,
        spec: ModelSpec | None,
        deadline_ns: int,
        answer: asyncio.Future[Answer],
    ) -> None:
        self.method, self.payload, self.spec, self.deadline_ns = method, payload, spec, deadline_ns
        self.answer = answer

    def done(self) -> bool:
        return self.answer.done()

    def set_result(self, answer: Answer) -> None:
        self.answer.set_result(answer)

    def set_exception(self, error: PoolError) -> None:
        self.answer.set_exception(error)


def in_order_of_suspicion(again: Collection[Pending]) -> list[Pending]:
    """In which order to send requests again: those above suspicion, suspects, and what is the same as a suspect.

    The last two are executed alone. In this order one poison sent many times over kills no more often than one.
    """
    same = Lookalikes(pending.payload for pending in again if pending.deaths)
    for pending in again:
        pending.alone = pending.alone or pending.payload in same
    return sorted(again, key=lambda each: (each.alone, not each.deaths, each.request_id))
