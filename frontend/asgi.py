"""TF Serving's REST API as an ASGI app: path and body in, JSON out (model_servers/http_server.cc). In the event loop.

It neither parses the JSON of a request nor writes that of a prediction: the worker, which knows the signature, does.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.data import Method
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.status import Code, InvalidArgument, PoolError

from . import model_spec, model_status, request_body, rest_path, rest_reply
from .core import Core
from .health_pages import HealthPages
from .in_flight import Answer
from .intake import Intake
from .model_spec import ModelSpec
from .request_body import BodyTooLarge, ClientGone, Receive
from .rest_path import RestCall, Verb
from .rest_reply import Reply
from .status_map import http_status

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]

_STATUS_PATH = b"/pool/v1/status"
# HTTP/2 has no such header; there the engine says GOAWAY.
_KEEPS_CONNECTIONS = ("1.0", "1.1")
# What the worker is asked to do: for a JSON body, and for a serialized request of the gRPC API.
_METHODS = {
    Verb.PREDICT: (Method.REST_PREDICT, Method.PREDICT),
    Verb.CLASSIFY: (Method.REST_CLASSIFY, Method.CLASSIFY),
    Verb.REGRESS: (Method.REST_REGRESS, Method.REGRESS),
}


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


@dataclass(frozen=True, slots=True)
class RestOptions:
    """A `timeout_s` of 0 or less means none; `cors`: every reply gets CORS headers."""

    timeout_s: float
    max_request_bytes: int
    cors: bool = False


class RestApp:
    """`pool_status` asks the supervisor; `intake` is the room for bodies that are still on their way."""

    def __init__(
        self,
        core: Core,
        pool_status: Callable[[], Awaitable[bytes]],
        options: RestOptions,
        metrics: Metrics,
        pages: HealthPages,
        *,
        intake: Intake | None = None,
    ) -> None:
        self._pages = pages
        self._intake = intake or Intake()
        self._metrics = metrics
        self._metrics_path = metrics.path.encode()
        self._core = core
        self._pool_status = pool_status
        self._options = options

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
        headers = reply.headers(self._options.cors)
        if self._pages.leaving and scope["http_version"] in _KEEPS_CONNECTIONS:
            headers = (*headers, (b"connection", b"close"))  # the client's next connection goes elsewhere
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Scope, receive: Receive, counted: _Counted) -> Reply:
        try:
            return await self._answer(scope, receive, counted)
        except ClientGone:
            raise
        except rest_path.VersionOverflow:
            counted.counts = False  # TF Serving returns before it counts
            return Reply(400, b"")
        except BodyTooLarge as error:
            return rest_reply.error(413, error.message, error.status.code)
        except PoolError as error:
            code = error.status.code
            return rest_reply.error(http_status(code), error.message, code, error.retry_after_ms)
        except Exception:
            log.exception("REST handler failed %s", fields(path=scope["path"]))
            return rest_reply.error(500, "Internal error of the frontend, see its log", Code.INTERNAL)

    async def _answer(self, scope: Scope, receive: Receive, counted: _Counted) -> Reply:
        path: bytes = scope["raw_path"]
        method: str = scope["method"]
        if path == _STATUS_PATH and method == "GET":
            return Reply(200, await self._pool_status())
        query: bytes = scope["query_string"]
        if self._metrics_path and path == self._metrics_path:
            return await self._metrics_reply(query)
        if not path.startswith(b"/v1/"):
            page = self._pages.reply(method, path)
            if page is not None:
                return page
            return rest_reply.not_found(path)
        if method == "OPTIONS":
            return Reply(200 if _has_web_origin(scope) else 400, b"")
        counted.counts = True
        call = rest_path.parse(method, path + b"?" + query if query else path)
        counted.api, counted.model = call.verb if method == "POST" else "", call.spec.name
        if call.verb is Verb.STATUS:
            return Reply(200, model_status.rest_reply(self._core.routes, call.spec))
        deadline_ns = data.NO_DEADLINE_NS
        if self._options.timeout_s > 0:
            deadline_ns = counted.started_ns + int(self._options.timeout_s * 1e9)
        with self._intake.place() as place:
            limit_bytes = self._options.max_request_bytes
            body = await request_body.read(scope["headers"], receive, limit_bytes, deadline_ns, place.came)
        if call.verb is Verb.METADATA:
            return await self._forward(Method.REST_METADATA, b"", call.spec, deadline_ns, receive)
        return await self._infer(scope, receive, call, body, deadline_ns)

    async def _metrics_reply(self, query: bytes) -> Reply:
        """TF Serving compares path and query with the path it serves (http_server.cc, ProcessPrometheusRequest)."""
        if not query:
            return Reply(200, await self._metrics.page(), rest_reply.TEXT)
        path = self._metrics_path
        text = b"Unexpected path: %s?%s. Should be %s" % (path, query, path)
        return Reply(400, text, rest_reply.TEXT, Code.INVALID_ARGUMENT)

    async def _infer(self, scope: Scope, receive: Receive, call: RestCall, body: Payload, deadline_ns: int) -> Reply:
        """Predict, classify or regress, by a JSON body or by a serialized request of the gRPC API."""
        method, of_protobuf = _METHODS[call.verb]
        if _is_protobuf(scope["headers"]):
            _require_same_model(call.spec, body)
            method = of_protobuf
        return await self._forward(method, body, call.spec, deadline_ns, receive)

    async def _forward(
        self, method: Method, body: Payload, spec: ModelSpec, deadline_ns: int, receive: Receive
    ) -> Reply:
        """The worker's answer as a reply, in the format of the request."""
        code, answer = await self._call(method, body, spec, deadline_ns, receive)
        if code is not Code.OK:
            return rest_reply.error(http_status(code), answer.decode("utf-8", "replace"), code)
        is_protobuf = any(method is of_protobuf for _, of_protobuf in _METHODS.values())
        return Reply(200, answer, rest_reply.PROTOBUF if is_protobuf else rest_reply.JSON)

    async def _call(self, method: Method, body: Payload, spec: ModelSpec, deadline_ns: int, receive: Receive) -> Answer:
        """The core's answer; the request is dropped when the client goes away first (ClientGone)."""
        pending = self._core.submit(method, body, spec, deadline_ns)
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


def _is_protobuf(headers: request_body.Headers) -> bool:
    """Whether the body is a serialized message. TF Serving takes any other content type for JSON."""
    types = [value for name, value in headers if name == b"content-type"]
    return bool(types) and types[-1].partition(b";")[0].strip().lower() == rest_reply.PROTOBUF


def _require_same_model(spec: ModelSpec, body: Payload) -> None:
    """The path says which model and version; a body may name the model, too. Raises InvalidArgument, Internal."""
    sent = model_spec.read(body)
    if sent is not None and sent.name not in ("", spec.name):
        raise InvalidArgument(
            f"model_spec.name of the body: expected {spec.name!r} as in the path, or nothing, got {sent.name!r}"
        )


def _has_web_origin(scope: Scope) -> bool:
    return any(name == b"origin" and (b"http://" in value or b"https://" in value) for name, value in scope["headers"])
