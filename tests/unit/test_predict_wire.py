"""PredictRequest and PredictResponse by hand: the same as the protobuf library reads and writes, or left to it."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import Internal, InvalidArgument
from modelpool.supervisor.wire.tensors import DTYPES
from modelpool.worker import predict_wire
from modelpool.worker.predict_wire import RawRequest, Reader, Writer
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

SIGNED = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
INT32 = st.integers(-(2**31), 2**31 - 1)
FIELDS = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "int_val": INT32,
    "int64_val": SIGNED,
    "bool_val": st.booleans(),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
    "string_val": st.binary(max_size=200),
    "half_val": st.integers(0, 2**16 - 1),
    "scomplex_val": st.floats(width=32),
    "dcomplex_val": st.floats(),
}


@st.composite
def protos(draw: st.DrawFn) -> Any:
    """TensorProtos, mostly good."""
    row = draw(st.sampled_from(list(DTYPES.values())))
    proto = tensor_pb2.TensorProto(dtype=row.enum)
    for size in draw(st.lists(st.integers(0, 3) | st.just(-1), max_size=3)):
        proto.tensor_shape.dim.add().size = size
    field = row.field if draw(st.integers(0, 9)) else draw(st.sampled_from(sorted(FIELDS)))
    if field in FIELDS and draw(st.booleans()):
        getattr(proto, field).extend(draw(st.lists(FIELDS[field], max_size=8)))
    elif draw(st.booleans()):
        proto.tensor_content = draw(st.binary(max_size=40))
    if not draw(st.integers(0, 9)):
        proto.version_number = 1
    return proto


@st.composite
def requests(draw: st.DrawFn) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(NAMES)
    request.model_spec.signature_name = draw(NAMES)
    for alias in draw(st.lists(NAMES, max_size=3)):
        request.inputs[alias].CopyFrom(draw(protos()))
    request.output_filter.extend(draw(st.lists(NAMES, max_size=2)))
    return request


def decoded(alias: str, tensor: Any) -> Any:
    """What `decode` or `decoded` gives, comparable."""
    try:
        array = tensor.decoded(alias) if hasattr(tensor, "decoded") else tensors.decode(alias, tensor)
    except InvalidArgument as error:
        return error.message
    return array.dtype, array.shape, array.tolist() if array.dtype.kind == "O" else array.tobytes()


def assert_same(raw: RawRequest, request: Any) -> None:
    assert raw.signature_name == request.model_spec.signature_name
    assert raw.output_filter == list(request.output_filter)
    assert raw.inputs.keys() == set(request.inputs)
    for alias, tensor in raw.inputs.items():
        assert tensor.dtype == request.inputs[alias].dtype
        assert decoded(alias, tensor) == decoded(alias, request.inputs[alias])


READER = Reader()


@given(requests(), st.booleans())
def test_a_request_is_read_as_the_library_reads_it(request: Any, as_view: bool) -> None:
    payload = request.SerializeToString()
    raw = READER.read(memoryview(payload) if as_view else payload)
    if raw is not None:
        assert_same(raw, request)


@given(requests(), st.data())
def test_spoiled_bytes_are_read_as_the_library_reads_them_or_left_to_it(request: Any, data: st.DataObject) -> None:
    payload = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    raw = READER.read(bytes(payload))
    if raw is not None:
        assert_same(raw, predict_pb2.PredictRequest.FromString(bytes(payload)))


def usual() -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "s"
    for alias, enum, field, values in (
        ("f", types_pb2.DT_FLOAT, "float_val", [1.5, 2.0]),
        ("i", types_pb2.DT_INT32, "int_val", [-1, 300]),
        ("l", types_pb2.DT_INT64, "int64_val", [-1, 1 << 62]),
        ("u", types_pb2.DT_UINT64, "uint64_val", [1 << 63, 0]),
        ("b", types_pb2.DT_BOOL, "bool_val", [True, False]),
        ("s", types_pb2.DT_STRING, "string_val", [b"", b"\xff" * 300]),
    ):
        request.inputs[alias].dtype = enum
        request.inputs[alias].tensor_shape.dim.add().size = 2
        getattr(request.inputs[alias], field).extend(values)
    content = request.inputs["c"]
    content.dtype, content.tensor_content = types_pb2.DT_DOUBLE, np.array([[1.0, 2.0]]).tobytes()
    content.tensor_shape.dim.add().size = 1
    content.tensor_shape.dim.add().size = 2
    request.output_filter.append("y")
    return request


def test_what_clients_send_is_not_left_to_the_library() -> None:
    request = usual()
    raw = Reader().read(request.SerializeToString())
    assert raw is not None
    assert_same(raw, request)


def test_large_values_are_not_copied() -> None:
    numbers = np.arange(100_000, dtype=np.float32)
    for as_content in (True, False):
        request = predict_pb2.PredictRequest()
        request.inputs["x"].CopyFrom(tensors.encode(numbers, types_pb2.DT_FLOAT, as_content=as_content))
        payload = request.SerializeToString()
        raw = Reader().read(payload)
        assert raw is not None
        array = raw.inputs["x"].decoded("x")
        assert np.shares_memory(array, np.frombuffer(payload, np.uint8))
        assert (array == numbers).all()


@given(st.sampled_from(list(DTYPES.values())), st.data(), st.booleans())
def test_a_response_is_written_as_the_library_writes_it(row: Any, data: st.DataObject, as_content: bool) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    size = int(np.prod(shape, dtype=int))
    if row.stored.kind == "O":
        array = np.empty(size, object)
        array[:] = data.draw(st.lists(st.binary(max_size=3), min_size=size, max_size=size))
    elif row.stored.kind == "b":
        array = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.bool_)
    else:
        length = size * row.stored.itemsize
        array = np.frombuffer(data.draw(st.binary(min_size=length, max_size=length)), row.stored)
    array = array.reshape(shape)
    want = predict_pb2.PredictResponse()
    want.model_spec.name, want.model_spec.version.value = "m", 7
    writer = Writer(want.SerializeToString(), {"y": row.enum, "long" * 50: row.enum}, as_content=as_content)
    aliases = ("y", "long" * 50)
    for alias in aliases:
        want.outputs[alias].CopyFrom(tensors.encode(array, row.enum, as_content=as_content))
    raw = b"".join(writer.write(aliases, [array, array]))
    got = predict_pb2.PredictResponse.FromString(raw)
    assert got.SerializeToString(deterministic=True) == want.SerializeToString(deterministic=True)
    assert len(raw) == want.ByteSize()
    assert writer.write_again(aliases, [array, array]) in (raw, None)


def test_responses_that_differ_in_their_numbers_are_written_as_the_first() -> None:
    enums = {"y": types_pb2.DT_FLOAT, "z": types_pb2.DT_DOUBLE}
    writer, fresh = (Writer(b"spec", enums, as_content=False) for _ in range(2))
    aliases = ("y", "z")
    first = [np.ones((2, 3), np.float32), np.ones(1)]
    assert writer.write_again(aliases, first) is None
    writer.write(aliases, first)
    again = [np.arange(6, dtype=np.float32).reshape(3, 2).T, np.full(1, np.nan)]
    assert writer.write_again(aliases, again) == b"".join(fresh.write(aliases, again))
    assert writer.write_again(("z", "y"), again[::-1]) is None
    assert writer.write_again(aliases, [again[0], np.ones(2)]) is None
    assert writer.write_again(aliases, [again[0].astype(np.float64), again[1]]) is None


def many_shapes(outputs: int) -> tuple[Writer, tuple[str, ...], int]:
    """A writer that has written responses of a hundred shapes, what they hold, and what it remembers at the most."""
    enums = {f"the_output_by_the_number_{number}": types_pb2.DT_FLOAT for number in range(outputs)}
    writer, most = Writer(b"", enums, as_content=False), 0
    tracemalloc.start()
    try:
        for rows in range(1, 101):
            writer.write(tuple(enums), [np.zeros(rows, np.float32)] * outputs)
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return writer, tuple(enums), most


def test_what_is_remembered_of_responses_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads by shape, of which there are a hundred, are remembered by themselves."""
    monkeypatch.setattr(predict_wire, "_REMEMBERED_BYTES", 64 * 1024)
    writer, aliases, most = many_shapes(20)
    assert most < 2 * 64 * 1024
    for rows, known in ((100, True), (99, True), (1, False)):
        arrays = [np.ones(rows, np.float32)] * 20
        assert (writer.write_again(aliases, arrays) is not None) is known


