"""Which errors mean that a process can use its GPU no more."""

import pytest

from modelpool.supervisor.wire.status import Code
from modelpool.worker import cuda


@pytest.mark.parametrize(
    ("code", "text", "lost"),
    [
        (Code.INTERNAL, "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", True),
        (Code.INTERNAL, "Failed to launch gpuprim::X, status: an illegal memory access was encountered", True),
        (Code.UNKNOWN, "cudaGetLastError: unspecified launch failure", True),
        (Code.INTERNAL, "could not synchronize on CUDA context: CUDA_ERROR_LAUNCH_FAILED", True),
        (Code.RESOURCE_EXHAUSTED, "CUDA_ERROR_OUT_OF_MEMORY: out of memory", False),
        (Code.INTERNAL, "CUDA_ERROR_OUT_OF_MEMORY: out of memory", False),
        (Code.INTERNAL, "CUDA_ERROR_ASSERTION_OF_SOMETHING_ELSE", False),
        (Code.INVALID_ARGUMENT, "could not convert string: CUDA_ERROR_LAUNCH_FAILED", False),
        (Code.INTERNAL, "", False),
    ],
)
def test_a_lost_context_is_told_from_a_failed_request(code: Code, text: str, lost: bool) -> None:
    assert cuda.is_lost(code, text.encode()) is lost
