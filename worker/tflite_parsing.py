"""TensorFlow Lite models that parse tf.Examples: the custom operation is taken out of the model and done by TensorFlow.

TF Serving links ParseExample and ParseExampleV2 into its interpreter (servables/tensorflow/tflite_interpreter_pool.cc);
no library of TensorFlow's Python package has them. So the model is rewritten to take what the operation would give, and
the worker gives it, by TensorFlow's own kernel on the CPU. Needs TensorFlow.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from modelpool.supervisor.wire.status import InvalidArgument

from . import errors

_CUSTOM_CODES = (b"ParseExample", b"ParseExampleV2")
_MARK = b"TFL3"
_TYPES: Mapping[int, Any] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.INT64: np.dtype(np.int64),
    schema.TensorType.STRING: np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """What the operation is to do: names of tensors, keys of features, and what stands in for those that are absent."""

    serialized: str
    outputs: tuple[str, ...]
    sparse_keys: Any
    sparse_types: tuple[Any, ...]
    dense_keys: Any
    dense_defaults: tuple[Any, ...]
    dense_shapes: tuple[tuple[int, ...], ...]


class Parser:
    """The operation of one model. `input`: the name of the tensor with the examples, `index`: its place in the model;
    `outputs`: the names of the tensors that it makes.
    """

    def __init__(self, operation: _Operation, index: int) -> None:
        self.input = operation.serialized
        self.index = index
        self.outputs = operation.outputs
        graph = tf.Graph()
        with graph.as_default(), graph.device("/CPU:0"):
            examples = tf.compat.v1.placeholder(tf.string, [None])
            fetches = _parse(examples, operation)
        session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0}))
        self._run = session.make_callable(fetches, [examples])

    def parse(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """What the model is to be fed with instead of serialized examples [batch], by tensor name. Raises PoolError."""
        with errors.mapped():
            try:
                return dict(zip(self.outputs, self._run(examples), strict=True))
            except UnicodeDecodeError as error:
                # TensorFlow's text has the bytes in it that are no example.
                raise InvalidArgument("Could not parse example input") from error


def take_out(content: bytes) -> tuple[bytes, Parser | None]:
    """The model without the operation, and who does it; the model as it is, and None, where there is none.

    Only where the operation's other inputs are constants, in a model with one subgraph, as converters write it. The
    signatures that the model has itself are not kept: they name the tensors that have gone. `content` is a model.
    Raises InvalidArgument for an operation that cannot be read.
    """
    if not any(code in content for code in _CUSTOM_CODES):
        return content, None
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    if len(model.subgraphs) != 1:
        return content, None
    graph = model.subgraphs[0]
    found = [each for each in graph.operators if model.operatorCodes[each.opcodeIndex].customCode in _CUSTOM_CODES]
    if len(found) != 1 or found[0].inputs[0] not in graph.inputs:
        return content, None
    (taken,) = found
    operation = _operation(model, graph, taken)
    index = int(taken.inputs[0])
    graph.operators.remove(taken)
    graph.inputs = [int(each) for each in graph.inputs if each != index] + [int(each) for each in taken.outputs]
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), _MARK)
    return bytes(builder.Output()), Parser(operation, index)


def _operation(model: Any, graph: Any, taken: Any) -> _Operation:
    inputs, outputs = [int(each) for each in taken.inputs], [int(each) for each in taken.outputs]
    constants = [_constant(model, graph.tensors[each]) for each in inputs[1:]]
    if model.operatorCodes[taken.opcodeIndex].customCode == b"ParseExampleV2":
        _, sparse_keys, dense_keys, _, *defaults = constants
    else:
        # Names, then each key by itself, and the defaults: the numbers of outputs and inputs say how many.
        sparse = (2 * len(outputs) - len(constants) + 1) // 5
        dense = len(outputs) - 3 * sparse
        keys, defaults = constants[1 : 1 + sparse + dense], constants[1 + sparse + dense :]
        sparse_keys, dense_keys = _strings(keys[:sparse]), _strings(keys[sparse:])
    count = len(sparse_keys)
    made = [graph.tensors[each] for each in outputs]
    if len(made) != 3 * count + len(dense_keys) or len(defaults) != len(dense_keys):
        raise InvalidArgument(f"ParseExample: {count} sparse and {len(dense_keys)} dense keys, {len(made)} outputs")
    return _Operation(
        _name(graph.tensors[inputs[0]]),
        tuple(map(_name, made)),
        sparse_keys,
        tuple(_TYPES[each.type] for each in made[count : 2 * count]),
        dense_keys,
        tuple(defaults),
        tuple(_shape(each)[1:] for each in made[3 * count :]),
    )


def _constant(model: Any, tensor: Any) -> np.ndarray:
    """The values of a tensor of the model. Raises InvalidArgument when it has none, or of another type."""
    data = model.buffers[tensor.buffer].data
    raw = b"" if data is None else bytes(bytearray(data))
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    dtype = _TYPES.get(tensor.type)
    if dtype is None or (not raw and 0 not in shape):
        raise InvalidArgument(f"ParseExample: its input {_name(tensor)} is no constant of a type that features have")
    if dtype.kind != "O":
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    return _strings(_texts(raw) if raw else []).reshape(shape)


def _texts(raw: bytes) -> list[bytes]:
    """Strings as TensorFlow Lite stores them: how many, where each begins and the last ends, and all in a row."""
    count = int(np.frombuffer(raw, "<i4", 1)[0])
    places = np.frombuffer(raw, "<i4", count + 1, 4).tolist()
    return [raw[first:last] for first, last in itertools.pairwise(places)]


def _strings(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = [value.item() if isinstance(value, np.ndarray) else value for value in values]
    return array


def _parse(examples: Any, operation: _Operation) -> list[Any]:
    """TensorFlow's operation, its outputs in the order of the model's."""
    parsed = tf.raw_ops.ParseExampleV2(
        serialized=examples,
        names=tf.constant([], tf.string),
        sparse_keys=tf.constant(operation.sparse_keys.tolist(), tf.string),
        dense_keys=tf.constant(operation.dense_keys.tolist(), tf.string),
        ragged_keys=tf.constant([], tf.string),
        dense_defaults=[
            tf.constant(each.tolist(), _tf_type(each.dtype), each.shape) for each in operation.dense_defaults
        ],
        num_sparse=len(operation.sparse_keys),
        sparse_types=[_tf_type(each) for each in operation.sparse_types],
        ragged_value_types=[],
        ragged_split_types=[],
        dense_shapes=operation.dense_shapes,
    )
    return [*parsed.sparse_indices, *parsed.sparse_values, *parsed.sparse_shapes, *parsed.dense_values]


def _tf_type(dtype: np.dtype[Any]) -> Any:
    return tf.string if dtype.kind == "O" else tf.as_dtype(dtype)


def _name(tensor: Any) -> str:
    name: bytes = tensor.name
    return name.decode()


def _shape(tensor: Any) -> tuple[int, ...]:
    sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return tuple(int(size) for size in sizes)
