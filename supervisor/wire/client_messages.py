"""What somebody outside asks of the supervisor: the command line, or a client by way of a frontend.

The questions that a worker has to answer carry the order for it (`worker_messages`), whose answer is passed back.
"""

from dataclasses import dataclass

from .ids import Incarnation
from .states import Harm
from .status import Code
from .worker_messages import Profile, RecordWarmup


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """The status document is asked for; `token` is the asker's own and comes back with it."""

    token: int


@dataclass(frozen=True, slots=True)
class StatusReply:
    """`body` is the JSON text of `GET /pool/v1/status`; `token` is the asker's own."""

    token: int
    body: bytes


@dataclass(frozen=True, slots=True)
class RecordWarmupOf:
    """The command line to the supervisor: have a worker of this model record; of its newest version by default."""

    model: str
    version: int | None
    order: RecordWarmup


@dataclass(frozen=True, slots=True)
class RecordingGoesOn:
    """Supervisor to command line, once a second: what you wait for is under way. Shows whether anybody waits still."""

    token: int


@dataclass(frozen=True, slots=True)
class ProfileOf:
    """A frontend or the command line to the supervisor: trace a worker of this model; of its newest version by default.

    `session` and `host` of the order may be "": the supervisor then chooses.
    """

    model: str
    version: int | None
    order: Profile


@dataclass(frozen=True, slots=True)
class RestartOf:
    """The command line to the supervisor: start the workers of this model, of all its versions by default, afresh."""

    token: int
    model: str
    version: int | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """How that ended: OK when all of them serve again; `message` says more, in lines."""

    token: int
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class HurtModel:
    """The command line to the supervisor: hurt a worker of this model, on purpose; of its newest version by default.

    `amount`: POISON: the size of the deadly request in bytes; LEAK: MiB a second.
    """

    token: int
    model: str
    version: int | None
    harm: Harm
    amount: int


@dataclass(frozen=True, slots=True)
class HurtReply:
    """Supervisor to command line: who is hurt when `code` is OK, or why nobody is."""

    token: int
    code: Code
    message: str
    incarnation: Incarnation


FromClient = StatusRequest | RecordWarmupOf | ProfileOf | RestartOf | HurtModel
ToClient = StatusReply | RecordingGoesOn | Restarted | HurtReply
