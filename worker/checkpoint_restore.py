"""Restores a model's big variables in small pieces, for its neighbours' sake. Needs TensorFlow; main thread.

TensorFlow reads a tensor by one system call. A kernel without preemption copies all of it, 10 ms and more, before it
looks whether anybody more urgent waits, at whatever priority. So big tensors are read here, a piece a call, and are fed
to the model's own restore operation in the place of what its RestoreV2 operations give.

What is unusual, or goes wrong, is left to TensorFlow as a whole: its behaviour, its errors and its texts count.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph

from modelpool.supervisor.wire import cpu_count
from modelpool.supervisor.wire.log import fields

from . import checkpoint_data, checkpoint_index, errors
from .checkpoint_data import DamagedError, DataFiles
from .checkpoint_index import Entry, Index, UnreadableError

log = logging.getLogger(__name__)

# What has no tensor of this size is restored by TensorFlow alone: below, one takes a millisecond or so.
BIG_BYTES = 4 << 20
# As TensorFlow does (kernels/save_restore_v2_ops.cc), but for the number of CPUs: bigger ones are read side by side.
_SIDE_BY_SIDE_ELEMENTS = 16 << 20
_MOST_READERS = 8
_SCOPE = "restore_in_pieces"
_RESTORE = "RestoreV2"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# To reference variables (TF1): they copy what they are given, which would be there twice.
_COPIES = "Assign"
_COLOCATED = "_class"
_PLAIN = frozenset(
    each.as_datatype_enum
    for each in (
        *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    )
)

Feeds = dict[str, Any]


class UnusualError(Exception):
    """What only TensorFlow itself is asked to deal with."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One output of a RestoreV2 operation: the tensor's name, and what is read for it."""

    name: str
    dtype: Any
    key: str
    part: str
    """Which part of a partitioned variable; empty for all of a tensor."""


def restore(session: Any, meta_graph: Any, prefix: str) -> bool:
    """Restore the variables of a MetaGraphDef, which the session's graph holds, from a checkpoint.

    False when TensorFlow must do it: where there is nothing big, and where it was not done to the end.
    """
    try:
        index = _index_of_big(prefix)
        if index is None:
            return False
        with session.graph.as_default():
            _restore(session, meta_graph, index)
    except (*errors.FOREIGN, UnusualError, UnreadableError, DamagedError) as error:
        why = f"{type(error).__name__}: {error}"
    else:
        return True
    log.info("variables restored by TensorFlow %s", fields(prefix=prefix, why=why))
    return False


def _index_of_big(prefix: str) -> Index | None:
    """The index of a checkpoint that has big tensors; nothing is parsed where no data file is of that size."""
    folder, name = os.path.split(prefix)
    try:
        with os.scandir(folder) as found:
            sizes = [each.stat().st_size for each in found if each.name.startswith(f"{name}.data-")]
    except OSError:
        return None
    if max(sizes, default=0) < BIG_BYTES or not checkpoint_data.FAST:
        return None
    index = checkpoint_index.read(prefix)
    return index if any(_is_big(entry) for entry in index.entries.values()) else None


def _is_big(entry: Entry) -> bool:
    return entry.size >= BIG_BYTES and entry.dtype in _PLAIN


def _restore(session: Any, meta_graph: Any, index: Index) -> None:
    graph, saver = session.graph, meta_graph.saver_def
    file_name = graph.get_tensor_by_name(saver.filename_tensor_name)
    last = graph.get_operation_by_name(saver.restore_op_name)
    targets = _inlined(meta_graph, last) if last.type in _CALLS else [last]
    below = _below(targets)
    if any(op.type == _COPIES for op in below):
        raise UnusualError("reference variables")
    reads = [read for op in below if op.type == _RESTORE for read in _reads(op, file_name, index)]
    big = {read.name: index.entries[read.key] for read in reads if _is_whole_and_big(read, index)}
    if not big:
        raise UnusualError("the graph reads no big tensor by itself")
    prefix: Feeds = {file_name.name: index.prefix}
    others = [read for read in reads if read.name not in big]
    with DataFiles(index, big.values()) as files:
        values = _values(big, files)
    session.run(targets, prefix | _read_by_tensorflow(session, others, file_name, prefix) | values)
    log.info("variables restored in pieces %s", fields(tensors=len(big), bytes=sum(each.size for each in big.values())))


