"""The standard gRPC health service, answered from the route table. In the event loop.

TF Serving (model_servers/server.cc, --enable_grpc_healthcheck_service) knows "" and its two services, by their bare
names, all SERVING from the start on. Here "" is SERVING while the server is ready (`readiness`); the services, and
their full names, as long as the server lives and is not about to stop; and each configured model is a service of its
own: SERVING if some version is AVAILABLE.

The library's own servicer is not used: it holds a lock while it writes to a watcher, so that one client that does
not read would keep the news from all others and hold up who brings it; and its watchers never end, which a drain
would wait for.
"""

import asyncio
from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2

from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.route_table import RouteTable
from modelpool.supervisor.wire.status import NotFound, Unavailable

from . import readiness
from .grpc_calls import Call, Methods
from .grpc_handlers import MODEL_SERVICE, PREDICTION_SERVICE

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVICES = ("ModelService", "PredictionService", MODEL_SERVICE, PREDICTION_SERVICE)

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Check, List and Watch. A model that bears the name of a service of the server is not told apart from it."""

    def __init__(self) -> None:
        self._leaving = False
        self._draining = False
        self._statuses: dict[str, int] = statuses(RouteTable(-1, ()))
        self._changed = asyncio.Event()
        self.methods = Methods(
            {f"/{SERVICE}/Check": self._check, f"/{SERVICE}/List": self._list}, {f"/{SERVICE}/Watch": self._watch}
        )

    def routes_changed(self, table: RouteTable) -> None:
        """Take over what `table` says, and wake the watchers. Without effect once the server leaves."""
        if not self._leaving:
            self._set(statuses(table))

    def leave(self) -> None:
        """NOT_SERVING for everything from now on, though all is served still."""
        self._leaving = True
        self._set(dict.fromkeys(self._statuses, _NOT_SERVING))

    def drain(self) -> None:
        """The same, and the streams of watchers end once they have been told."""
        self._draining = True
        self.leave()

    def _set(self, new: dict[str, int]) -> None:
        self._statuses = new
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, request: bytes, call: Call) -> bytes:
        status = self._statuses.get(parse(health_pb2.HealthCheckRequest, request).service)
        if status is None:
            raise NotFound("service name unknown")
        return _reply(status)

    async def _list(self, request: bytes, call: Call) -> bytes:
        reply = health_pb2.HealthListResponse()
        for name, status in self._statuses.items():
            reply.statuses[name].status = status
        raw: bytes = reply.SerializeToString()
        return raw

    async def _watch(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """The status now and at each change; a watcher that reads slowly misses what is out of date."""
        service = parse(health_pb2.HealthCheckRequest, await anext(requests, b"")).service
        told: int | None = None
        while True:
            changed, draining = self._changed, self._draining
            status = self._statuses.get(service, _SERVICE_UNKNOWN)
            if status != told:
                yield _reply(status)
                told = status
            if draining:
                raise Unavailable("The server is shutting down")
            await changed.wait()


def _reply(status: int) -> bytes:
    raw: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return raw


def statuses(table: RouteTable) -> dict[str, int]:
    """The status of every service that is known, by name."""
    models = {model.name: _SERVING if readiness.is_available(model) else _NOT_SERVING for model in table.models}
    server = {"": _SERVING if readiness.is_ready(table) else _NOT_SERVING}
    return models | server | dict.fromkeys(_SERVICES, _SERVING)
