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
        raise StatusError(Status(_code(error.error_code), error.message or str(error))) from error


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what TensorFlow raises in the block into PoolError; op errors keep their code."""
    try:
        with mapped_ops():
            yield
    except PoolError:
        raise
    except MemoryError as error:
        raise StatusError(Status(Code.RESOURCE_EXHAUSTED, f"Out of memory: {error}")) from error
    except (ValueError, TypeError) as error:
        raise InvalidArgument(str(error)) from error
    except (RuntimeError, OSError, KeyError, AttributeError) as error:
        raise Internal(f"{type(error).__name__}: {error}") from error


def _code(number: int) -> Code:
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN
