"""/healthz, /readyz and /readyz/MODEL of a real frontend, under a supervisor that speaks or is silent."""

import http.client
import json
import re
from contextlib import closing
from typing import Any

import pytest

from modelpool.frontend.health_pages import MAX_SILENCE_S
from modelpool.supervisor.wire.frontend_messages import DrainFrontend, LameDuck, Pulse, WorkerDied
from modelpool.supervisor.wire.route_table import ModelRoute
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code

from .conftest import WAIT_S, FakeFrontendOwner, Stage, eventually, version

PREDICT = "/v1/models/m:predict"


def ask(owner: FakeFrontendOwner, path: str, method: str = "GET") -> tuple[int, Any]:
    """Status and document of a page."""
    with closing(http.client.HTTPConnection("localhost", owner.spec.rest_port, timeout=WAIT_S)) as connection:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or "null")


def not_ready(owner: FakeFrontendOwner, path: str, what: str, within_s: float = WAIT_S) -> Any:
    """The document of a page once its status is 503."""

    def document() -> Any:
        status, document = ask(owner, path)
        return status == 503 and document

    return eventually(document, what, within_s)


def test_alive_while_the_supervisor_speaks(frontend: FakeFrontendOwner) -> None:
    frontend.send(Pulse())
    assert eventually(lambda: ask(frontend, "/healthz")[0] == 200, "alive")
    document = not_ready(frontend, "/healthz", "a silent supervisor", 3 * MAX_SILENCE_S)
    assert document["alive"] is False
    assert document["supervisor_heard_s_ago"] > MAX_SILENCE_S
    assert re.match(r"nothing heard of the supervisor for \d+\.\d s, expected at most 5.0 s", document["error"])
    frontend.send(Pulse())
    eventually(lambda: ask(frontend, "/healthz")[0] == 200, "alive again")


def test_ready_is_what_the_routes_say(stage: Stage, frontend: FakeFrontendOwner) -> None:
    assert ask(frontend, "/readyz") == (
        503,
        {"ready": False, "leaving": False, "missing": {}, "error": "the supervisor has not sent the routes yet"},
    )
    worker = stage.worker()
    up = ModelRoute("m", (version(1, worker),), {})
    lost = version(2, state=ServableState.LOADING, code=Code.UNAVAILABLE, message="killed by SIGSEGV")
    frontend.route(up, ModelRoute("a b", (lost,), {}, required=False))
    assert ask(frontend, "/readyz") == (200, {"ready": True, "leaving": False, "missing": {}})
    assert ask(frontend, "/readyz", "HEAD") == (200, None)
    assert ask(frontend, "/readyz/m")[0] == 200
    reason = "version 2 is LOADING: UNAVAILABLE: killed by SIGSEGV"
    assert ask(frontend, "/readyz/a%20b") == (
        503,
        {"ready": False, "leaving": False, "model": "a b", "error": reason},
    )
    assert ask(frontend, "/readyz/other") == (
        404,
        {"ready": False, "model": "other", "error": "no such model is configured"},
    )
    frontend.send(WorkerDied(worker.incarnation, "killed by SIGKILL"))
    document = not_ready(frontend, "/readyz", "told by the death, before the next routes")
    assert "killed by SIGKILL" in document["missing"]["m"]


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/m/versions/1", "/v1/readyz", "/v1/models/readyz", "/Healthz"])
def test_what_is_no_page_is_none(frontend: FakeFrontendOwner, path: str) -> None:
    with closing(http.client.HTTPConnection("localhost", frontend.spec.rest_port, timeout=WAIT_S)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
    assert reply.status in (400, 404)
    assert b'"alive"' not in body


def test_other_methods_are_refused(frontend: FakeFrontendOwner) -> None:
    with closing(http.client.HTTPConnection("localhost", frontend.spec.rest_port, timeout=WAIT_S)) as connection:
        connection.request("POST", "/healthz", b"{}")
        assert connection.getresponse().status == 404


def test_a_lame_duck_serves_and_sends_its_clients_away(stage: Stage, frontend: FakeFrontendOwner) -> None:
    worker = stage.worker()
    frontend.route(ModelRoute("m", (version(1, worker),), {}))
    with closing(http.client.HTTPConnection("localhost", frontend.spec.rest_port, timeout=WAIT_S)) as kept:

        def predict() -> str | None:
            kept.request("POST", PREDICT, b"{}")
            reply = kept.getresponse()
            assert (reply.status, reply.read()) == (200, b"echo:{}")
            return reply.getheader("Connection")

        assert predict() is None
        frontend.send(LameDuck())
        assert not_ready(frontend, "/readyz", "a lame duck") == {"ready": False, "leaving": True, "missing": {}}
        assert ask(frontend, "/readyz/m")[0] == 503
        assert ask(frontend, "/healthz")[0] == 200, "it lives until it goes"
        assert predict() == "close"
        assert predict() == "close", "a client that connects again is served still"
    frontend.send(DrainFrontend(timeout_s=WAIT_S))
    assert frontend.wait_exit() == 0
