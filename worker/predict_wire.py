"""PredictRequest and PredictResponse as their bytes, without the protobuf library where they are as usual.

The library would copy a tensor's values twice on their way in, and needs more time for a small request than a small
model does. Read here is what clients send: each field once, numbers packed, strings, tensor_content. Anything else is
`None`, for the library to read or to refuse. What is read shares the payload's memory. Written is what the library
would write, but for the order of map entries. Pure; a Reader or a Writer is one thread's, for it remembers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import model_pb2

from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import Internal
from modelpool.supervisor.wire.varint import varint

from . import packed_numbers

# Model specs and shapes repeat from request to request; so many different ones are remembered.
_REMEMBERED = 1024
# What one Writer remembers of responses at the most, unless a single one takes more: clients choose their shapes. An
# output takes about so much more than the bytes before its numbers.
_REMEMBERED_BYTES = 1024 * 1024
_OUTPUT_BYTES = 256
# From here on writing refers to an array's memory; below, copying is cheaper.
_LARGE_BYTES = 4096
_RAW_FIELDS = {5: "float_val", 6: "double_val", 9: "scomplex_val", 12: "dcomplex_val"}
_VARINT_FIELDS = {7: "int_val", 10: "int64_val", 11: "bool_val", 16: "uint32_val", 17: "uint64_val"}
_FIELDS = _RAW_FIELDS | _VARINT_FIELDS | {8: "string_val"}
_RAW_DTYPES: Mapping[int, np.dtype[Any]] = {
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    9: np.dtype("<f4"),
    12: np.dtype("<f8"),
}
_NUMBERS = {name: number for number, name in _FIELDS.items()}
_NO_VALUES: npt.NDArray[Any] = np.empty(0, np.float32)
_DELIMITED = 2

Buffer = Any  # bytes or a memoryview of bytes


class _Unusual(Exception):
    """Not among what is read here."""


@dataclass(slots=True, eq=False)
class RawTensor:
    """A TensorProto's parts. `field` is the number of the one typed field that has values, 0 for none."""

    dtype: int
    shape: tuple[int, ...]
    content: Buffer
    field: int
    values: Any

    def decoded(self, alias: str) -> npt.NDArray[Any]:
        """As `tensors.decode`."""
        return tensors.assemble(alias, self.dtype, self.shape, self.content, self.values)


@dataclass(slots=True, eq=False)
class RawRequest:
    """A PredictRequest's parts."""

    signature_name: str
    inputs: dict[str, RawTensor]
    output_filter: list[str]


class Reader:
    """Reads requests; remembers what repeats in them."""

    def __init__(self) -> None:
        self._signature_names: dict[bytes, str] = {}
        self._shapes: dict[bytes, tuple[int, ...]] = {}

    def read(self, payload: Buffer) -> RawRequest | None:
        """The request; None when the protobuf library is to read it."""
        try:
            return self._request(payload)
        except (_Unusual, IndexError, UnicodeDecodeError, DecodeError):
            return None

    def _request(self, raw: Buffer) -> RawRequest:
        request = RawRequest("", {}, [])
        at, end, seen_spec = 0, len(raw), False
        while at < end:
            tag = raw[at]
            size, start = _size(raw, at + 1)
            at = start + size
            if at > end:
                raise _Unusual
            if tag == 0x12:  # inputs
                alias, tensor = self._entry(raw, start, at)
                request.inputs[alias] = tensor
            elif tag == 0x0A and not seen_spec:  # model_spec
                seen_spec = True
                request.signature_name = self._signature_name(bytes(raw[start:at]))
            elif tag == 0x1A:  # output_filter
                request.output_filter.append(str(raw[start:at], "utf-8"))
            else:
                raise _Unusual
        return request

    def _signature_name(self, spec: bytes) -> str:
        known = self._signature_names.get(spec)
        if known is None:
            known = model_pb2.ModelSpec.FromString(spec).signature_name
            _remember(self._signature_names, spec, known)
        return known

    def _entry(self, raw: Buffer, at: int, end: int) -> tuple[str, RawTensor]:
        """A map entry: the key, then the value, and nothing else."""
        if raw[at] != 0x0A:
            raise _Unusual
        size, start = _size(raw, at + 1)
        at = start + size
        if at >= end or raw[at] != 0x12:
            raise _Unusual
        alias = str(raw[start:at], "utf-8")
        size, start = _size(raw, at + 1)
        if start + size != end:
            raise _Unusual
        return alias, self._tensor(raw, start, end)

    def _tensor(self, raw: Buffer, at: int, end: int) -> RawTensor:
        tensor = RawTensor(0, (), b"", 0, _NO_VALUES)
        seen = 0
        while at < end:
            tag = raw[at]
            if tag == 0x08:  # dtype
                tensor.dtype = raw[at + 1]
                at += 2
                if tensor.dtype >= 0x80:
                    raise _Unusual
            elif tag == 0x42:  # string_val
                at = _strings(raw, at, end, tensor)
            else:
                size, start = _size(raw, at + 1 if tag < 0x80 else at + 2)
                number = tag >> 3 if tag < 0x80 else (tag & 0x7F | raw[at + 1] << 7) >> 3
                at = start + size
                if tag & 7 != _DELIMITED or at > end or seen >> number & 1:
                    raise _Unusual
                seen |= 1 << number
                if number == 2:
                    tensor.shape = self._shape(bytes(raw[start:at]))
                elif number == 4:
                    tensor.content = raw[start:at] if isinstance(raw, memoryview) else memoryview(raw)[start:at]
                else:
                    _values(raw, start, at, number, tensor)
        if at != end:
            raise _Unusual
        _check(tensor)
        return tensor

    def _shape(self, raw: bytes) -> tuple[int, ...]:
        known = self._shapes.get(raw)
        if known is None:
            shape = tensor_shape_pb2.TensorShapeProto.FromString(raw)
            if shape.unknown_rank:
                raise _Unusual
            known = tuple(dim.size for dim in shape.dim)
            _remember(self._shapes, raw, known)
        return known


