"""The reader of the request's head against protobuf's own parser."""

import contextlib
import random
import struct
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest

from modelpool.frontend import model_spec
from modelpool.frontend.model_spec import MalformedRequest, ModelSpec, TooManyFields
from modelpool.supervisor.wire.parts import Parts
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import Code

# GetModelStatusRequest has the field model_spec = 1 as all inference requests have; the others are unknown fields.
REQUEST = GetModelStatusRequest
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(max_size=12)


def expected(raw: bytes) -> ModelSpec | None:
    request = REQUEST.FromString(raw)
    if not request.HasField("model_spec"):
        return None
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def delimited(number: int, value: bytes) -> bytes:
    return tag(number, 2) + varint(len(value)) + value


def unknown_fields(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    plain = st.one_of(
        st.builds(lambda n, v: tag(n, 0) + varint(v), numbers, INT64),
        st.builds(lambda n, v: tag(n, 1) + struct.pack("<q", v), numbers, INT64),
        st.builds(delimited, numbers, st.binary(max_size=200)),
        st.builds(lambda n, v: tag(n, 5) + struct.pack("<I", v), numbers, st.integers(0, (1 << 32) - 1)),
    )
    return st.recursive(
        plain,
        lambda inner: st.builds(
            lambda n, parts: tag(n, 3) + b"".join(parts) + tag(n, 4), numbers, st.lists(inner, max_size=3)
        ),
        max_leaves=5,
    )


SPEC_FIELDS = st.one_of(
    st.builds(lambda v: delimited(1, v.encode()), TEXT),
    st.builds(lambda v: delimited(2, tag(1, 0) + varint(v)), INT64),
    st.just(delimited(2, b"")),
    st.builds(lambda v: delimited(3, v.encode()), TEXT),
    st.builds(lambda v: delimited(4, v.encode()), TEXT),
    unknown_fields(st.integers(5, 40)),
    st.builds(lambda v: tag(1, 0) + varint(v), INT64),  # a known number with another wire type
)
SPECS = st.builds(lambda parts: delimited(1, b"".join(parts)), st.lists(SPEC_FIELDS, max_size=8))
REQUESTS = st.builds(b"".join, st.lists(st.one_of(SPECS, unknown_fields(st.integers(2, (1 << 29) - 1))), max_size=6))


@given(REQUESTS)
def test_same_as_protobuf(raw: bytes) -> None:
    assert model_spec.read(raw) == expected(raw)
    assert model_spec.read(Parts([memoryview(raw)])) == expected(raw)
    assert model_spec.read(Parts([raw[:3], memoryview(raw)[3:]])) == expected(raw)


@given(REQUESTS, st.integers(0, 1 << 30), st.lists(st.integers(0, 255), min_size=1, max_size=3))
@example(b"\x13\x11" + bytes(8) + b"\x00\x00\x14", 0, [0])  # field number 0 within a group
def test_damaged_is_refused_or_as_protobuf(raw: bytes, seed: int, values: list[int]) -> None:
    damaged = bytearray(raw)
    chooser = random.Random(seed)
    for value in values:
        if damaged:
            damaged[chooser.randrange(len(damaged))] = value
    check(bytes(damaged[: chooser.randrange(len(damaged) + 1)]))
    check(bytes(damaged))


VALUES = st.one_of(st.binary(max_size=8), st.integers(100, 300).map(bytes))
USUAL = st.builds(lambda name, value: delimited(1, delimited(1, name.encode())) + delimited(2, value), TEXT, VALUES)


@given(USUAL, st.integers(0, 400), st.integers(0, 255), st.integers(0, 2))
def test_one_like_an_earlier_one_is_read_like_any_other(raw: bytes, at: int, value: int, more: int) -> None:
    model_spec.read(raw)
    like = bytearray(raw + bytes(more))
    like[at % len(like)] = value
    now = outcome(bytes(like))
    model_spec._known.clear()
    assert outcome(bytes(like)) == now


def outcome(raw: bytes) -> object:
    try:
        return model_spec.read(raw)
    except MalformedRequest as error:
        return str(error)


def test_few_of_the_earlier_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_spec, "_MOST_KNOWN", 3)
    for number in range(200):
        name = b"%04d" % number
        raw = delimited(1, delimited(1, name)) + delimited(2, bytes(number % 5))
        assert model_spec.read(raw) == ModelSpec(name.decode())
        assert len(model_spec._known) <= 3
        assert all(len(specs) <= 3 for _, specs in model_spec._known.values())


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_as_protobuf(raw: bytes) -> None:
    check(raw)


