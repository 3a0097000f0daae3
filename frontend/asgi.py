"""TF Serving's REST API as an ASGI app: path and body in, JSON out (model_servers/http_server.cc). In the event loop.

It neither parses the JSON of a request nor writes that of a prediction: the worker, which knows the signature, does.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from html import escape
from typing import Any

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Code, PoolError, Unimplemented

from . import model_status, request_body, rest_path
from .core import Answer, Core
from .model_spec import ModelSpec
from .request_body import BodyTooLarge, ClientGone, Receive
from .rest_path import Verb
from .status_map import http_status

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]

_JSON = b"application/json"
_HTML = b"text/html; charset=utf-8"
_TEXT = b"text/plain"
_STATUS_PATH = b"/pool/v1/status"


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    content_type: bytes = _JSON
    code: Code = Code.OK


@dataclass(slots=True)
class _Counted:
    """What the metrics are told of a request, as far as it has been read. `counts`: it is one of TF Serving's calls."""

    started_ns: int
    counts: bool = False
    api: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where the page of all metrics is served ("": nowhere), who makes it, and who counts finished requests.

    `finished` is told the verb of a POST in small letters ("" for GET), the model as the client names it, the status,
    and when the request came (CLOCK_MONOTONIC).
    """

    path: str
    page: Callable[[], Awaitable[bytes]]
    finished: Callable[[str, str, Code, int], None]


class RestApp:
    """`pool_status` asks the supervisor; a `timeout_s` of 0 or less means none."""

    def __init__(
        self,
        core: Core,
        pool_status: Callable[[], Awaitable[bytes]],
        timeout_s: float,
        max_request_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._metrics_path = metrics.path.encode()
        self._core = core
        self._pool_status = pool_status
        self._timeout_s = timeout_s
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        counted = _Counted(time.monotonic_ns())
        code = Code.CANCELLED
        try:
            reply = await self._reply(scope, receive, counted)
            code = reply.code
        except ClientGone:
            return
        finally:
            if counted.counts:
                self._metrics.finished(counted.api, counted.model, code, counted.started_ns)
        headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Scope, receive: Receive, counted: _Counted) -> _Reply:
        try:
            return await self._answer(scope, receive, counted)
        except ClientGone:
            raise
        except rest_path.VersionOverflow:
            counted.counts = False  # TF Serving returns before it counts
            return _Reply(400, b"")
        except BodyTooLarge as error:
            return _error(413, error.message, error.status.code)
        except PoolError as error:
            return _error(http_status(error.status.code), error.message, error.status.code)
        except Exception:
            log.exception("REST handler failed %s", fields(path=scope["path"]))
            return _error(500, "Internal error of the frontend, see its log", Code.INTERNAL)

    async def _answer(self, scope: Scope, receive: Receive, counted: _Counted) -> _Reply:
        path: bytes = scope["raw_path"]
        method: str = scope["method"]
        if path == _STATUS_PATH and method == "GET":
            return _Reply(200, await self._pool_status())
        query: bytes = scope["query_string"]
        if self._metrics_path and path == self._metrics_path:
            return await self._metrics_reply(query)
        if not path.startswith(b"/v1/"):
            return _not_found(path)
        if method == "OPTIONS":
            return _Reply(200 if _has_web_origin(scope) else 400, b"")
        counted.counts = True
        call = rest_path.parse(method, path + b"?" + query if query else path)
        counted.api, counted.model = call.verb if method == "POST" else "", call.spec.name
        if call.verb is Verb.STATUS:
            return _Reply(200, model_status.rest_reply(self._core.routes, call.spec))
        if call.verb is not Verb.PREDICT:
            raise Unimplemented(f"{call.verb} over REST is not implemented yet")
        return await self._predict(scope, receive, call.spec)

    async def _metrics_reply(self, query: bytes) -> _Reply:
        """TF Serving compares path and query with the path it serves (http_server.cc, ProcessPrometheusRequest)."""
        if not query:
            return _Reply(200, await self._metrics.page(), _TEXT)
        path = self._metrics_path
        text = b"Unexpected path: %s?%s. Should be %s" % (path, query, path)
        return _Reply(400, text, _TEXT, Code.INVALID_ARGUMENT)

    async def _predict(self, scope: Scope, receive: Receive, spec: ModelSpec) -> _Reply:
        deadline_ns = data.NO_DEADLINE_NS
        if self._timeout_s > 0:
            deadline_ns = time.monotonic_ns() + int(self._timeout_s * 1e9)
        body = await request_body.read(scope["headers"], receive, self._max_request_bytes)
        code, reply = await self._forward(body, spec, deadline_ns, receive)
        if code is Code.OK:
            return _Reply(200, reply)
        return _error(http_status(code), reply.decode("utf-8", "replace"), code)

    async def _forward(self, body: bytes, spec: ModelSpec, deadline_ns: int, receive: Receive) -> Answer:
        """The core's answer; the request is dropped when the client goes away first (ClientGone)."""
        pending = self._core.submit(data.Method.REST_PREDICT, body, spec, deadline_ns)
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(lambda _: pending.answer.cancel())
        try:
            return await pending.answer
        except asyncio.CancelledError:
            if gone.done() and not gone.cancelled():
                raise ClientGone from None
            raise
        finally:
            gone.cancel()
            self._core.drop(pending)


def _error(status: int, message: str, code: Code) -> _Reply:
    text = json.dumps({"error": message}, ensure_ascii=False)
    return _Reply(status, text.encode("utf-8", "replace"), code=code)


def _not_found(path: bytes) -> _Reply:
    """Outside of /v1/ TF Serving's HTTP library answers for itself, in HTML."""
    shown = escape(path.decode("utf-8", "replace"))
    page = (
        "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n"
        f"<P>The requested URL {shown} was not found on this server.</P>\n</BODY></HTML>\n"
    )
    return _Reply(404, page.encode(), _HTML)


def _has_web_origin(scope: Scope) -> bool:
    return any(name == b"origin" and (b"http://" in value or b"https://" in value) for name, value in scope["headers"])
