"""Runs a model before it serves, so that no client waits for what a first run costs. Pure but for the model.

Main thread of the worker. From the model's warmup records, after TF Serving's servables/tensorflow/
saved_model_warmup.cc; or, for a model without them whose owner wants it, from its signatures.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import InvalidArgument, PoolError
from modelpool.supervisor.wire.tensors import DTYPES, dtype_name

from . import prediction_logs
from .calls import Calls
from .plan import Model

log = logging.getLogger(__name__)

# What TensorFlow keeps among the signatures for itself: it initializes the model, or trains it.
_NOT_FOR_SERVING = frozenset({"__saved_model_init_op", "__saved_model_train_op"})
# A made-up input larger than this says more of the signature than it would warm.
MAX_MADE_UP_BYTES = 256 << 20


def warm_up(calls: Calls, path: str, records: Iterable[bytes], iterations: int) -> int:
    """Run every record `iterations` times; how many records there were. Raises PoolError at the first that fails.

    `records` are those of the file `path`. The model that a record names is ignored, as is a record of no kind.
    """
    count = 0
    for record in prediction_logs.parsed(prediction_logs.WARMUP, path, records):
        for _ in range(iterations):
            calls.answer(record, "warmup")
        count += 1
    return count


def auto_warm_up(model: Model) -> int:
    """Run each signature once on made-up inputs; how many runs succeeded. A failure is logged and is no error.

    Inputs are zeros or empty strings (which a signature that parses tf.Examples may rightly refuse), and the
    signature's own defaults where it has any; unknown dimensions are 1, an unknown rank is [1]. A signature that
    changes the model's state changes it here, too: this is for models whose owner has asked for it.
    """
    succeeded = 0
    for key in sorted(set(model.signatures) - _NOT_FOR_SERVING):
        signature = model.signatures[key]
        try:
            feeds = {info.name: _made_up(signature, alias) for alias, info in signature.inputs.items()}
            model.run(feeds, [signature.outputs[alias].name for alias in sorted(signature.outputs)])
            succeeded += 1
        except PoolError as error:
            log.warning("auto warmup run failed %s", fields(signature=key, error=error.status))
    return succeeded


def _made_up(signature: Any, alias: str) -> np.ndarray:
    """Raises InvalidArgument for a dtype that is not served, or a size that is out of all proportion."""
    if alias in signature.defaults:
        return tensors.decode(alias, signature.defaults[alias])
    info = signature.inputs[alias]
    dtype = DTYPES.get(info.dtype)
    if dtype is None:
        raise InvalidArgument(f"{alias}: dtype {dtype_name(info.dtype)} is not supported")
    unknown_rank = info.tensor_shape.unknown_rank or not info.HasField("tensor_shape")
    shape = [1] if unknown_rank else [dim.size if dim.size >= 0 else 1 for dim in info.tensor_shape.dim]
    if math.prod(shape) * dtype.numpy.itemsize > MAX_MADE_UP_BYTES:
        raise InvalidArgument(f"{alias}: shape {shape} takes more than {MAX_MADE_UP_BYTES} bytes")
    if dtype.stored.kind == "O":
        return np.full(shape, b"", object)
    return np.zeros(shape, dtype.numpy)
