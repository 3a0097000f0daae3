"""What is published to the frontends, and what each of them has acknowledged. Pure.

A worker may be stopped only when no frontend can still have a request on it. Each table that a frontend was sent
exposes the workers it names; a frontend lets go of one by WorkerReleased, by its own death, or when the worker dies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .wire.ids import Incarnation
from .wire.route_table import ModelRoute, RouteTable


@dataclass(slots=True)
class _Frontend:
    acked_epoch: int = 0
    exposed: set[Incarnation] = field(default_factory=set)


@dataclass(slots=True)
class RouteBoard:
    """The newest table and every frontend's distance to it."""

    table: RouteTable = field(default_factory=lambda: RouteTable(0, ()))
    _frontends: dict[Incarnation, _Frontend] = field(default_factory=dict)

    def publish(self, models: tuple[ModelRoute, ...]) -> RouteTable | None:
        """The next table, to be sent to every frontend; None when nothing changed."""
        if self.table.epoch and models == self.table.models:
            return None
        self.table = RouteTable(self.table.epoch + 1, models)
        for frontend in self._frontends.values():
            frontend.exposed |= self._named()
        return self.table

    def join(self, frontend: Incarnation) -> RouteTable:
        """A frontend has come; the table it must be sent."""
        self._frontends[frontend] = _Frontend(exposed=self._named())
        return self.table

    def leave(self, frontend: Incarnation) -> None:
        self._frontends.pop(frontend, None)

    def ack(self, frontend: Incarnation, epoch: int) -> None:
        known = self._frontends.get(frontend)
        if known is not None:
            known.acked_epoch = max(known.acked_epoch, epoch)

    def released(self, frontend: Incarnation, worker: Incarnation) -> None:
        """Nothing is in flight there any more, unless a newer table has named the worker again."""
        known = self._frontends.get(frontend)
        if known is not None and worker not in self._named():
            known.exposed.discard(worker)

    def died(self, worker: Incarnation) -> None:
        for frontend in self._frontends.values():
            frontend.exposed.discard(worker)

    @property
    def acked_epoch(self) -> int:
        """The newest epoch that every frontend has acknowledged; 0 while there is no frontend."""
        return min((frontend.acked_epoch for frontend in self._frontends.values()), default=0)

    def is_released(self, worker: Incarnation) -> bool:
        """No frontend can have a request on this worker."""
        return not any(worker in frontend.exposed for frontend in self._frontends.values())

    @property
    def frontends(self) -> Mapping[Incarnation, int]:
        """Each frontend with the epoch it has acknowledged."""
        return {incarnation: frontend.acked_epoch for incarnation, frontend in self._frontends.items()}

    def _named(self) -> set[Incarnation]:
        return {
            worker.incarnation
            for model in self.table.models
            for version in model.versions
            for worker in version.workers
        }
