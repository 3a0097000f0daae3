"""Replays a model's warmup records before it serves. Needs TensorFlow; main thread of the worker.

TF Serving: servables/tensorflow/saved_model_warmup.cc and saved_model_warmup_util.cc.
"""

import logging
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.lib.io import _pywrap_record_io
from tensorflow_serving.apis import prediction_log_pb2

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import DataLoss, InvalidArgument, Unimplemented

from .predict import Predictor

log = logging.getLogger(__name__)

MAX_RECORDS = 1000
_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# Kinds that TF Serving replays and this server does not serve yet.
_NOT_SERVED = frozenset({"classify_log", "regress_log", "multi_inference_log"})


def warm_up(predictor: Predictor, path: str, iterations: int) -> int:
    """Run every record `iterations` times; how many records there were. Raises PoolError at the first that fails.

    The model that a record names is ignored, as is a record of no kind.
    """
    file = os.path.join(path, _FILE)
    count = 0
    for raw in _records(file):
        if count == MAX_RECORDS:
            raise InvalidArgument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
        count += 1
        record = _parse(raw)
        for _ in range(iterations):
            _replay(predictor, record)
    return count


def _records(file: str) -> Iterator[bytes]:
    if not os.path.exists(file):
        return
    try:
        # What the deprecated tf_record_iterator calls; the other reader, tf.data, would start the eager runtime.
        yield from _pywrap_record_io.RecordIterator(file, "")
    except tf.errors.DataLossError as error:
        raise DataLoss(f"{error.message}. Please verify your warmup data is in TFRecord format.") from error


def _parse(raw: bytes) -> Any:
    try:
        return prediction_log_pb2.PredictionLog.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(f"Failed to parse warmup record: {raw[:64]!r} from {len(raw)} bytes: {error}") from error


def _replay(predictor: Predictor, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    if kind is None:
        return
    if kind == "predict_log":
        predictor.respond(record.predict_log.request)
    elif kind in _NOT_SERVED:
        log.warning("warmup record skipped %s", fields(kind=kind, why="this call is not served yet"))
    else:
        number = record.DESCRIPTOR.fields_by_name[kind].number
        raise Unimplemented(f"Unsupported log_type for warmup: {number}")
