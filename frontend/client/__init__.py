"""A client for TensorFlow Serving's gRPC API without TensorFlow: numpy in, numpy out, blocking or asyncio.

For user programs and for the commands of this server; the frontend that serves never imports it. It works with any
server of that API.
"""

from .asynchronous import AsyncClient
from .blocking import Client
from .errors import (
    Aborted,
    AlreadyExists,
    CallError,
    Cancelled,
    ClientError,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InputError,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from .results import Class, ModelMetadata, Prediction, Signature, TensorSpec, VersionStatus
from .tls import Tls

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "CallError",
    "Cancelled",
    "Class",
    "Client",
    "ClientError",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InputError",
    "Internal",
    "InvalidArgument",
    "ModelMetadata",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Prediction",
    "ResourceExhausted",
    "Signature",
    "TensorSpec",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "VersionStatus",
]
