"""TLS on both ports of a frontend: who is let in, and pairs that cannot be used."""

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from modelpool.supervisor.wire.frontend_messages import FrontendBindFailed, OpenPorts
from modelpool.supervisor.wire.frontend_spec import Tls
from modelpool.supervisor.wire.route_table import ModelRoute
from tests.certificates import Authority

from .conftest import WAIT_S, Stage, version
from .test_frontend_requests import refusal, request
from .test_rest_surface import PATH, call, opened

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("servers")


@pytest.fixture(scope="module")
def client_authority() -> Authority:
    return Authority("clients")


@contextlib.contextmanager
def secure(target: str, root: Authority, client: Any = None) -> Iterator[Callable[[], bytes]]:
    """A call over TLS."""
    credentials = grpc.ssl_channel_credentials(
        root.cert.encode(),
        client and client.key.encode(),
        client and client.cert.encode(),
    )
    options = (("grpc.ssl_target_name_override", "localhost"),)
    with grpc.secure_channel(target, credentials, options) as channel:
        yield lambda: bytes(channel.unary_unary(PREDICT)(request(), timeout=WAIT_S))


def refused(call: Callable[[], bytes]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    name: str = caught.value.code().name
    return name


def trusting(root: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=root.cert)


def test_tls_of_grpc_on_port_and_socket(stage: Stage, authority: Authority, client_authority: Authority) -> None:
    pair = authority.issue("server")
    socket_path = str(stage.folder / "grpc.sock")
    # custom_ca without client_verify: no client certificate is asked for.
    tls = Tls(pair.key, pair.cert, client_authority.cert, client_verify=False)
    owner = stage.frontend(grpc_tls=tls, grpc_socket_path=socket_path)
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    tcp = f"localhost:{owner.spec.grpc_port}"
    for target in (tcp, f"unix:{socket_path}"):
        with secure(target, authority) as call:
            assert call() == b"echo:" + request()
        with grpc.insecure_channel(target) as channel:
            assert refusal(channel, request())[0] == "UNAVAILABLE"
    with secure(tcp, client_authority) as call:
        assert refused(call) == "UNAVAILABLE"


def test_mutual_tls_of_grpc(stage: Stage, authority: Authority, client_authority: Authority) -> None:
    pair = authority.issue("server")
    owner = stage.frontend(grpc_tls=Tls(pair.key, pair.cert, client_authority.cert, client_verify=True))
    owner.open_ports()
    owner.route(ModelRoute("m", (version(1, stage.worker()),), {}))
    target = f"localhost:{owner.spec.grpc_port}"
    with secure(target, authority, client_authority.issue("client")) as call:
        assert call() == b"echo:" + request()
    for client in (None, authority.issue("signed by another")):
        with secure(target, authority, client) as call:
            assert refused(call) == "UNAVAILABLE"


def test_tls_of_rest(stage: Stage, authority: Authority) -> None:
    pair = authority.issue("server")
    owner = opened(stage.frontend(rest_tls=Tls(pair.key, pair.cert, "", client_verify=False)), stage.worker())
    assert call(owner, "POST", PATH, b"{}", context=trusting(authority))[:2] == (200, b"echo:{}")
    with pytest.raises(ssl.SSLCertVerificationError):
        call(owner, "POST", PATH, b"{}", context=trusting(Authority("others")))
    with pytest.raises((http.client.HTTPException, OSError)):
        call(owner, "POST", PATH, b"{}")
    assert call(owner, "GET", "/v1/models/m", context=trusting(authority))[0] == 200


@pytest.mark.parametrize("by", [None, Authority("root")], ids=["root", "subordinate"])
def test_mutual_tls_of_rest(stage: Stage, authority: Authority, by: Authority | None) -> None:
    """As over gRPC, `custom_ca` is whom the operator trusts, whoever has signed it."""
    clients, pair = Authority("clients", by), authority.issue("server")
    owner = opened(stage.frontend(rest_tls=Tls(pair.key, pair.cert, clients.cert, client_verify=True)), stage.worker())
    good, client = trusting(authority), clients.issue("client")
    chain = stage.folder / "client.pem"
    chain.write_text(f"{client.key}\n{client.cert}", encoding="utf-8")
    good.load_cert_chain(chain)
    assert call(owner, "POST", PATH, b"{}", context=good)[:2] == (200, b"echo:{}")
    with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
        call(owner, "POST", PATH, b"{}", context=trusting(authority))


@pytest.mark.parametrize(("port", "flag"), [("grpc_tls", "ssl_config_file"), ("rest_tls", "rest_ssl_config_file")])
def test_a_key_of_another_certificate_is_an_error_at_the_start(
    stage: Stage, authority: Authority, port: str, flag: str
) -> None:
    tls = Tls(authority.issue("a").key, authority.issue("b").cert, "", client_verify=False)
    owner = stage.frontend(**{port: tls})
    owner.send(OpenPorts())
    text = owner.expect(FrontendBindFailed).message
    assert text.startswith(f"{flag}: cannot use server_key with server_cert: ")
    assert "mismatch" in text.lower()
    assert owner.wait_exit() == 1
