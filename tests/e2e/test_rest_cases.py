"""Every row of the table of REST cases against a real server, over real HTTP."""

import pytest

from tests.e2e.pool import Pool
from tests.e2e.rest_case import RestCase
from tests.e2e.rest_cases import REST_CASES


@pytest.mark.parametrize("case", REST_CASES, ids=lambda case: case.id)
def test_rest_case(shared_pool: Pool, case: RestCase) -> None:
    body = None if case.body is None else case.body.encode()
    reply = shared_pool.http(case.method, case.path, body, case.headers)
    assert (reply.status, reply.text if reply.status != case.status else "") == (case.status, ""), case.source
    assert reply.content_type == "application/json"
    if case.exactly:
        assert reply.text == case.expected, case.source
    elif case.status == 200:
        assert reply.json == case.expected, case.source
    elif case.expected.endswith("..."):
        assert reply.error.startswith(case.expected.removesuffix("...")), case.source
    else:
        assert reply.error == case.expected, case.source


def test_the_table() -> None:
    """Each row has a name of its own and says where TF Serving decides it."""
    assert len({case.id for case in REST_CASES}) == len(REST_CASES) >= 150
    assert all(":" in case.source for case in REST_CASES)
