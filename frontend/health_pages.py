"""The pages for orchestrators and load balancers: /healthz, /readyz and /readyz/MODEL. In the event loop.

They lie outside of /v1/, where TF Serving's REST API has nothing. `/healthz` is 200 while this process answers and has
heard of the supervisor's loop a moment ago; `/readyz` is 200 while every required model is available and the server
does not go; `/readyz/MODEL` asks for one model, required or not. The answer is JSON and says what is missing.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from modelpool.supervisor.wire.route_table import RouteTable

from . import readiness
from .rest_reply import Reply

# The supervisor's loop speaks once a second; a machine that is busy makes it late.
MAX_SILENCE_S = 5.0

_METHODS = ("GET", "HEAD")


class HealthPages:
    """`table`: the routes in force; `silent_s`: for how long nothing was heard of the supervisor's loop."""

    def __init__(self, table: Callable[[], RouteTable], silent_s: Callable[[], float]) -> None:
        self._table = table
        self._silent_s = silent_s
        self.leaving = False
        """The server is about to stop: not ready, whatever the models are."""

    def reply(self, method: str, path: bytes) -> Reply | None:
        """The page at `path`; None when there is none."""
        if method not in _METHODS:
            return None
        if path == b"/healthz":
            return self._alive()
        if path == b"/readyz":
            return self._ready()
        if path.startswith(b"/readyz/"):
            return self._model(unquote_to_bytes(path.removeprefix(b"/readyz/")).decode("utf-8", "replace"))
        return None

    def _alive(self) -> Reply:
        silent_s = self._silent_s()
        alive = silent_s <= MAX_SILENCE_S
        document: dict[str, Any] = {"alive": alive, "supervisor_heard_s_ago": round(silent_s, 3)}
        if not alive:
            document["error"] = (
                f"nothing heard of the supervisor for {silent_s:.1f} s, expected at most {MAX_SILENCE_S} s"
            )
        return _page(alive, document)

    def _ready(self) -> Reply:
        table = self._table()
        ready = readiness.is_ready(table) and not self.leaving
        document: dict[str, Any] = {"ready": ready, "leaving": self.leaving, "missing": readiness.missing(table)}
        if table.epoch <= 0:
            document["error"] = readiness.NO_ROUTES_YET
        return _page(ready, document)

    def _model(self, name: str) -> Reply:
        model = next((model for model in self._table().models if model.name == name), None)
        if model is None:
            return _page(False, {"ready": False, "model": name, "error": "no such model is configured"}, 404)
        reason = readiness.why_not(model)
        ready = not reason and not self.leaving
        return _page(ready, {"ready": ready, "leaving": self.leaving, "model": name, "error": reason})


def _page(good: bool, document: dict[str, Any], bad_status: int = 503) -> Reply:
    return Reply(200 if good else bad_status, json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
