"""TensorFlow Lite models: loads a `model.tflite` and runs it behind the interface of a loaded SavedModel.

Needs TensorFlow; main thread of the worker, and a thread per further interpreter while a batch is split.
TF Serving: servables/tensorflow/tflite_session.cc and tflite_interpreter_pool.cc.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from modelpool.supervisor.wire import gathering
from modelpool.supervisor.wire.status import Internal, InvalidArgument, PoolError
from modelpool.supervisor.wire.worker_spec import TFLITE_FILE

from . import tflite_parsing, tflite_signatures, tflite_state
from .model_spec import DEFAULT_SIGNATURE
from .tflite_parsing import Parser

_PREDICT = "tensorflow/serving/predict"
_INDEX = ":0"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output: its name in the model, and its shape with -1 for what may vary."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True, slots=True)
class _Signature:
    """`definition`: the SignatureDef that clients see. `runner`: the interpreter's own signature; without one the
    tensors are addressed by index.
    """

    key: str
    definition: Any
    runner: str | None
    inputs: Mapping[str, _Tensor]
    outputs: Mapping[str, _Tensor]


def exists(path: str) -> bool:
    """Whether the version directory has a model of this kind."""
    return os.path.isfile(os.path.join(path, TFLITE_FILE))


class TfliteModel:
    """`signatures`: SignatureDef by key: of the model's metadata, else of its own, or, without any, of its tensors."""

    single_threaded = True
    """One run at a time."""

    def __init__(self, content: bytes, interpreters: int) -> None:
        self._content, self._parser = tflite_parsing.take_out(content)
        self._interpreters = [self._new() for _ in range(interpreters)]
        try:
            self._interpreters[0].allocate_tensors()
        except RuntimeError as error:  # an operation is not known
            raise InvalidArgument(f"Failed to allocate tensors: {error}") from error
        # What an interpreter is fed with in place of examples that are parsed before it.
        self._parsed = {each["name"]: _tensor(each) for each in self._interpreters[0].get_input_details()}
        self.interpreters = interpreters
        self._divisible: set[str] = set()
        self._threads = ThreadPoolExecutor(interpreters, "tflite", gathering.stand_apart) if interpreters > 1 else None
        self._known = _signatures(content, self._interpreters[0], self._parser)
        self.signatures: Mapping[str, Any] = {signature.key: signature.definition for signature in self._known}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Run the model: tensor names to arrays in, the fetched tensors in their order out. Raises PoolError.

        With several interpreters a batch is split among them on dimension 0, where `split` allows it and all inputs
        have the same.
        """
        signature = self._signature(feeds, fetches)
        for tensor in signature.inputs.values():
            _check(tensor, feeds[tensor.name])
        parts = self._split(feeds) if signature.key in self._divisible else [feeds]
        if self._threads is None or len(parts) == 1:
            return self._run_one(0, signature, feeds, fetches)
        tasks = [
            self._threads.submit(self._run_one, number, signature, part, fetches) for number, part in enumerate(parts)
        ]
        results = [task.result() for task in tasks]
        rows = [len(next(iter(part.values()))) for part in parts]
        if any(output.shape[:1] != (size,) for size, part in zip(rows, results, strict=True) for output in part):
            self._divisible.discard(signature.key)  # outputs that are no rows
            return self._run_one(0, signature, feeds, fetches)
        return [np.concatenate(columns) for columns in zip(*results, strict=True)]

    def changing_operations(self, fetches: Iterable[str]) -> list[str]:
        """What changes state that a later run may see, whichever tensors are fetched: what one signature changes,
        another reads, and in one interpreter only.
        """
        return tflite_state.changing_operations(self._content)

    def split(self, keys: set[str]) -> None:
        """From now on, the requests of these signatures, among the interpreters."""
        self._divisible = set(keys)

    def _new(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite says that it will move to a package of its own
            return tf.lite.Interpreter(model_content=self._content, num_threads=1)

    def _signature(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> _Signature:
        for signature in self._known:
            inputs = {tensor.name for tensor in signature.inputs.values()}
            if inputs == feeds.keys() and {tensor.name for tensor in signature.outputs.values()}.issuperset(fetches):
                return signature
        raise InvalidArgument(f"No signature of the model takes {sorted(feeds)} and gives {sorted(fetches)}")

    def _split(self, feeds: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
        sizes = {array.shape[0] if array.ndim else -1 for array in feeds.values()}
        count = min(len(self._interpreters), *sizes) if len(sizes) == 1 else 1
        if count <= 1:
            return [dict(feeds)]
        pieces = {name: np.array_split(array, count) for name, array in feeds.items()}
        return [{name: parts[number] for name, parts in pieces.items()} for number in range(count)]

    def _run_one(
        self, number: int, signature: _Signature, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
    ) -> list[np.ndarray]:
        inputs = signature.inputs
        if self._parser is not None:
            inputs, feeds = self._parsed, {**feeds, **self._parser.parse(feeds[self._parser.input])}
        try:
            outputs = _invoke(self._interpreters[number], signature, inputs, feeds)
        except (ValueError, RuntimeError) as error:
            # One that failed half-way is not to be trusted with the next request.
            self._interpreters[number] = self._new()
            kind: type[PoolError] = InvalidArgument if isinstance(error, ValueError) else Internal
            raise kind(f"Failed to invoke TfLite interpreter: {error}") from error
        return [_plain(outputs[name]) for name in fetches]


def load(path: str, interpreters: int) -> TfliteModel:
    """Load `model.tflite` of the version directory `path`. Raises InvalidArgument for one that is none."""
    file = os.path.join(path, TFLITE_FILE)
    with open(file, "rb") as source:
        content = source.read()
    try:
        return TfliteModel(content, interpreters)
    except (ValueError, RuntimeError) as error:
        raise InvalidArgument(f"Cannot build FlatBufferModel from file: {file}: {error}") from error


def _invoke(
    interpreter: Any, signature: _Signature, inputs: Mapping[str, _Tensor], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All outputs by tensor name; copies. `inputs`: what is set, where tensors are addressed by index."""
    if signature.runner is not None:
        runner = interpreter.get_signature_runner(signature.runner)
        answers = runner(**{alias: feeds[tensor.name] for alias, tensor in signature.inputs.items()})
        return {tensor.name: answers[alias] for alias, tensor in signature.outputs.items()}
    for tensor in inputs.values():
        interpreter.resize_tensor_input(tensor.index, feeds[tensor.name].shape)
    interpreter.allocate_tensors()
    for tensor in inputs.values():
        interpreter.set_tensor(tensor.index, feeds[tensor.name])
    interpreter.invoke()
    return {tensor.name: interpreter.get_tensor(tensor.index) for tensor in signature.outputs.values()}


