"""One RPC that a model's worker answers: read which model, forward, tell of the end. In the event loop.

It has two ways to the same end: `call` waits in a coroutine, as gRPC libraries want it; `begin`, `drop` and `finished`
are the parts of it, for an engine that has no coroutine for each call.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from modelpool.supervisor.wire import data
from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.status import Code, PoolError, Status, StatusError

from .core import Core
from .in_flight import Pending
from .model_spec import ModelSpec

ReadSpec = Callable[[Payload], ModelSpec | None]

# What is told of each finished call of a model: the RPC's name, the model as the client names it ("" for none), the
# status, and when the call began (CLOCK_MONOTONIC).
OnFinished = Callable[[str, str, Code, int], None]


class Forward:
    """The RPC `api`, asked of workers as `method`. `read`: the model of a request; raises PoolError."""

    __slots__ = ("_core", "begin", "finished", "method", "read")

    def __init__(self, core: Core, api: str, method: data.Method, read: ReadSpec, on_finished: OnFinished) -> None:
        self._core = core
        self.method = method
        self.read = read
        self.begin: Callable[[Pending], None] = core.begin
        """Send it, a request of `method`; it gets the answer later. Raises PoolError."""
        self.finished: Callable[[str, Code, int], None] = partial(on_finished, api)
        """To be told of each call once, when it has its answer or needs none any more: model, code, when it began."""

    async def call(self, request: Payload, deadline_ns: int) -> bytes:
        """The reply. Raises PoolError; cancelled when the client is gone, or its deadline has passed."""
        started_ns = time.monotonic_ns()
        model = ""
        code = Code.INTERNAL
        try:
            spec = self.read(request)
            model = "" if spec is None else spec.name
            code, reply = await self._core.call(self.method, request, spec, deadline_ns)
        except PoolError as error:
            code = error.status.code
            raise
        except asyncio.CancelledError:
            code = _code_of_cancelled(deadline_ns)
            raise
        finally:
            self.finished(model, code, started_ns)
        if code is not Code.OK:
            raise StatusError(Status(code, reply.decode("utf-8", "replace")))
        return reply

    def drop(self, pending: Pending) -> Code:
        """Its client is gone; the code of such a call."""
        self._core.drop(pending)
        return _code_of_cancelled(pending.deadline_ns)


def _code_of_cancelled(deadline_ns: int) -> Code:
    late = deadline_ns != data.NO_DEADLINE_NS and time.monotonic_ns() >= deadline_ns
    return Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