def _inlined(meta_graph: Any, call: Any) -> list[Any]:
    """The operations to run in place of a call of the restore function: its body's, now operations of the graph.

    Nothing can be fed into a function. TF2 writes one that reads all tensors and assigns them, a TF1 saver none.
    """
    name = call.get_attr("f").name
    (function,) = [each for each in meta_graph.graph_def.library.function if each.signature.name == name]
    body, _ = function_def_to_graph.function_def_to_graph_def(function)
    _forget_colocation_with_others(body)
    given = {f"{each.name}:0": tensor for each, tensor in zip(function.signature.input_arg, call.inputs, strict=True)}
    run = sorted({*function.control_ret.values(), *(output.partition(":")[0] for output in function.ret.values())})
    ops: list[Any] = tf.graph_util.import_graph_def(body, input_map=given, return_elements=run, name=_SCOPE)
    return ops


def _forget_colocation_with_others(body: Any) -> None:
    """A function may name operations outside of it to be beside; an imported graph may not."""
    inside = {f"loc:@{node.name}".encode() for node in body.node}
    for node in body.node:
        if _COLOCATED in node.attr:
            kept = [each for each in node.attr[_COLOCATED].list.s if each in inside]
            node.attr[_COLOCATED].list.s[:] = kept
            if not kept:
                del node.attr[_COLOCATED]


def _below(targets: Sequence[Any]) -> list[Any]:
    """The operations that these depend on, and they; nothing below what reads a checkpoint."""
    found: dict[Any, None] = dict.fromkeys(targets)
    left = list(found)
    while left:
        op = left.pop()
        if op.type == _RESTORE:
            continue
        if any(each.type == _RESTORE for each in op.control_inputs):
            raise UnusualError(f"{op.name} waits for a read and not for its values")
        above = [each for each in (*(tensor.op for tensor in op.inputs), *op.control_inputs) if each not in found]
        left += above
        found |= dict.fromkeys(above)
    return list(found)


def _reads(op: Any, file_name: Any, index: Index) -> list[_Read]:
    """What a RestoreV2 operation reads; nothing where that has nothing big or is not known: it stays as it is."""
    prefix, keys, parts = op.inputs
    key_values, part_values = tf.get_static_value(keys), tf.get_static_value(parts)
    if prefix.name != file_name.name or key_values is None or part_values is None:
        return []
    reads = [
        _Read(tensor.name, tensor.dtype, key.decode(), part.decode())
        for tensor, key, part in zip(op.outputs, key_values, part_values, strict=True)
    ]
    return reads if any(_is_whole_and_big(read, index) for read in reads) else []


def _is_whole_and_big(read: _Read, index: Index) -> bool:
    entry = index.entries.get(read.key)
    if entry is None or read.part:
        return False
    return _is_big(entry) and entry.dtype == read.dtype.as_datatype_enum


def _values(entries: Mapping[str, Entry], files: DataFiles) -> Feeds:
    """The values of big tensors by the same names, each in a room of its own, which its variable keeps."""

    def value(name: str) -> np.ndarray:
        return _value(entries[name], files)

    alone = [name for name, entry in entries.items() if math.prod(entry.shape) <= _SIDE_BY_SIDE_ELEMENTS]
    together = [name for name in entries if name not in set(alone)]
    readers = min(_MOST_READERS, cpu_count.available(), len(together))
    if readers < 2:
        return {name: value(name) for name in entries}
    with ThreadPoolExecutor(readers) as pool:
        values = pool.map(value, together)
        return {name: value(name) for name in alone} | dict(zip(together, values, strict=True))


def _read_by_tensorflow(session: Any, reads: Sequence[_Read], file_name: Any, prefix: Feeds) -> Feeds:
    """The values of small and of other tensors, by their names."""
    if not reads:
        return {}
    with tf.device("/cpu:0"):
        values = tf.raw_ops.RestoreV2(
            prefix=file_name,
            tensor_names=[read.key for read in reads],
            shape_and_slices=[read.part for read in reads],
            dtypes=[read.dtype for read in reads],
        )
    return dict(zip([read.name for read in reads], session.run(values, prefix), strict=True))


def _value(entry: Entry, files: DataFiles) -> np.ndarray:
    dtype = np.dtype(tf.as_dtype(entry.dtype).as_numpy_dtype)
    if entry.size != dtype.itemsize * math.prod(entry.shape):
        raise DamagedError("size and shape of a tensor do not fit")
    value: np.ndarray = files.read(entry).view(dtype).reshape(entry.shape)
    return value
