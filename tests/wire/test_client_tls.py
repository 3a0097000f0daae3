"""The client's TLS against a grpc server that asks for a certificate too."""

from concurrent import futures
from pathlib import Path

import grpc
import pytest

from modelpool.frontend.client import Client, InputError, Tls, Unavailable
from tests.certificates import Authority

from .test_client import Server


def test_tls_with_a_certificate_on_both_sides(tmp_path: Path) -> None:
    servers, clients = Authority("servers"), Authority("clients")
    pair, own = servers.issue("server"), clients.issue("client")
    (tmp_path / "own.key").write_text(own.key, encoding="utf-8")
    root, own_key, own_certificate = servers.cert.encode(), own.key.encode(), own.cert.encode()
    handler = Server()
    made = grpc.server(futures.ThreadPoolExecutor(2), [handler])
    credentials = grpc.ssl_server_credentials(
        [(pair.key.encode(), pair.cert.encode())], clients.cert.encode(), require_client_auth=True
    )
    handler.port = made.add_secure_port("127.0.0.1:0", credentials)
    made.start()
    target = f"127.0.0.1:{handler.port}"
    try:
        tls = Tls(root, tmp_path / "own.key", own_certificate, server_name="localhost")
        with Client(target, tls=tls) as client:
            assert len(client.status("m")) == 2
        for refused in (
            None,
            Tls(root, server_name="localhost"),
            Tls(root, own_key, own_certificate, server_name="other.test"),
        ):
            with Client(target, tls=refused, timeout_s=5) as client, pytest.raises(Unavailable):
                client.status("m")
    finally:
        made.stop(None).wait()


def test_tls_arguments_that_make_no_client(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a private key and its certificate together"):
        Client("localhost:1", tls=Tls(private_key=b"x"))
    with pytest.raises(InputError, match="No such file"):
        Client("localhost:1", tls=Tls(tmp_path / "nonesuch"))
