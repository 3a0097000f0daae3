"""Which servable a request means, and who serves it: pure lookup over one RouteTable, with TF Serving's errors.

A `Routes` never changes; the core swaps in another. It knows neither sockets nor requests in flight. The errors are
those of model_servers/server_core.cc and core/basic_manager.cc, with one more: a version whose worker died before it
ever served answers UNAVAILABLE and says why, where NOT_FOUND would be misleading. One that did serve is a target
without workers, for as long as the next is on its way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.route_table import ModelRoute, RouteTable, VersionRoute, WorkerRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, InvalidArgument, NotFound, Unavailable

from .model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Target:
    """A servable, and the workers that take its requests: none while it returns, and then `lost` says why."""

    servable: ServableId
    workers: tuple[Incarnation, ...]
    lost: str = ""


class Routes:
    """Lookup over one route table."""

    def __init__(self, table: RouteTable) -> None:
        self.table = table
        self._models = {model.name: _Model(model) for model in table.models}
        # What nearly all requests ask for.
        self._latest = {name: model.served for name, model in self._models.items() if name and model.served is not None}

    def find(self, spec: ModelSpec | None) -> Target:
        """The target of a request. Raises InvalidArgument, NotFound or Unavailable with TF Serving's text."""
        if spec is None:
            raise InvalidArgument("Missing ModelSpec")
        if spec.version is None and spec.label is None:
            target = self._latest.get(spec.name)
            if target is not None:
                return target
        if not spec.name:
            raise InvalidArgument("ModelSpec has no name specified.")
        model = self._models.get(spec.name, _NO_MODEL)
        if spec.label is not None:
            version = model.labels.get(spec.label)
            if version is None:
                raise InvalidArgument(f"Unrecognized servable version label: {spec.label}")
            return model.specific(spec.name, version)
        if spec.version is not None:
            return model.specific(spec.name, spec.version)
        return model.latest(spec.name)

    def versions(self, name: str) -> tuple[VersionRoute, ...]:
        """All versions of a model, newest first; empty for an unknown model."""
        return self._models.get(name, _NO_MODEL).versions

    def message(self, servable: ServableId) -> str:
        """What the table says of a version that does not serve."""
        for version in self.versions(servable.name):
            if version.version == servable.version:
                return version.message or f"its state is {version.state.name}"
        return "it is not configured any more"

    def workers(self) -> Iterator[tuple[ServableId, WorkerRoute]]:
        """Every worker the table names, with its servable."""
        return workers_of(self.table)


class _Model:
    def __init__(self, route: ModelRoute) -> None:
        self.labels = route.labels
        self.versions = tuple(sorted(route.versions, key=lambda version: version.version, reverse=True))
        self._ready = {
            version.version: Target(
                ServableId(route.name, version.version), tuple(worker.incarnation for worker in version.workers)
            )
            for version in self.versions
            if version.state is ServableState.AVAILABLE and version.workers
        }
        self._returning = {
            version.version: Target(ServableId(route.name, version.version), (), version.message)
            for version in self.versions
            if version.returning and not version.workers
        }
        self._lost = {version.version: version.message for version in self.versions if _is_lost(version)}
        self.served = next(iter((self._ready or self._returning).values()), None)
        """The newest version that serves, or will again; None: none."""
        self._latest_lost = next(iter(self._lost.values()), None)

    def latest(self, name: str) -> Target:
        if self.served is not None:
            return self.served
        if self._latest_lost is not None:
            raise Unavailable(self._latest_lost)
        raise NotFound(f"Servable not found for request: Latest({name})")

    def specific(self, name: str, version: int) -> Target:
        target = self._ready.get(version) or self._returning.get(version)
        if target is not None:
            return target
        if version in self._lost:
            raise Unavailable(self._lost[version])
        raise NotFound(f"Servable not found for request: Specific({name}, {version})")


def _is_lost(version: VersionRoute) -> bool:
    """Its worker died and it is being loaded again; UNAVAILABLE is the table's code for that and nothing else."""
    return version.state is ServableState.LOADING and version.code is Code.UNAVAILABLE and not version.workers


_NO_MODEL = _Model(ModelRoute("", (), {}))


def workers_of(table: RouteTable) -> Iterator[tuple[ServableId, WorkerRoute]]:
    """Every worker that `table` names, with its servable."""
    for model in table.models:
        for version in model.versions:
            for worker in version.workers:
                yield ServableId(model.name, version.version), worker


def without_worker(table: RouteTable, incarnation: Incarnation, message: str) -> RouteTable:
    """`table` with one worker taken out; a version that loses its last worker is LOADING again, UNAVAILABLE.

    For the time between the news of a death and the supervisor's next table.
    """

    def changed(version: VersionRoute) -> VersionRoute:
        left = tuple(worker for worker in version.workers if worker.incarnation != incarnation)
        if len(left) == len(version.workers):
            return version
        if left or version.state is not ServableState.AVAILABLE:
            return replace(version, workers=left)
        return VersionRoute(version.version, ServableState.LOADING, Code.UNAVAILABLE, message, (), returning=True)

    models = tuple(replace(model, versions=tuple(map(changed, model.versions))) for model in table.models)
    return replace(table, models=models)
