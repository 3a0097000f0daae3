"""TLS of the gRPC server: from the PEM texts of --ssl_config_file to grpcio's credentials. Pure but for OpenSSL.

The same credentials are used on the TCP port and on the unix socket, as TF Serving does (model_servers/server.cc).
"""

import contextlib
import os
import ssl
from collections.abc import Iterator

import grpc

from modelpool.supervisor.wire.messages import Tls

from .bind_error import BindFailed


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Server credentials as TF Serving makes them. Raises BindFailed when the texts cannot be used.

    With `client_verify` a client must show a certificate that `custom_ca` has signed; without it none is asked for,
    whatever `custom_ca` holds. (TF Serving: BuildServerCredentialsFromSSLConfigFile. There, `client_verify` without
    `custom_ca` starts and refuses every client; here it is an error.)
    """
    if tls.client_verify and not tls.custom_ca:
        raise BindFailed("ssl_config_file: client_verify needs custom_ca, the authority that signs the clients")
    _require_usable(tls)
    return grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        root_certificates=tls.custom_ca.encode() or None,
        require_client_auth=tls.client_verify,
    )


def _require_usable(tls: Tls) -> None:
    """grpcio only says that it could not bind; OpenSSL says why."""
    for field in ("server_key", "server_cert"):
        if not getattr(tls, field):
            raise BindFailed(f"ssl_config_file: {field} is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _in_memory(f"{tls.server_key}\n{tls.server_cert}\n") as path:
            # With a password an encrypted key is an error instead of a question at the terminal.
            context.load_cert_chain(path, password="")
    except OSError as error:
        raise BindFailed(f"ssl_config_file: cannot use server_key with server_cert: {_reason(error)}") from error
    if not tls.custom_ca:
        return
    try:
        with _in_memory(tls.custom_ca) as path:
            context.load_verify_locations(path)
    except OSError as error:
        raise BindFailed(f"ssl_config_file: cannot use custom_ca: {_reason(error)}") from error


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file with this text. The ssl module reads files only; this way no key gets on a disk."""
    with os.fdopen(os.memfd_create("tls"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _reason(error: OSError) -> str:
    """OpenSSL's own words, without where in its sources they stand."""
    return str(getattr(error, "reason", None) or error)
