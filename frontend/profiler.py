"""tensorflow.ProfilerService on the gRPC port: which worker is traced, asked over the control plane. In the event loop.

A ProfileRequest names no model, because TensorFlow Serving's models share one process. Here the metadata
`modelpool-model` does, as NAME or NAME/VERSION; without it the one model that is served is meant, if it is the only
one. Where files may go is the supervisor's to judge.
TF Serving: model_servers/server.cc (enable_profiler), TensorFlow's profiler/rpc/profiler_service_impl.cc.
"""

import asyncio
from collections.abc import Awaitable, Callable

from modelpool.supervisor.wire.client_messages import ProfileOf
from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.route_table import RouteTable
from modelpool.supervisor.wire.states import ServableState
from modelpool.supervisor.wire.status import Code, InvalidArgument, Status, StatusError, Unimplemented
from modelpool.supervisor.wire.worker_messages import Profile, Profiled

from .grpc_calls import Call, Methods
from .profiler_protos import ProfileRequest, ProfileResponse, TerminateRequest, TerminateResponse

SERVICE = "tensorflow.ProfilerService"
MODEL_KEY = "modelpool-model"

# Has the supervisor carry out what the function makes of a token.
Ask = Callable[[Callable[[int], ProfileOf]], Awaitable[Profiled]]


class ProfilerHandlers:
    """Profile, Terminate and Monitor. `end` ends the traces of a session."""

    def __init__(self, routes: Callable[[], RouteTable], ask: Ask, end: Callable[[str], None]) -> None:
        self._routes = routes
        self._ask = ask
        self._end = end
        self.methods = Methods(
            {
                f"/{SERVICE}/Profile": self._profile,
                f"/{SERVICE}/Terminate": self._terminate,
                f"/{SERVICE}/Monitor": self._monitor,
            }
        )

    async def _profile(self, request: bytes, call: Call) -> bytes:
        asked = parse(ProfileRequest, request)
        if asked.emit_xspace:
            raise Unimplemented("emit_xspace: the trace is only written to repository_root")
        model, version = chosen(call.metadata(MODEL_KEY), self._routes())
        duration_s = (asked.opts.duration_ms or asked.duration_ms) / 1000
        try:
            answer = await self._ask(
                lambda token: ProfileOf(
                    model,
                    version,
                    Profile(token, duration_s, asked.repository_root, asked.session_id, asked.host_name),
                )
            )
        except asyncio.CancelledError:
            # The client is gone or out of time; the next one is not to be kept waiting.
            if asked.session_id:
                self._end(asked.session_id)
            raise
        if answer.code is not Code.OK:
            raise StatusError(Status(answer.code, answer.message))
        reply: bytes = ProfileResponse(empty_trace=answer.empty).SerializeToString()
        return reply

    async def _terminate(self, request: bytes, call: Call) -> bytes:
        """As TensorFlow's: OK whether or not there is such a session."""
        self._end(parse(TerminateRequest, request).session_id)
        reply: bytes = TerminateResponse().SerializeToString()
        return reply

    async def _monitor(self, request: bytes, call: Call) -> bytes:
        """TensorFlow's code and text."""
        raise Unimplemented("unimplemented.")


def chosen(metadata: str | None, table: RouteTable) -> tuple[str, int | None]:
    """The model to trace, and its version if one is named. Raises InvalidArgument."""
    if metadata is not None:
        name, slash, version = metadata.rpartition("/")
        if not slash:
            return metadata, None
        if not version.isascii() or not version.isdigit() or int(version) >= 1 << 63:
            raise InvalidArgument(f"metadata {MODEL_KEY}: expected NAME or NAME/VERSION, got {metadata!r}")
        return name, int(version)
    served = [
        model.name
        for model in table.models
        if any(version.state is ServableState.AVAILABLE for version in model.versions)
    ]
    if len(served) != 1:
        names = ", ".join(served) or "none"
        raise InvalidArgument(
            f"Which model to profile? Each runs in a process of its own: send the metadata {MODEL_KEY} with NAME or "
            f"NAME/VERSION, or use `modelpool profile NAME --logdir=DIR`. Served: {names}"
        )
    return served[0], None
