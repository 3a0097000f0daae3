"""Tells a lost CUDA context from an error of one request. Pure: texts only.

After some errors every further call of the process fails, the context is said to be sticky or corrupted, and only a new
process gets another (CUDA driver API, CUresult: "leaves the process in an inconsistent state ... the process must be
terminated and relaunched"). TensorFlow passes the driver's words on in the texts of its errors.
"""

import re

from modelpool.supervisor.wire.status import Code

# By the driver's names, and by its words where TensorFlow or a library gives those.
_STICKY = re.compile(
    rb"CUDA_ERROR_(?:ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|INVALID_ADDRESS_SPACE|INVALID_PC|MISALIGNED_ADDRESS"
    rb"|HARDWARE_STACK_ERROR|LAUNCH_FAILED|LAUNCH_TIMEOUT|ASSERT|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE"
    rb"|CONTEXT_IS_DESTROYED|DEINITIALIZED|MPS_CLIENT_TERMINATED|EXTERNAL_DEVICE|CONTAINED)\b"
    rb"|an illegal memory access was encountered|an illegal instruction was encountered|misaligned address"
    rb"|unspecified launch failure|device-side assert triggered|uncorrectable ECC error encountered"
    rb"|the launch timed out and was terminated|hardware stack error",
    re.IGNORECASE,
)


# An error that tells a client of its own input may repeat that word for word, and comes with another code.
_CODES = frozenset({Code.INTERNAL, Code.UNKNOWN})


def is_lost(code: Code, text: bytes) -> bool:
    """Whether an execution that ended so means that this process can use its GPU no more."""
    return code in _CODES and _STICKY.search(text) is not None
