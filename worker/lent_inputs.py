"""Arrays that were fed to TensorFlow, and that it keeps after the run: how to have them back. Needs TensorFlow.

An output may lie where an input does (identity, reshape). When such an output is dropped TensorFlow notes that the
array that was fed is to be let go of, and does it at the end of its next run, of whatever session
(python/lib/core/ndarray_tensor_bridge.cc: DelayedNumpyDecref). Main thread.
"""

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from modelpool.supervisor.wire.log import fields

from . import errors

log = logging.getLogger(__name__)

_IN_CALLERS_THREAD = -1


class LentInputs:
    """Of the whole process; what it takes is made when it is first needed."""

    def __init__(self) -> None:
        self._run_nothing: Callable[[], Any] | None = None

    def have_back(self) -> None:
        """Those that are used no more. Takes some 20 us, and 2 ms for the first time; harmless at any time."""
        try:
            if self._run_nothing is None:
                self._run_nothing = _nothing()
            self._run_nothing()
        except errors.FOREIGN as error:
            log.warning("inputs may be kept until the next run %s", fields(error=error))


def _nothing() -> Callable[[], Any]:
    """A run of nothing, in a session of its own: to prepare one in the model's would copy and search its graph."""
    graph = tf.Graph()
    with graph.as_default():
        name = tf.no_op().name
    session = tf.compat.v1.Session(graph=graph, config=config_pb2.ConfigProto(device_count={"GPU": 0}))
    options = config_pb2.CallableOptions(target=[name])
    options.run_options.inter_op_thread_pool = _IN_CALLERS_THREAD
    made: Callable[[], Any] = session._make_callable_from_options(options)  # it holds the session
    return made