def test_a_response_that_takes_more_than_all_may_is_remembered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_wire, "_REMEMBERED_BYTES", 1024)
    writer, aliases, _ = many_shapes(20)
    assert writer.write_again(aliases, [np.ones(100, np.float32)] * 20) is not None
    assert len(writer._forms) == 1


def test_the_same_response_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_wire, "_REMEMBERED_BYTES", 1024)
    writer = Writer(b"", {"y": types_pb2.DT_FLOAT}, as_content=False)
    writer.write(("y",), [np.ones(1, np.float32)])
    for _ in range(10):
        writer.write(("y",), [np.ones(2, np.float32)])
    assert writer.write_again(("y",), [np.ones(1, np.float32)]) is not None


@pytest.mark.parametrize(
    ("enum", "array"),
    [
        (types_pb2.DT_INT32, np.ones(2, np.int32)),
        (types_pb2.DT_STRING, np.array([b"a"], object)),
        (types_pb2.DT_FLOAT, np.ones(0, np.float32)),
        (types_pb2.DT_FLOAT, np.ones(100_000, np.float32)),
    ],
)
def test_responses_whose_size_is_in_their_numbers_are_written_each_time(enum: int, array: Any) -> None:
    writer = Writer(b"", {"y": enum}, as_content=False)
    writer.write(("y",), [array])
    assert writer.write_again(("y",), [array]) is None


def test_large_arrays_and_those_that_are_not_contiguous() -> None:
    array = np.arange(60_000, dtype=np.float32).reshape(200, 300).T
    raw = b"".join(Writer(b"", {"y": types_pb2.DT_FLOAT}, as_content=False).write(("y",), [array]))
    got = tensors.decode("y", predict_pb2.PredictResponse.FromString(raw).outputs["y"])
    assert (got == array).all()


def test_an_output_of_another_dtype_than_declared() -> None:
    with pytest.raises(Internal, match="expected int64, got an array of float32"):
        Writer(b"", {"y": types_pb2.DT_INT64}, as_content=False).write(("y",), [np.ones(1, np.float32)])
