"""The server's side of TLS: PEM texts of an SSLConfig to an `ssl.SSLContext`. Pure but for OpenSSL.

REST uses the context; gRPC has its own, and this one to learn in OpenSSL's words what is wrong with the texts.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator

from modelpool.supervisor.wire.frontend_spec import Tls

from .bind_error import BindFailed


def server_context(tls: Tls, flag: str) -> ssl.SSLContext:
    """A context that serves by `tls`; `flag` names the file of the texts in errors. Raises BindFailed.

    With `client_verify` a client must show a certificate that `custom_ca` has signed; without it none is asked for.
    """
    if tls.client_verify and not tls.custom_ca:
        raise BindFailed(f"{flag}: client_verify needs custom_ca, the authority that signs the clients")
    for field in ("server_key", "server_cert"):
        if not getattr(tls, field):
            raise BindFailed(f"{flag}: {field} is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with _in_memory(f"{tls.server_key}\n{tls.server_cert}\n") as path:
            # With a password an encrypted key is an error instead of a question at the terminal.
            context.load_cert_chain(path, password="")
    except OSError as error:
        raise BindFailed(f"{flag}: cannot use server_key with server_cert: {_reason(error)}") from error
    if tls.custom_ca:
        try:
            with _in_memory(tls.custom_ca) as path:
                context.load_verify_locations(path)
        except OSError as error:
            raise BindFailed(f"{flag}: cannot use custom_ca: {_reason(error)}") from error
    if tls.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # custom_ca need not be a root: so gRPC, and Envoy
    return context


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
