"""TensorFlow's profiler, the one place where it is called. Needs TensorFlow; any thread, one trace at a time.

TensorFlow gives its lock back while it collects, so that requests go on. Its own class is used below
`tf.profiler.experimental`, which keeps one session for the whole process and warns of a second.
"""

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.python.profiler.internal import _pywrap_profiler
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from . import errors


class Trace:
    """One trace of this process, begun when it is made. Methods raise PoolError."""

    def __init__(self, directory: str) -> None:
        """`directory` must exist; `finish` writes below it."""
        self._directory = directory
        with errors.mapped():
            self._session: Any = _pywrap_profiler.ProfilerSession()
            self._session.start(directory, {})

    def finish(self) -> Path:
        """End the trace: the file of its XSpace, somewhere below the directory."""
        with errors.mapped():
            self._session.export_to_tb()
            return next(Path(self._directory).rglob("*.xplane.pb"))


def is_empty(file: Path) -> bool:
    """Whether an XSpace has no event (TensorFlow's profiler/utils/xplane_utils.cc, IsEmpty)."""
    try:
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    except DecodeError:
        # Names that are not UTF-8 stand in it, which TensorFlow does not mind.
        return False
    return not any(line.events for plane in space.planes for line in plane.lines)
