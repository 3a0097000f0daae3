"""Loads a SavedModel, TF1 or TF2, into one session, and makes its calls. Needs TensorFlow; main thread.

Like TF Serving (servables/tensorflow/saved_model_bundle_factory.cc, TF core's cc/saved_model/loader.cc) it loads the
V1 view that every SavedModel carries: graph, restore op, init op, SignatureDefs. Calls go through
`Session._make_callable_from_options`, TensorFlow's own path below `make_callable`, a tenth of `Session.run`'s cost.
"""

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.saved_model import loader_impl

from modelpool.supervisor.wire import cpu_count
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import DataLoss, NotFound

from . import checkpoint_restore, errors, graph_state

log = logging.getLogger(__name__)

# Different output filters of one signature that are kept as ready callables.
MAX_CALLABLES = 256
# RunOptions.inter_op_thread_pool. In the caller's thread, unless the session's own pool is wanted or has been found to
# be faster (`thread_choice`): the hop to another thread costs more than small graphs themselves. Kernels use the
# intra-op pool either way.
_IN_CALLERS_THREAD = -1
_FIRST_POOL = 0

Run = Callable[..., list[np.ndarray]]
_Key = tuple[int, tuple[str, ...], tuple[str, ...]]  # pool, feeds, fetches


class LoadedModel:
    """A session with its signatures (SignatureDef by key). Runs may go on in several threads at the same time.

    `wants_pool`: the operator's word on operations side by side, which is not for us to change.
    """

    def __init__(self, session: Any, signatures: Mapping[str, Any], *, wants_pool: bool = False) -> None:
        self.signatures = signatures
        self.wants_pool = wants_pool
        self._session = session
        self._thread_pool = _FIRST_POOL if wants_pool else _IN_CALLERS_THREAD
        self._callables: OrderedDict[_Key, Run] = OrderedDict()

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Run the graph: tensor names to arrays in, the fetched tensors in their order out. Raises PoolError."""
        names = tuple(feeds) if len(feeds) == 1 else tuple(sorted(feeds))
        key = (self._thread_pool, names, tuple(fetches))
        try:
            call = self._callables.get(key)
            if call is None:
                call = self._make(key)
            elif len(self._callables) == MAX_CALLABLES:
                with contextlib.suppress(KeyError):  # another thread has just thrown it out
                    self._callables.move_to_end(key)
            return [_array(value) for value in call(*[feeds[name] for name in names])]
        except errors.FOREIGN as error:
            raise errors.translated(error) from error

    def use_pool(self, in_pool: bool) -> None:
        """Run graphs in the session's pool from now on, or in the caller's thread. While nothing runs."""
        self._thread_pool = _FIRST_POOL if in_pool else _IN_CALLERS_THREAD

    def changing_operations(self, fetches: Iterable[str]) -> list[str]:
        """The kinds of operations below these tensors that change what later runs see."""
        return graph_state.changing_operations(self._graph_def(), fetches)

    def _graph_def(self) -> Any:
        return self._session.graph.as_graph_def()

    def _make(self, key: _Key) -> Run:
        options = config_pb2.CallableOptions(feed=key[1], fetch=key[2])
        options.run_options.inter_op_thread_pool = key[0]
        call: Run = self._session._make_callable_from_options(options)
        self._callables[key] = call
        if len(self._callables) > MAX_CALLABLES:
            self._callables.popitem(last=False)
        return call


def session_config(given: bytes, gpu_limit_bytes: int = 0) -> Any:
    """The ConfigProto of a session: the operator's, serialized, with our defaults where it leaves room for them.

    GPU memory is taken as it is needed unless the operator sets a share: TensorFlow's default is all of it, which
    would starve the neighbours. `gpu_limit_bytes` bounds the one GPU that the process sees, by a logical device, which
    TensorFlow refuses beside a share (gpu_device.cc: VerifyVirtualDeviceSettings). Which GPUs a server sees says the
    pool's file: here there is one, so that its number in `visible_device_list` would be wrong. Operations that a device
    lacks run elsewhere.
    """
    config = config_pb2.ConfigProto.FromString(given)
    config.allow_soft_placement = True
    if config.intra_op_parallelism_threads == 0 and not config.use_per_session_threads:
        config.intra_op_parallelism_threads = cpu_count.available()
    options = config.gpu_options
    options.visible_device_list = ""
    if gpu_limit_bytes:
        options.per_process_gpu_memory_fraction = 0
        del options.experimental.virtual_devices[:]
        options.experimental.virtual_devices.add().memory_limit_mb.append(gpu_limit_bytes >> 20)
    if options.per_process_gpu_memory_fraction == 0:
        options.allow_growth = True
    return config


def gpu_peak_bytes() -> int:
    """The most that TensorFlow's allocator had in use on the process's GPU; 0 where it has none or does not say."""
    if not tf.config.list_physical_devices("GPU"):
        log.warning("TensorFlow finds no GPU, the model runs on the CPU: is this TensorFlow built for CUDA?")
        return 0
    try:
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        log.warning("no statistics of GPU memory %s", fields(error=error))
        return 0


def wants_pool(config: Any) -> bool:
    """Whether the operator wants several operations of a graph at the same time."""
    return bool(config.inter_op_parallelism_threads > 1 or config.session_inter_op_thread_pool)


def _array(value: Any) -> np.ndarray:
    """TensorFlow gives a scalar string as bytes and other scalars as numpy scalars."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


class _Bundle(loader_impl.SavedModelLoader):  # type: ignore[misc]
    """TensorFlow's loader, with another way to restore variables; `meta_graph` is the one to load."""

    meta_graph: Any

    def restore_variables(self, sess: Any, saver: Any, import_scope: str | None = None) -> None:
        if not checkpoint_restore.restore(sess, self.meta_graph, self.variables_path):
            super().restore_variables(sess, saver, import_scope)

    def load_into(self, session: Any, tags: Sequence[str]) -> None:
        """What `load` does, which reads and parses the SavedModel once more, for a counter of format versions."""
        with session.graph.as_default():
            saver, _ = self.load_graph(session.graph, tags)
            self.restore_variables(session, saver)
            self.run_init_ops(session, tags)


def load(path: str, tags: Sequence[str], given_config: bytes = b"", gpu_limit_bytes: int = 0) -> LoadedModel:
    """Load the SavedModel in the version directory `path`; `given_config`: a serialized ConfigProto.

    Raises PoolError with TF Serving's codes and texts.
    """
    _require_bundle(path)
    try:
        with errors.mapped_ops():
            bundle = _Bundle(path)
    except (OSError, ValueError) as error:
        raise DataLoss(f"Can't parse {os.path.join(path, 'saved_model.pb')} as binary proto") from error
    try:
        bundle.meta_graph = bundle.get_meta_graph_def_from_tags(tags)
    except RuntimeError as error:
        raise NotFound(
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To inspect available "
            "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
        ) from error
    config = session_config(given_config, gpu_limit_bytes)
    with errors.mapped():
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph, config=config)
            bundle.load_into(session, tags)
    return LoadedModel(session, _alone(bundle.meta_graph.signature_def), wants_pool=wants_pool(config))


def _alone(signatures: Mapping[str, Any]) -> dict[str, Any]:
    """Copies. A message that is part of another keeps all of that in memory: here the graph with its constants."""
    return {key: type(each).FromString(each.SerializeToString()) for key, each in signatures.items()}


def _require_bundle(path: str) -> None:
    if not any(os.path.exists(os.path.join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise NotFound(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {path}"
        )
