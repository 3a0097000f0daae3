"""Where requests go, as the supervisor publishes it to the frontends: models, their versions, and the workers."""

from dataclasses import dataclass, field
from enum import StrEnum

from .ids import Incarnation
from .states import ServableState
from .status import Code


@dataclass(frozen=True, slots=True)
class WorkerRoute:
    """One worker that takes requests, at its data socket."""

    incarnation: Incarnation
    endpoint: str


@dataclass(frozen=True, slots=True)
class VersionRoute:
    """One version: what clients are told of it, and the workers that take its requests (none unless AVAILABLE).

    `returning`: it was served, its workers are gone, and the next is on its way: requests may wait for it.
    """

    version: int
    state: ServableState
    code: Code
    message: str
    workers: tuple[WorkerRoute, ...]
    returning: bool = False


class RetryOnCrash(StrEnum):
    """What becomes of a request that a worker was executing when it died: tried once more, or never twice."""

    ONCE = "once"
    NEVER = "never"


# What one worker's queue holds, from all frontends; `max_queued_requests` cannot be more.
MOST_QUEUED_REQUESTS = 8_000


@dataclass(frozen=True, slots=True)
class RequestRules:
    """How frontends treat a model's requests: the keys of these names in the pool's file.

    `quarantine_s`: for how long whatever is the same as a poison request is refused. `max_queued_requests`: of all
    frontends together, at each worker of the model. `poison_dir`: where poison requests are kept, "" for nowhere.
    """

    retry_on_crash: RetryOnCrash = RetryOnCrash.ONCE
    quarantine_s: float = 300.0
    max_queued_requests: int = 1000
    poison_dir: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """`required`: without it the server is not ready."""

    name: str
    versions: tuple[VersionRoute, ...]
    labels: dict[str, int]
    required: bool = True
    rules: RequestRules = field(default_factory=RequestRules)


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything a frontend needs to route and to answer status questions. Epochs only grow."""

    epoch: int
    models: tuple[ModelRoute, ...]
