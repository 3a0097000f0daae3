"""Hurting a model of a running pool on purpose, for `modelpool chaos`. In the supervisor's event loop.

Refused unless the pool was started with --allow_chaos. Signals are sent by the supervisor, which knows that a pid is
still its child's; what a worker does to itself it is told by message.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .manager import Manager
from .wire.client_messages import HurtModel, HurtReply
from .wire.ids import Incarnation
from .wire.log import fields
from .wire.states import Harm
from .wire.status import OK, FailedPrecondition, InvalidArgument, PoolError
from .wire.worker_messages import HurtWorker
from .wire.worker_spec import NOT_DEADLY

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hands:
    """What is done to a worker: SIGKILL, SIGSTOP, and an order to hurt itself."""

    kill: Callable[[Incarnation], None]
    stop: Callable[[Incarnation], None]
    tell: Callable[[Incarnation, HurtWorker], None]


@dataclass(slots=True)
class Chaos:
    """Who may be hurt, and which models are poisoned at present.

    `_memory_limit_mb`: of the workers of a model, 0 for none.
    """

    allowed: bool
    _manager: Manager
    _hands: Hands
    _memory_limit_mb: Callable[[str], float]
    _deadly: dict[str, int] = field(default_factory=dict)

    def deadly_size_bytes(self, model: str) -> int:
        """The size of the request that kills each worker of this model, NOT_DEADLY for none."""
        return self._deadly.get(model, NOT_DEADLY)

    def hurt(self, wanted: HurtModel) -> HurtReply:
        """Do it, and say to whom."""
        try:
            worker = self._victim(wanted)
        except PoolError as error:
            return HurtReply(wanted.token, error.status.code, error.message, Incarnation(0))
        log.warning("hurting a model %s", fields(model=wanted.model, harm=wanted.harm, incarnation=worker))
        match wanted.harm:
            case Harm.KILL:
                self._hands.kill(worker)
            case Harm.STOP:
                self._hands.stop(worker)
            case Harm.OOM | Harm.LEAK:
                self._hands.tell(worker, HurtWorker(wanted.harm, wanted.amount))
            case Harm.POISON | Harm.CURE:
                self._poison(wanted)
        return HurtReply(wanted.token, OK.code, "", worker)

    def ready(self, worker: Incarnation) -> None:
        """A worker was started with a poison that may have been cured since."""
        for model in self._deadly:
            if worker in self._workers(model):
                self._hands.tell(worker, HurtWorker(Harm.POISON, self._deadly[model]))

    def _victim(self, wanted: HurtModel) -> Incarnation:
        """The worker that is hurt, or the first of those that are. Raises PoolError."""
        if not self.allowed:
            raise FailedPrecondition("this pool was not started with --allow_chaos: nobody in it is hurt")
        if wanted.harm is Harm.POISON and wanted.amount < 1:
            raise InvalidArgument(f"poison: expected the size of a request in bytes, got {wanted.amount}")
        if wanted.harm is Harm.LEAK and wanted.amount < 1:
            raise InvalidArgument(f"leak: expected MiB a second, got {wanted.amount}")
        if wanted.harm in {Harm.OOM, Harm.LEAK} and not self._memory_limit_mb(wanted.model):
            # Without one it is the machine's memory that would run out.
            raise FailedPrecondition(f"model {wanted.model} has no host_memory_mb in --pool_config_file to run out of")
        if wanted.harm is Harm.CURE:
            return next(self._workers(wanted.model), Incarnation(0))
        return self._manager.ready_worker(wanted.model, wanted.version)

    def _poison(self, wanted: HurtModel) -> None:
        """For the workers that live, and by their specification for those that come."""
        deadly = wanted.amount if wanted.harm is Harm.POISON else NOT_DEADLY
        self._deadly[wanted.model] = deadly
        for worker in self._workers(wanted.model):
            self._hands.tell(worker, HurtWorker(wanted.harm, deadly))

    def _workers(self, name: str) -> Iterator[Incarnation]:
        model = self._manager.models.get(name)
        for servable in model.newest_first() if model is not None else ():
            for slot in servable.slots:
                if slot.incarnation is not None:
                    yield slot.incarnation
