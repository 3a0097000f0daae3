"""What ends the protocols on the ports: the seam between a session and the two engines. Pure.

`grpcio_engine`: grpcio and uvicorn, anywhere. `envoy_engine`: Envoy, in whose process this one then runs.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from modelpool.supervisor.wire.frontend_spec import FrontendSpec

from .grpc_calls import Methods

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Engine(Protocol):
    """The ports of one frontend. Called in the event loop: `bind`, `start` and `stop` once each, in this order."""

    name: str
    """For the log."""

    def bind(self) -> None:
        """Take ports and socket file. Raises BindFailed."""

    async def start(self) -> None:
        """Take requests; returns when all of them are listened on."""

    async def leave(self) -> None:
        """Serve as before, and have clients go elsewhere with their next connection, as far as the protocol lets."""

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let what is in flight finish within `grace_s`, and remove the socket file."""

    def remove_socket(self) -> None:
        """Remove the socket file, if this engine has bound it."""


# The gRPC methods, and the REST API where there is a port for it.
MakeEngine = Callable[[FrontendSpec, Methods, AsgiApp | None], Engine]
