"""Status codes and the one error hierarchy. Every error carries its gRPC code on its class.

Foreign exceptions (TensorFlow, ZeroMQ, the OS) are mapped to these where they enter.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

MAX_MESSAGE_BYTES = 1024
_TRUNCATED = "...TRUNCATED"


class Code(IntEnum):
    """gRPC status codes, which are also `tensorflow.error.Code`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True, order=True)
class Status:
    """A code and its text; `OK` with no text when all is well."""

    code: Code = Code.OK
    message: str = ""

    def __str__(self) -> str:
        return self.code.name if self.code is Code.OK else f"{self.code.name}: {self.message}"


OK = Status()


class PoolError(Exception):
    """Root of all errors that a client or an operator may see.

    `retry_after_ms`: in about what time the client may ask again; 0: nothing is said of it.
    """

    code: ClassVar[Code] = Code.UNKNOWN
    retry_after_ms: int = 0

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""

    @property
    def status(self) -> Status:
        return Status(self.code, self.message)


class InvalidArgument(PoolError):
    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(PoolError):
    code = Code.DEADLINE_EXCEEDED


class NotFound(PoolError):
    code = Code.NOT_FOUND


class AlreadyExists(PoolError):
    code = Code.ALREADY_EXISTS


class ResourceExhausted(PoolError):
    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(PoolError):
    code = Code.FAILED_PRECONDITION


class Unimplemented(PoolError):
    code = Code.UNIMPLEMENTED


class Internal(PoolError):
    code = Code.INTERNAL


class Unavailable(PoolError):
    code = Code.UNAVAILABLE


class Overloaded(Unavailable):
    """There is no room for one more request now."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class DataLoss(PoolError):
    code = Code.DATA_LOSS


class StatusError(PoolError):
    """An error whose code is known only at run time, such as one that TensorFlow raised or a peer sent."""

    def __init__(self, status: Status, retry_after_ms: int = 0) -> None:
        super().__init__(status.message)
        self._status = status
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> Status:
        return self._status


def truncated(message: str) -> str:
    """Cut an error text to what TF Serving sends: 1024 bytes of UTF-8, then a mark (util/grpc_status_util.cc)."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return message
    keep = MAX_MESSAGE_BYTES - len(_TRUNCATED)
    return raw[:keep].decode("utf-8", "ignore") + _TRUNCATED
