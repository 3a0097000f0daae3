"""TensorFlow's exceptions as this project's errors: the one place where they enter. Needs TensorFlow."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from modelpool.supervisor.wire.status import Code, Internal, InvalidArgument, PoolError, Status, StatusError


@contextmanager
def mapped_ops() -> Iterator[None]:
    """Turn TensorFlow's own errors into PoolError and let others through."""
    try:
        yield
    except tf.errors.OpError as error:
        raise translated(error) from error


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what TensorFlow raises in the block into PoolError; op errors keep their code."""
    try:
        yield
    except FOREIGN as error:
        raise translated(error) from error


FOREIGN = (tf.errors.OpError, MemoryError, ValueError, TypeError, RuntimeError, OSError, KeyError, AttributeError)


def translated(error: Exception) -> PoolError:
    """One of FOREIGN, that TensorFlow raised, as this project's."""
    if isinstance(error, tf.errors.OpError):
        return StatusError(Status(_code(error.error_code), error.message or str(error)))
    if isinstance(error, MemoryError):
        return StatusError(Status(Code.RESOURCE_EXHAUSTED, f"Out of memory: {error}"))
    if isinstance(error, ValueError | TypeError):
        return InvalidArgument(str(error))
    return Internal(f"{type(error).__name__}: {error}")


def _code(number: int) -> Code:
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN
