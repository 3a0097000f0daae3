"""What the SSLConfig may hold; how it works on a port is tested in tests/wire."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelpool.frontend import grpc_tls
from modelpool.frontend.bind_error import BindFailed
from modelpool.supervisor.wire.frontend_spec import Tls
from tests.certificates import Authority, pem

AUTHORITY = Authority("test")
PAIR = AUTHORITY.issue("server")
GOOD = Tls(PAIR.key, PAIR.cert, "", client_verify=False)
NOT_PEM = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "tls",
    [
        GOOD,
        replace(GOOD, server_cert=PAIR.cert + AUTHORITY.cert),
        replace(GOOD, custom_ca="# Zertifizierungsstelle für Tests\n" + AUTHORITY.cert),
        replace(GOOD, custom_ca=AUTHORITY.cert + PAIR.cert, client_verify=True),
        replace(GOOD, server_key=PAIR.key.rstrip("\n"), server_cert="Issued for a test\n" + PAIR.cert.rstrip("\n")),
    ],
    ids=["plain", "chain", "unused authority", "authorities", "text around"],
)
def test_usable(tls: Tls) -> None:
    assert grpc_tls.credentials(tls) is not None


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (replace(GOOD, server_key=""), "server_key is missing"),
        (replace(GOOD, server_cert=""), "server_cert is missing"),
        (replace(GOOD, server_key="/etc/tls/key.pem"), "cannot use server_key with server_cert: "),
        (replace(GOOD, server_cert=NOT_PEM), "cannot use server_key with server_cert: "),
        (replace(GOOD, server_key=AUTHORITY.issue("x").key), "cannot use server_key with server_cert: "),
        (
            replace(GOOD, server_key=pem(ec.generate_private_key(ec.SECP256R1()), b"secret")),
            "cannot use server_key with server_cert: ",
        ),
        (replace(GOOD, custom_ca="é"), "cannot use custom_ca: "),
        (replace(GOOD, custom_ca=NOT_PEM), "cannot use custom_ca: "),
        (replace(GOOD, client_verify=True), "client_verify needs custom_ca"),
    ],
    ids=["no key", "no cert", "file", "no certificate", "other key", "encrypted", "text", "no authority", "no ca"],
)
def test_unusable(tls: Tls, text: str) -> None:
    with pytest.raises(BindFailed) as caught:
        grpc_tls.credentials(tls)
    assert caught.value.message.startswith(f"ssl_config_file: {text}")
    assert PAIR.key not in caught.value.message
