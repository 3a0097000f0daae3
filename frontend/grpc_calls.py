"""What an RPC is here, apart from any gRPC library: bytes in, bytes out or a PoolError. Pure; the seam of the engines.

The handlers (`grpc_handlers`, `health`, `reflection`, `profiler`) are written against this, and both engines
(`grpc_server` on grpcio; `grpc_asgi` and, for models, `grpc_direct` in Envoy) call them. An engine turns a PoolError
into a status, its text cut by `truncated`, with its `retry_metadata`; anything else that a handler raises is a bug,
logged and answered with `BUG`. It cancels the handler of a call whose client is gone, or whose deadline has passed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelpool.supervisor.wire.status import PoolError

from .forward import Forward

BUG = "Internal error of the frontend, see its log"


class Call(Protocol):
    """One call, as far as a handler may ask. `deadline_ns` is on CLOCK_MONOTONIC, `data.NO_DEADLINE_NS` for none."""

    @property
    def deadline_ns(self) -> int: ...

    def metadata(self, key: str) -> str | None:
        """The first value that the client sent for a key in small letters; None without one."""


Unary = Callable[[bytes, Call], Awaitable[bytes]]
Stream = Callable[[AsyncIterator[bytes], Call], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Methods:
    """Handlers by path (`/package.Service/Method`). A streaming method may stream either way.

    `forwards` has, of the unary ones that a model answers, what an engine needs that has no coroutine for each call.
    """

    unary: Mapping[str, Unary] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    forwards: Mapping[str, Forward] = field(default_factory=dict)

    def __or__(self, other: "Methods") -> "Methods":
        return Methods(
            {**self.unary, **other.unary},
            {**self.streams, **other.streams},
            {**self.forwards, **other.forwards},
        )


def retry_metadata(error: PoolError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that says when to ask again: for gRPC's own retries (gRFC A6), and for others."""
    if not error.retry_after_ms:
        return ()
    seconds = -(-error.retry_after_ms // 1000)
    return (("grpc-retry-pushback-ms", str(error.retry_after_ms)), ("retry-after", str(seconds)))
