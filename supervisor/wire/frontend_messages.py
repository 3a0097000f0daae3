"""Between the supervisor and a frontend. `FromFrontend` and `ToFrontend` say which way each message goes.

A frontend also passes on what its clients ask; those questions are in `client_messages`.
"""

from dataclasses import dataclass

from .ids import Incarnation
from .route_table import RouteTable
from .status import Code

# -- supervisor to frontend --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker's process is gone; whatever was sent to it will not be answered.

    Of this frontend's requests there, by their ids: those it was `executing`, which may have killed it, and those it
    had `finished` not long before, whose answers may be lost. All others had not begun.
    """

    incarnation: Incarnation
    cause: str
    executing: tuple[int, ...] = ()
    finished: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLoads:
    """What is known elsewhere of the workers that have siblings, by incarnation; an answer to FrontendStats.

    `elsewhere`: requests in flight there from other frontends. `busy_s`: for how long it has executed the present one.
    """

    elsewhere: dict[int, int]
    busy_s: dict[int, float]


@dataclass(frozen=True, slots=True)
class Pulse:
    """The supervisor's event loop turns. An answer to FrontendStats, where WorkerLoads is not."""


@dataclass(frozen=True, slots=True)
class OpenPorts:
    """Bind and listen now: every configured model has settled once."""


@dataclass(frozen=True, slots=True)
class LameDuck:
    """Say not ready from now on, and serve as before: the server is about to stop."""


@dataclass(frozen=True, slots=True)
class DrainFrontend:
    """Stop accepting, finish what is in flight within `timeout_s`, exit with code 0."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class ReloadReply:
    """Supervisor to frontend: how the reload ended; its status is the RPC's, too."""

    token: int
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A request that was executing at two deaths: whatever is the same is refused for this version for a while.

    From the frontend that found it to the supervisor, and on to all frontends, those that come later included.
    `fingerprint`: of the method and the payload, which has `size_bytes`; `until_ns`: on CLOCK_MONOTONIC.
    """

    name: str
    version: int
    fingerprint: bytes
    size_bytes: int
    until_ns: int


ToFrontend = (
    RouteTable | WorkerDied | WorkerLoads | Pulse | OpenPorts | LameDuck | DrainFrontend | ReloadReply | Quarantined
)

# -- frontend to supervisor --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrontendHello:
    """First message of a frontend: it can take routes."""

    pid: int


@dataclass(frozen=True, slots=True)
class FrontendListening:
    """The ports are open."""


@dataclass(frozen=True, slots=True)
class FrontendBindFailed:
    """A port or socket could not be had; the frontend exits after it."""

    message: str


@dataclass(frozen=True, slots=True)
class RoutesAck:
    """From now on no new request goes to a worker that the table of `epoch` does not name."""

    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerReleased:
    """The frontend has nothing in flight on a worker that its table no longer names."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """A ReloadConfigRequest of a client, serialized as it came."""

    token: int
    request: bytes


@dataclass(frozen=True, slots=True)
class FrontendStats:
    """Requests in flight per worker incarnation, and in all answered since the start. Sent once a second."""

    in_flight: dict[int, int]
    answered: int


FromFrontend = (
    FrontendHello
    | FrontendListening
    | FrontendBindFailed
    | RoutesAck
    | WorkerReleased
    | ReloadRequest
    | FrontendStats
    | Quarantined
)
