"""What a failed look at a file system means as a status code. Pure.

Local errors follow absl::ErrnoToStatusCode, which TensorFlow's file systems use. What remote file systems raise is
less uniform (`OSError`, HTTP errors with a status, a client library's own): see `remote_code`.
"""

import errno

from .wire.status import Code, Status

_CODES = {
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.EROFS: Code.PERMISSION_DENIED,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENODEV: Code.NOT_FOUND,
    errno.ENXIO: Code.NOT_FOUND,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EISDIR: Code.FAILED_PRECONDITION,
    errno.EBUSY: Code.FAILED_PRECONDITION,
    errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
    errno.EDQUOT: Code.RESOURCE_EXHAUSTED,
    errno.ETIMEDOUT: Code.DEADLINE_EXCEEDED,
    errno.ESTALE: Code.ABORTED,
    errno.EAGAIN: Code.UNAVAILABLE,
    errno.EHOSTDOWN: Code.UNAVAILABLE,
    errno.EHOSTUNREACH: Code.UNAVAILABLE,
    errno.ENETUNREACH: Code.UNAVAILABLE,
    errno.ENOTCONN: Code.FAILED_PRECONDITION,
}

_HTTP_CODES = {
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    429: Code.RESOURCE_EXHAUSTED,
}


def local_code(error: OSError) -> Code:
    """The code of an error of the local file system; UNKNOWN for what absl does not know either."""
    return _CODES.get(error.errno or 0, Code.UNKNOWN)


def remote_code(error: Exception) -> Code:
    """The code of what a remote file system raised; UNAVAILABLE for all that is not known to be something else.

    The clients of object stores report a broken connection as nearly anything: s3fs as `OSError(EIO)`, gcsfs and
    aiohttp as exceptions with an HTTP status in `code` or `status`, botocore as its own classes.
    """
    match error:
        case FileNotFoundError():
            return Code.NOT_FOUND
        case PermissionError():
            return Code.PERMISSION_DENIED
        case TimeoutError():
            return Code.DEADLINE_EXCEEDED
        case NotImplementedError():
            return Code.UNIMPLEMENTED
        case OSError() if error.errno in _CODES:
            return _CODES[error.errno]
    for name in ("status", "code"):
        http = getattr(error, name, None)
        if isinstance(http, int) and http in _HTTP_CODES:
            return _HTTP_CODES[http]
    return Code.UNAVAILABLE


def describe(error: Exception) -> str:
    """A text that says something, also for exceptions whose own text is empty."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def base_path_missing(base_path: str, servable: str) -> Status:
    """The status of a base path that is not there, in TF Serving's words."""
    text = f"Could not find base path {base_path} for servable {servable} with error NOT_FOUND: {base_path} not found"
    return Status(Code.NOT_FOUND, text)
