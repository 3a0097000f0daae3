"""gRPC codes to HTTP codes."""

import pytest

from modelpool.frontend.status_map import http_status
from modelpool.supervisor.wire.status import Code

EXPECTED = {
    200: [Code.OK],
    400: [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE],
    401: [Code.UNAUTHENTICATED],
    403: [Code.PERMISSION_DENIED],
    404: [Code.NOT_FOUND],
    409: [Code.ALREADY_EXISTS, Code.ABORTED],
    429: [Code.RESOURCE_EXHAUSTED],
    499: [Code.CANCELLED],
    500: [Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS],
    501: [Code.UNIMPLEMENTED],
    503: [Code.UNAVAILABLE],
    504: [Code.DEADLINE_EXCEEDED],
}


@pytest.mark.parametrize(("status", "codes"), EXPECTED.items())
def test_map(status: int, codes: list[Code]) -> None:
    assert {http_status(code) for code in codes} == {status}


def test_every_code_has_a_status() -> None:
    assert sorted(code for codes in EXPECTED.values() for code in codes) == sorted(Code)
