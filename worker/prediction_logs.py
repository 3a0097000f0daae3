"""The PredictionLogs of a file under `assets.extra`: its records parsed, counted and bounded. Pure but for `exists`.

TF Serving: servables/tensorflow/saved_model_warmup_util.cc, RunSavedModelWarmup.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from modelpool.supervisor.wire.status import Code, DataLoss, InvalidArgument, PoolError, Status, StatusError

MAX_RECORDS = 1000
_ECHO_BYTES = 64


@dataclass(frozen=True, slots=True)
class LogFile:
    """A kind of file: its name in `assets.extra`, and what its error texts call its records and itself."""

    name: str
    record: str
    data: str

    def path(self, version_dir: str) -> str:
        return os.path.join(version_dir, "assets.extra", self.name)


WARMUP = LogFile("tf_serving_warmup_requests", "warmup", "warmup data is")
GOLDEN = LogFile("golden_requests", "golden", "golden requests are")


def exists(kind: LogFile, path: str) -> bool:
    """Whether there is something at `path`, be it a link to nothing, which must not pass for no file at all.

    Raises PoolError where it cannot be told: PERMISSION_DENIED, UNAVAILABLE for all else.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        code = Code.PERMISSION_DENIED if isinstance(error, PermissionError) else Code.UNAVAILABLE
        text = f"Could not look for {kind.record} requests at {path}: {error.strerror}"
        raise StatusError(Status(code, text)) from error
    return True


def parsed(kind: LogFile, path: str, records: Iterable[bytes]) -> Iterator[Any]:
    """Each record as a PredictionLog. Raises PoolError: DATA_LOSS, unparsable, or more than MAX_RECORDS."""
    for index, raw in enumerate(_readable(kind, records)):
        if index == MAX_RECORDS:
            raise InvalidArgument(f"Number of {kind.record} records exceeds the maximum ({MAX_RECORDS}) at {path}")
        try:
            yield prediction_log_pb2.PredictionLog.FromString(raw)
        except DecodeError as error:
            raise InvalidArgument(f"Failed to parse {kind.record} record: {raw[:_ECHO_BYTES]!r} from {path}") from error


def _readable(kind: LogFile, records: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from records
    except PoolError as error:
        if error.status.code is not Code.DATA_LOSS:
            raise
        raise DataLoss(f"{error.status.message}. Please verify your {kind.data} in TFRecord format.") from error
