"""The errors of the client: one hierarchy, each class with its gRPC code.

`CallError` and its subclasses are answers of a server, or of gRPC in its stead; where there was an RPC that failed, its
`grpc.RpcError` is the `__cause__`. `InputError` is raised before anything was sent. Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType

from modelpool.supervisor.wire.status import Code, PoolError

_NOTHING: Mapping[str, str] = MappingProxyType({})


class ClientError(PoolError):
    """Root of all errors of the client: `code` and `message`."""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class InputError(ClientError, ValueError):
    """The arguments cannot be made into a request; nothing was sent."""

    code = Code.INVALID_ARGUMENT


class CallError(ClientError):
    """A call that failed. `trailing` is the trailing metadata of the answer, by lower-case key."""

    def __init__(self, message: str, trailing: Mapping[str, str] = _NOTHING) -> None:
        super().__init__(message)
        self.trailing = trailing


class Cancelled(CallError):
    code = Code.CANCELLED


class InvalidArgument(CallError):
    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(CallError):
    code = Code.DEADLINE_EXCEEDED


class NotFound(CallError):
    code = Code.NOT_FOUND


class AlreadyExists(CallError):
    code = Code.ALREADY_EXISTS


class PermissionDenied(CallError):
    code = Code.PERMISSION_DENIED


class ResourceExhausted(CallError):
    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(CallError):
    code = Code.FAILED_PRECONDITION


class Aborted(CallError):
    code = Code.ABORTED


class OutOfRange(CallError):
    code = Code.OUT_OF_RANGE


class Unimplemented(CallError):
    code = Code.UNIMPLEMENTED


class Internal(CallError):
    code = Code.INTERNAL


class Unavailable(CallError):
    code = Code.UNAVAILABLE


class DataLoss(CallError):
    code = Code.DATA_LOSS


class Unauthenticated(CallError):
    code = Code.UNAUTHENTICATED


_BY_CODE: Mapping[Code, type[CallError]] = MappingProxyType({each.code: each for each in CallError.__subclasses__()})


def call_error(code: int, message: str, trailing: Mapping[str, str] = _NOTHING) -> CallError:
    """The error of a status that is not OK; of a code that no class has, the plain `CallError`, which is UNKNOWN."""
    known = {each.value for each in Code}
    return _BY_CODE.get(Code(code) if code in known else Code.UNKNOWN, CallError)(message, trailing)
