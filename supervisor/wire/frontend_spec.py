"""What a frontend is started with: one frozen object, written to its standard input."""

from dataclasses import dataclass, field
from enum import StrEnum

from .ids import Incarnation

ARRIVING_REQUESTS = 10_000
ARRIVING_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's side of TLS, PEM texts: TF Serving's SSLConfig (config/ssl_config.proto).

    `custom_ca` is "" for none; `client_verify`: a client must show a certificate that `custom_ca` has signed.
    """

    server_key: str
    server_cert: str
    custom_ca: str
    client_verify: bool


class Engine(StrEnum):
    """What a frontend is made of."""

    AUTO = "auto"
    GRPCIO = "grpcio"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class FrontendSpec:
    """All a frontend needs to know; written to its standard input. Port 0 and path "" mean: do not listen.

    `engine`: what ends the protocols; auto: Envoy where it can run, else grpcio.
    `grpc_arguments`: channel arguments of the gRPC server, values as they were written. `health`, `reflection` and
    `profiler`: serve that gRPC service. `metrics_path`: where REST serves the metrics, "" for nowhere. `frontends`: so
    many share the pool's requests; each may have that part of what a model may have waiting. `access_log`: the file
    that Envoy writes, "" for none. `arriving_requests` and `arriving_bytes`: what may be there, of REST and of gRPC in
    Envoy, of requests whose bodies are still on their way. `most_heap_bytes`: what Envoy may allocate before it drops
    answers that nobody reads; 0: as much as it likes.
    """

    incarnation: Incarnation
    control_endpoint: str
    grpc_port: int
    rest_port: int
    grpc_socket_path: str
    rest_timeout_s: float
    max_request_bytes: int
    log_level: str
    rest_cors: bool = False
    grpc_tls: Tls | None = None
    rest_tls: Tls | None = None
    grpc_arguments: dict[str, str] = field(default_factory=dict)
    health: bool = False
    reflection: bool = False
    profiler: bool = False
    metrics_path: str = ""
    access_log: str = ""
    frontends: int = 1
    arriving_requests: int = ARRIVING_REQUESTS
    arriving_bytes: int = ARRIVING_BYTES
    most_heap_bytes: int = 0
    engine: Engine = Engine.GRPCIO
