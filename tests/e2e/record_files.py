"""TFRecord files, read without TensorFlow: a length, its checksum, the data, its checksum. Checksums are not looked at.

That TensorFlow's own reader takes a file is shown where a worker warms itself with it.
"""

import struct
from pathlib import Path
from typing import Any

from tensorflow_serving.apis import prediction_log_pb2

_HEAD = struct.Struct("<QI")
_TAIL_BYTES = 4


def prediction_logs(file: Path) -> list[Any]:
    """The PredictionLogs of a file; a cut record at its end raises."""
    raw, at, found = file.read_bytes(), 0, []
    while at < len(raw):
        (length, _) = _HEAD.unpack_from(raw, at)
        start = at + _HEAD.size
        at = start + length + _TAIL_BYTES
        assert at <= len(raw), f"cut after {len(found)} records"
        found.append(prediction_log_pb2.PredictionLog.FromString(raw[start : start + length]))
    return found