def _plain(array: np.ndarray) -> np.ndarray:
    """Strings as objects, as a session returns them."""
    return array.astype(object) if array.dtype.kind == "S" else array


def _check(tensor: _Tensor, array: np.ndarray) -> None:
    """The interpreter trusts its caller with shapes, and may die of a wrong one. The batch may always vary."""
    fits = array.ndim == len(tensor.shape) and all(
        want in (-1, got) for want, got in zip(tensor.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise InvalidArgument(
            f"Input {tensor.name}: expected shape {_shape_text(tensor.shape)}, got {_shape_text(array.shape)}"
        )
    want = np.dtype(object) if tensor.dtype is np.bytes_ else np.dtype(tensor.dtype)
    if array.dtype != want:
        raise InvalidArgument(f"Input {tensor.name}: expected {tf.as_dtype(tensor.dtype).name}, got {array.dtype}")


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join('?' if size < 0 else str(size) for size in shape)}]"


def _signatures(content: bytes, interpreter: Any, parser: Parser | None) -> list[_Signature]:
    """Of the model as it was before the parser was taken out of it."""
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    if parser is not None:
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        ins = [details[parser.index], *(detail for detail in ins if detail["name"] not in parser.outputs)]
    described = tflite_signatures.read(content)
    if described:
        inputs = {detail["name"]: _tensor(detail) for detail in ins}
        outputs = {detail["name"]: _tensor(detail) for detail in outs}
        return [_described(key, definition, inputs, outputs) for key, definition in described.items()]
    if parser is not None:
        return [_Signature(key, _definition(*sides), None, *sides) for key, sides in _own(content, ins, outs).items()]
    keys = list(interpreter.get_signature_list())
    if not keys:
        inputs, outputs = ({_alias(detail): _tensor(detail) for detail in side} for side in (ins, outs))
        return [_Signature(DEFAULT_SIGNATURE, _definition(inputs, outputs), None, inputs, outputs)]
    found = []
    for key in keys:
        runner = interpreter.get_signature_runner(key)
        inputs = {alias: _tensor(detail) for alias, detail in runner.get_input_details().items()}
        outputs = {alias: _tensor(detail) for alias, detail in runner.get_output_details().items()}
        found.append(_Signature(key, _definition(inputs, outputs), key, inputs, outputs))
    return found


