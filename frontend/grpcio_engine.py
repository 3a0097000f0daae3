"""The engine that runs everywhere: grpcio for gRPC, uvicorn for REST, side by side in the event loop."""

import asyncio

from modelpool.supervisor.wire.frontend_spec import FrontendSpec

from .engine import AsgiApp
from .grpc_calls import Methods
from .grpc_server import GrpcServer
from .rest_server import RestServer


class GrpcioEngine:
    """An `Engine`."""

    name = "grpcio"

    def __init__(self, spec: FrontendSpec, methods: Methods, rest: AsgiApp | None) -> None:
        self._grpc = GrpcServer(methods, spec)
        self._rest = None if rest is None else RestServer(rest, spec.rest_port, spec.rest_tls)

    def bind(self) -> None:
        self._grpc.bind()
        if self._rest is not None:
            self._rest.bind()

    async def start(self) -> None:
        await self._grpc.start()
        if self._rest is not None:
            self._rest.start()

    async def leave(self) -> None:
        """REST's replies close their connections by themselves."""

    async def stop(self, grace_s: float) -> None:
        await asyncio.gather(*(server.stop(grace_s) for server in (self._grpc, self._rest) if server is not None))

    def remove_socket(self) -> None:
        self._grpc.remove_socket()
