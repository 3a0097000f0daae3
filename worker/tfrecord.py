"""TFRecord files, read and written by TensorFlow's own code. Needs TensorFlow; any thread of the worker."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.python.lib.io import _pywrap_record_io

from modelpool.supervisor.wire.status import Code, PoolError

from . import errors

# A length and two checksums (TensorFlow's lib/io/record_writer.h).
_FRAMING_BYTES = 16


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


class Appender:
    """A new file, or one emptied, to which records are written one by one. Methods raise PoolError."""

    def __init__(self, file: str) -> None:
        with errors.mapped():
            self._writer = tf.io.TFRecordWriter(file)

    def write(self, record: bytes) -> None:
        with errors.mapped():
            self._writer.write(record)

    def flush(self) -> None:
        """Hand what was written to the kernel."""
        with errors.mapped():
            self._writer.flush()

    def close(self) -> None:
        with errors.mapped():
            self._writer.close()


def whole_bytes(file: str) -> int:
    """How many bytes of a file, from its start, are whole records. Raises PoolError when it cannot be read."""
    size = 0
    try:
        for record in read(file):
            size += len(record) + _FRAMING_BYTES
    except PoolError as error:
        if error.status.code is not Code.DATA_LOSS:
            raise
    return size
