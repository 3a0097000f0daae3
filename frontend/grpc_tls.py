"""TLS of the gRPC server: from the PEM texts of --ssl_config_file to grpcio's credentials. Pure but for OpenSSL.

The same credentials are used on the TCP port and on the unix socket, as TF Serving does (model_servers/server.cc).
"""

import grpc

from modelpool.supervisor.wire.frontend_spec import Tls

from .tls import server_context


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Server credentials as TF Serving makes them. Raises BindFailed when the texts cannot be used.

    With `client_verify` a client must show a certificate that `custom_ca` has signed; without it none is asked for,
    whatever `custom_ca` holds. (TF Serving: BuildServerCredentialsFromSSLConfigFile. There, `client_verify` without
    `custom_ca` starts and refuses every client; here it is an error.)
    """
    server_context(tls, "ssl_config_file")  # grpcio only says that it could not bind; this says why
    return grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        root_certificates=tls.custom_ca.encode() or None,
        require_client_auth=tls.client_verify,
    )