def _remember(memory: dict[bytes, Any], key: bytes, value: Any) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    if len(key) <= _REMEMBERED:
        memory[key] = value


def _size(raw: Buffer, at: int) -> tuple[int, int]:
    """A length of at most four bytes, and where it ends."""
    size: int = raw[at]
    at += 1
    if size < 0x80:
        return size, at
    size &= 0x7F
    for shift in (7, 14, 21, 28):
        byte = raw[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
    raise _Unusual


def _strings(raw: Buffer, at: int, end: int, tensor: RawTensor) -> int:
    """The run of string_val that begins here; where it ends."""
    if tensor.field:
        raise _Unusual
    tensor.field, strings = _NUMBERS["string_val"], []
    while at < end and raw[at] == 0x42:
        size, start = _size(raw, at + 1)
        at = start + size
        if at > end:
            raise _Unusual
        strings.append(bytes(raw[start:at]))
    tensor.values = strings
    return at


def _values(raw: Buffer, start: int, end: int, number: int, tensor: RawTensor) -> None:
    """The packed values of a numeric field."""
    if tensor.field or number not in _FIELDS:
        raise _Unusual
    tensor.field = number
    dtype = _RAW_DTYPES.get(number)
    if dtype is None:
        try:
            tensor.values = packed_numbers.unpack(raw[start:end])
        except ValueError as error:
            raise _Unusual from error
    elif (end - start) % dtype.itemsize:
        raise _Unusual
    else:
        tensor.values = np.frombuffer(raw, dtype, (end - start) // dtype.itemsize, start)


def _check(tensor: RawTensor) -> None:
    """The values must be of the field that belongs to the dtype."""
    if tensor.field:
        row = tensors.DTYPES.get(tensor.dtype)
        if row is None or row.field != _FIELDS[tensor.field]:
            raise _Unusual
        if tensor.field in _VARINT_FIELDS:
            # As C narrows them; a bool is whether there is any bit.
            tensor.values = tensor.values.astype(row.wire) if row.wire.kind != "b" else tensor.values != 0


# -- responses ---------------------------------------------------------------------------------------------------

# For each output its dtype, and what stands before its numbers.
_ResponseForm = tuple[tuple[np.dtype[Any], bytes], ...]


class Writer:
    """Writes the responses of one signature. `spec`: a PredictResponse with nothing but its model_spec, serialized."""

    def __init__(self, spec: bytes, outputs: Mapping[str, int], *, as_content: bool) -> None:
        """`outputs`: the DataType of each output by alias. `as_content`: numbers as tensor_content."""
        self._spec = spec
        self._dtypes = dict(outputs)
        self._keys = {alias: _delimited(0x0A, alias.encode()) for alias in outputs}
        self._as_content = as_content
        self._heads: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._forms: dict[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], _ResponseForm] = {}
        self._forms_bytes = 0

    def write_again(self, aliases: tuple[str, ...], arrays: Sequence[npt.NDArray[Any]]) -> bytes | None:
        """The response, where one of the same outputs, dtypes and shapes was written before; None for any other.

        What differs in two of them are the numbers, where those are small and take as many bytes each time.
        """
        form = self._forms.get((aliases, tuple([array.shape for array in arrays])))
        if form is None:
            return None
        pieces: list[Buffer] = []
        for (dtype, head), array in zip(form, arrays, strict=True):
            if array.dtype is not dtype:
                return None
            pieces += (head, array.tobytes())
        pieces.append(self._spec)
        return b"".join(pieces)

    def write_rows(
        self, aliases: tuple[str, ...], arrays: Sequence[npt.NDArray[Any]], count: int, lead: int
    ) -> npt.NDArray[np.uint8] | None:
        """What `write_again` gives of each of `count` requests that have the same number of the arrays' rows, one
        below the other: [count, lead + size of a response] bytes, of which the first `lead` of each row are left to
        the caller.
        """
        form = self._forms.get((aliases, tuple([(len(array) // count, *array.shape[1:]) for array in arrays])))
        if form is None:
            return None
        same, values, at = b"", [], lead
        for (dtype, head), array in zip(form, arrays, strict=True):
            if array.dtype is not dtype:
                return None
            begin, size = at + len(head), array.nbytes // count
            at = begin + size
            same += head + bytes(size)
            values.append((begin, at, array))
        rows = np.empty((count, at + len(self._spec)), np.uint8)
        rows[:, lead:] = np.frombuffer(same + self._spec, np.uint8)
        for begin, end, array in values:
            rows[:, begin:end] = np.ascontiguousarray(array).reshape(count, -1).view(np.uint8)
        return rows

    def write(self, aliases: tuple[str, ...], arrays: Sequence[npt.NDArray[Any]]) -> list[Buffer]:
        """The pieces of the response, to be joined. Raises Internal as `tensors.encode` does."""
        pieces: list[Buffer] = []
        form: list[tuple[np.dtype[Any], bytes]] = []
        for alias, array in zip(aliases, arrays, strict=True):
            tensor = self._tensor(self._dtypes[alias], array)
            size = sum(map(len, tensor))
            value = b"\x12" + varint(size)
            key = self._keys[alias]
            pieces += (b"\x0a", varint(len(key) + len(value) + size), key, value, *tensor)
            if self._keeps_size(self._dtypes[alias], array):
                form.append((array.dtype, b"".join(pieces[-len(tensor) - 4 : -1])))
        pieces.append(self._spec)
        if len(form) == len(arrays):
            self._keep(aliases, arrays, tuple(form))
        return pieces

    def _keep(self, aliases: tuple[str, ...], arrays: Sequence[npt.NDArray[Any]], form: _ResponseForm) -> None:
        key = (aliases, tuple([array.shape for array in arrays]))
        if key not in self._forms:  # another dtype of the same outputs and shapes takes as much
            size = sum(len(head) for _, head in form) + _OUTPUT_BYTES * len(form)
            if len(self._forms) >= _REMEMBERED or self._forms_bytes + size > _REMEMBERED_BYTES:
                self._forms.clear()
                self._forms_bytes = 0
            self._forms_bytes += size
        self._forms[key] = form

    def _keeps_size(self, enum: int, array: npt.NDArray[Any]) -> bool:
        """Whether `_tensor` ends with the array's own bytes, a few of them."""
        row = tensors.DTYPES.get(enum)
        if row is None or row.stored.kind == "O" or not 0 < array.nbytes < _LARGE_BYTES:
            return False
        return self._as_content or (row.wire.kind in "f?" and row.field in _NUMBERS)

    def _tensor(self, enum: int, array: npt.NDArray[Any]) -> list[Buffer]:
        row = tensors.DTYPES.get(enum)
        if row is None or row.stored.kind == "O":
            return [tensors.encode(array, enum, as_content=self._as_content).SerializeToString()]
        if array.dtype not in (row.stored, row.numpy):
            raise Internal(f"tensor encoding error: expected {row.name}, got an array of {array.dtype}")
        number = _NUMBERS.get(row.field)
        if not self._as_content and number is None:
            return [tensors.encode(array, enum).SerializeToString()]
        head = self._head(enum, array.shape)
        if not array.size:
            return [head]
        flat = np.ascontiguousarray(array).reshape(-1)
        if self._as_content:
            number, raw = 4, _bytes(flat)
        elif row.wire.kind in "f?":
            raw = _bytes(flat)
        else:
            raw = packed_numbers.pack(flat.view(row.stored))
        return [head, _tag(number or 0), varint(len(raw)), raw]

    def _head(self, enum: int, shape: tuple[int, ...]) -> bytes:
        """dtype and tensor_shape."""
        known = self._heads.get((enum, shape))
        if known is None:
            made = tensor_pb2.TensorProto(dtype=enum)
            for size in shape:
                made.tensor_shape.dim.add().size = size
            known = made.SerializeToString()
            if len(self._heads) >= _REMEMBERED:
                self._heads.clear()
            self._heads[enum, shape] = known
        return known


def _bytes(flat: npt.NDArray[Any]) -> Buffer:
    return flat.tobytes() if flat.nbytes < _LARGE_BYTES else flat.view(np.uint8).data


def _delimited(tag: int, raw: bytes) -> bytes:
    return bytes((tag,)) + varint(len(raw)) + raw


def _tag(number: int) -> bytes:
    return varint(number << 3 | _DELIMITED)
