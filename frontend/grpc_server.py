"""The gRPC engine on grpcio: the server with its ports, its credentials and the services on them. In the event loop.

What the RPCs do is in `grpc_handlers`, `health` and `reflection`.
"""

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from modelpool.supervisor.wire.messages import FrontendSpec

from . import grpc_tls, health, unix_socket
from .bind_error import BindFailed
from .core import Core
from .grpc_arguments import server_options
from .grpc_handlers import MODEL_SERVICE, PREDICTION_SERVICE, OnFinished, Reload, ServingHandlers, tell_nobody
from .health import Health
from .reflection import Reflection


class GrpcServer:
    """Serves on a TCP port (0: none) and a unix socket ("": none), on both with TLS when the spec has it.

    Health and reflection answer when the spec asks for them, and are UNIMPLEMENTED otherwise.
    """

    def __init__(self, core: Core, reload: Reload, spec: FrontendSpec, on_finished: OnFinished = tell_nobody) -> None:
        self._core = core
        self._port = spec.grpc_port
        self._socket_path = spec.grpc_socket_path
        self._tls = spec.grpc_tls
        self._owns_socket = False
        self._server = grpc.aio.server(options=server_options(spec.max_request_bytes, spec.grpc_arguments))
        self._server.add_generic_rpc_handlers((ServingHandlers(core, reload, on_finished),))
        services = [MODEL_SERVICE, PREDICTION_SERVICE]
        self._health: Health | None = None
        if spec.health:
            self._health = Health()
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
            services.append(health.SERVICE)
        self._reflection: Reflection | None = None
        if spec.reflection:
            self._reflection = Reflection(tuple(services))
            self._server.add_generic_rpc_handlers((self._reflection,))

    def add(self, handler: grpc.GenericRpcHandler) -> None:
        """Serve the methods of `handler` too. Before `start`."""
        self._server.add_generic_rpc_handlers((handler,))

    def routes_changed(self) -> None:
        """The core has other routes than before: tell those who watch the models' health."""
        if self._health is not None:
            self._health.routes_changed(self._core.routes.table)

    def leave(self) -> None:
        """Say not ready from now on, and serve as before."""
        if self._health is not None:
            self._health.leave()

    def bind(self) -> None:
        """Take the port, which other frontends share, and the socket. Raises BindFailed."""
        credentials = None if self._tls is None else grpc_tls.credentials(self._tls)
        if self._port:
            # The IPv6 wildcard takes IPv4 too; grpcio falls back to 0.0.0.0 where there is no IPv6.
            self._add(f"[::]:{self._port}", credentials, f"port: cannot listen on gRPC port {self._port}")
        if self._socket_path:
            unix_socket.claim(self._socket_path)
            failure = f"grpc_socket_path: cannot listen on {self._socket_path!r}"
            self._add(f"unix:{self._socket_path}", credentials, failure)
            self._owns_socket = True

    def _add(self, address: str, credentials: grpc.ServerCredentials | None, failure: str) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            other = "" if credentials is None else ", or does gRPC refuse what ssl_config_file holds"
            raise BindFailed(f"{failure}: is it in use by another process{other}? ({error})") from error

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let what is in flight finish within `grace_s`, and remove the socket file.

        The streams of those who watch end at once.
        """
        if self._health is not None:
            self._health.drain()
        if self._reflection is not None:
            self._reflection.drain()
        await self._server.stop(grace_s)
        self.remove_socket()

    def remove_socket(self) -> None:
        if self._owns_socket:
            unix_socket.remove(self._socket_path)
