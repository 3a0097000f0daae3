"""How a client proves its server, and itself. Plain data, without grpc."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes, or the path of a PEM file; `Tls()` trusts the roots that gRPC brings.

    `private_key` and `certificate` are the client's own, for servers with `client_verify`. `server_name` is the name
    in the server's certificate where it is not the target's.
    """

    root_certificates: bytes | Path | str | None = None
    private_key: bytes | Path | str | None = None
    certificate: bytes | Path | str | None = None
    server_name: str | None = None
