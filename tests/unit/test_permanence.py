"""Which failed loads are tried again: those that the file system is to blame for, whatever code they come with."""

import pytest

from modelpool.supervisor.wire.status import Code, Status
from modelpool.worker import permanence

FILE = "/m/1/variables/variables.data-00000-of-00001"
RESTORE = "\n\t [[{{node save/RestoreV2}}]]"


@pytest.mark.parametrize(
    ("code", "text", "permanent"),
    [
        # As TensorFlow 2.21 writes them: the file, then what the errno means; a restoring operation names itself, too.
        (Code.FAILED_PRECONDITION, f"{FILE}; Transport endpoint is not connected", False),
        (Code.FAILED_PRECONDITION, f"{FILE}; Transport endpoint is not connected{RESTORE}", False),
        (Code.FAILED_PRECONDITION, f"{FILE}; Device or resource busy", False),
        (Code.FAILED_PRECONDITION, f"{FILE}; Is a directory", True),
        (Code.FAILED_PRECONDITION, 'Golden request 1 of /m/1: output "y": got 1, want 2', True),
        (Code.FAILED_PRECONDITION, "Attempting to use uninitialized value w", True),
        (Code.PERMISSION_DENIED, f"{FILE}; Permission denied", True),
        (Code.DATA_LOSS, f"{FILE}: Checksum does not match", True),
        (Code.NOT_FOUND, f"{FILE}; No such file or directory", False),
        (Code.ABORTED, f"{FILE}; Stale file handle", False),
        (Code.UNKNOWN, f"{FILE}; Input/output error", False),
        (Code.RESOURCE_EXHAUSTED, f"{FILE}; Cannot allocate memory", False),
    ],
)
def test_what_is_tried_again(code: Code, text: str, permanent: bool) -> None:
    assert permanence.is_permanent(Status(code, text)) is permanent
