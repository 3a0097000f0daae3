"""Which failures of a load another try would end the same with. Pure.

By the code alone, as far as it tells the model's own faults from those of the file system that it lies on. TensorFlow
gives FAILED_PRECONDITION to both (absl::ErrnoToStatusCode); what tells them apart is the errno's text, which its file
systems put behind the file's name (xla/tsl/platform/errors.cc, IOError).
"""

import errno
import os

from modelpool.supervisor.wire.status import Code, Status

# NOT_FOUND is not among them: a file may be on its way.
_CODES = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.DATA_LOSS,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
    }
)
# Errors of FAILED_PRECONDITION that pass without any change of the files: a FUSE file system whose server is gone, or
# a network one that is being mounted.
_PASSING = tuple(f"; {os.strerror(number)}" for number in (errno.ENOTCONN, errno.EBUSY, errno.ESHUTDOWN, errno.EPIPE))


def is_permanent(status: Status) -> bool:
    """Whether only a change of the model's files, or of its configuration, could help."""
    if status.code is Code.FAILED_PRECONDITION and any(text in status.message for text in _PASSING):
        return False
    return status.code in _CODES