def check(raw: bytes) -> None:
    """Whatever protobuf accepts is read alike; the rest is MalformedRequest, or left to the worker to refuse."""
    try:
        known = expected(raw)
    except Exception:  # noqa: BLE001 - google.protobuf.message.DecodeError of whichever implementation
        with contextlib.suppress(MalformedRequest):
            model_spec.read(raw)
    else:
        assert model_spec.read(raw) == known


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\x80",
        b"\x00",
        b"\x07",
        b"\x0b",
        b"\x0c",
        b"\x13\x1c",
        b"\x11\x01\x02",
        b"\x0a\x03\x0a\x01\xff",
        b"\x0a\x02\x0a\x05hello",
        b"\x80" * 11,
        b"\x13" * 1_000_000,
    ],
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"^Malformed request: ") as caught:
        model_spec.read(raw)
    assert caught.value.code is Code.INTERNAL


def test_a_large_payload_is_skipped_not_read() -> None:
    payload = delimited(2, bytes(10_000_000))
    spec = delimited(1, delimited(1, b"m") + delimited(2, tag(1, 0) + varint(3)))
    assert model_spec.read(payload + spec) == ModelSpec("m", 3)
    assert model_spec.read(spec + payload) == ModelSpec("m", 3)


MANY = 2_000_000
SPEC_M = delimited(1, delimited(1, b"m"))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x10\x00" * MANY,
        SPEC_M + b"\x10\x00" * MANY,
        SPEC_M * MANY,
        delimited(1, b"\x28\x00" * MANY),
        delimited(1, delimited(2, b"\x08\x01" * MANY)),
        tag(9, 3) + b"\x10\x00" * MANY + tag(9, 4),
        delimited(1, b"\x28\x00" * 1000) * 1000,
    ],
    ids=["top", "after the spec", "specs", "in the spec", "in the version", "in a group", "in all of many specs"],
)
def test_a_request_of_very_many_fields_holds_nobody_up(raw: bytes) -> None:
    started_s = time.process_time()
    with pytest.raises(TooManyFields, match="too many fields: expected at most 4096 ") as caught:
        model_spec.read(raw)
    assert time.process_time() - started_s < 0.1
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_thousand_inputs_are_not_too_many() -> None:
    assert model_spec.read(delimited(2, b"input") * 4000 + SPEC_M) == ModelSpec("m")


OTHERS = st.integers(3, (1 << 29) - 1)  # numbers that neither MultiInferenceRequest nor InferenceTask uses
TASKS = st.builds(
    b"".join,
    st.lists(
        st.one_of(
            st.builds(lambda parts: delimited(1, b"".join(parts)), st.lists(st.one_of(SPECS, unknown_fields(OTHERS)))),
            unknown_fields(OTHERS),
        ),
        max_size=4,
    ),
)


@given(TASKS)
def test_the_first_task_is_the_one_that_protobuf_finds(raw: bytes) -> None:
    tasks = MultiInferenceRequest.FromString(raw).tasks
    first = expected(tasks[0].SerializeToString()) if tasks else None
    assert model_spec.read_first_task(raw) == (first or ModelSpec())


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05ab", b"\x0a\x02\x0a\x01", delimited(1, b"\x0a\x03\x0a\x01\xff")])
def test_a_malformed_first_task(raw: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"^Malformed request: "):
        model_spec.read_first_task(raw)


@pytest.mark.parametrize(
    "raw",
    [b"\x10\x00" * MANY, delimited(1, b"\x18\x00" * MANY), delimited(1, delimited(1, b"\x28\x00" * MANY))],
    ids=["top", "in the task", "in its spec"],
)
def test_a_multi_inference_of_very_many_fields_holds_nobody_up(raw: bytes) -> None:
    started_s = time.process_time()
    with pytest.raises(TooManyFields):
        model_spec.read_first_task(raw)
    assert time.process_time() - started_s < 0.1


def test_tasks_after_the_first_are_not_looked_at() -> None:
    assert model_spec.read_first_task(delimited(1, SPEC_M) + b"\x10\x00" * MANY) == ModelSpec("m")