def _own(content: bytes, ins: Sequence[Any], outs: Sequence[Any]) -> dict[str, tuple[dict[str, _Tensor], ...]]:
    """Inputs and outputs by alias of the signatures that a model has itself, or of all its tensors."""
    found: dict[str, tuple[dict[str, _Tensor], ...]] = {}
    for key, *sides in tflite_signatures.own(content):
        tensors = [{detail["index"]: _tensor(detail) for detail in side} for side in (ins, outs)]
        found[key] = tuple(
            {alias: of[index] for alias, index in side.items()} for side, of in zip(sides, tensors, strict=True)
        )
    if not found:
        found[DEFAULT_SIGNATURE] = tuple({_alias(detail): _tensor(detail) for detail in side} for side in (ins, outs))
    return found


def _described(key: str, definition: Any, inputs: Mapping[str, _Tensor], outputs: Mapping[str, _Tensor]) -> _Signature:
    """A signature of the model's metadata, whose tensors are named as TensorFlow does or as the model does."""
    sides = []
    for side, tensors in (("input", inputs), ("output", outputs)):
        found = {}
        for alias, info in getattr(definition, f"{side}s").items():
            tensor = tensors.get(info.name) or tensors.get(info.name.partition(":")[0])
            if tensor is None:
                raise InvalidArgument(
                    f"Signature {side} {alias} references an unknown tensor: Unknown tensor '{info.name}'."
                )
            info.name = tensor.name
            found[alias] = tensor
        sides.append(found)
    return _Signature(key, definition, None, *sides)


def _alias(detail: Mapping[str, Any]) -> str:
    name: str = detail["name"]
    return name.removesuffix(_INDEX)


def _tensor(detail: Mapping[str, Any]) -> _Tensor:
    shape = detail.get("shape_signature", detail["shape"])
    return _Tensor(detail["name"], detail["index"], tuple(int(size) for size in shape), detail["dtype"])


def _definition(inputs: Mapping[str, _Tensor], outputs: Mapping[str, _Tensor]) -> Any:
    definition = meta_graph_pb2.SignatureDef(method_name=_PREDICT)
    for tensors, infos in ((inputs, definition.inputs), (outputs, definition.outputs)):
        for alias, tensor in tensors.items():
            info = infos[alias]
            info.name, info.dtype = tensor.name, tf.as_dtype(tensor.dtype).as_datatype_enum
            dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in tensor.shape]
            info.tensor_shape.CopyFrom(tensor_shape_pb2.TensorShapeProto(dim=dims))
    return definition
