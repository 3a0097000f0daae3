"""TFRecord files, read and written by TensorFlow's own code. Needs TensorFlow; any thread of the worker."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.python.lib.io import _pywrap_record_io

from . import errors


def read(file: str) -> Iterator[bytes]:
    """The records of a file, which must exist. Raises PoolError: DATA_LOSS where it is no TFRecord file or is cut."""
    with errors.mapped():
        # What the deprecated tf_record_iterator calls; the other reader, tf.data, would start the eager runtime.
        records = _pywrap_record_io.RecordIterator(file, "")
    while True:
        with errors.mapped():
            record = next(records, None)
        if record is None:
            return
        yield record


def write(file: str, records: Iterable[bytes]) -> int:
    """Write a file, or replace it, in one step; how many records it has. Raises PoolError.

    Its directory is made where only that is missing, as `assets.extra` may be.
    """
    path = Path(file)
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    count = 0
    with errors.mapped():
        path.parent.mkdir(exist_ok=True)
        try:
            with tf.io.TFRecordWriter(str(unfinished)) as writer:
                for record in records:
                    writer.write(record)
                    count += 1
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return count
