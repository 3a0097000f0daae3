"""What malloc keeps of the memory that was freed. Any process.

Large payloads come and go in many parts, some of which lie between what stays. glibc gives such memory back only when
it is told to (malloc_trim(3)); measured on a frontend after bursts of 4 MB tensors: 86 to 94 MiB instead of 106 to 190.
"""

import ctypes
import threading

# Another libc has none, and keeps less.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Begin to give it back. In a thread of its own, because it takes some milliseconds."""
    if _malloc_trim is not None:
        threading.Thread(target=_malloc_trim, args=(ctypes.c_size_t(0),), name="trim", daemon=True).start()
