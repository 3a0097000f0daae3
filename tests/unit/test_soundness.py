"""Whether rows may be put together: by declaration, by the graph, and by trying it."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.tensors import DTYPES
from modelpool.worker import soundness
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

Run = Callable[[np.ndarray], np.ndarray]


class Model:
    """`y` is what `run` makes of `x`."""

    def __init__(
        self, run: Run, x: Sequence[int] | None, y: Sequence[int] | None, enum: int = types_pb2.DT_FLOAT
    ) -> None:
        signature = meta_graph_pb2.SignatureDef()
        for info, name, shape in ((signature.inputs["x"], "x:0", x), (signature.outputs["y"], "y:0", y)):
            info.name, info.dtype = name, enum
            if shape is None:
                info.tensor_shape.unknown_rank = True
            else:
                info.tensor_shape.SetInParent()
            for size in shape or ():
                info.tensor_shape.dim.add().size = size
        self.signatures: Mapping[str, Any] = {"s": signature, "__saved_model_init_op": signature}
        self._run = run

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        return [self._run(feeds["x:0"]) for _ in fetches]


def verdict(model: Model, changing: Sequence[str] = (), seen: soundness.Seen = ()) -> soundness.Verdict:
    verdicts = soundness.judge(model, lambda fetches: list(changing), seen)
    assert set(verdicts) == {"s"}
    return verdicts["s"]


@pytest.mark.parametrize(("x", "y"), [([1], [-1]), ([-1], [1]), ([], [-1]), ([-1], []), (None, [-1]), ([-1], None)])
def test_every_first_dimension_must_vary(x: Sequence[int] | None, y: Sequence[int] | None) -> None:
    found = verdict(Model(lambda array: array, x, y))
    assert not found.sound
    assert "first dimension" in found.why


@pytest.mark.parametrize("declared", [[-1, 3], [1, 3]])
def test_what_may_be_divided_is_tried_whatever_is_declared(declared: Sequence[int]) -> None:
    def of(run: Run, enum: int = types_pb2.DT_FLOAT) -> bool:
        return soundness.divisible(Model(run, declared, declared, enum), lambda fetches: [], [])["s"].sound

    assert of(lambda array: array * 2)
    assert not of(mean)
    assert not of(total)
    assert of(lambda array: array, types_pb2.DT_QINT8) is (declared[0] == -1), "where nothing can be tried"


def test_nothing_may_change_state() -> None:
    """Nor does the trial."""
    ran: list[np.ndarray] = []

    def run(array: np.ndarray) -> np.ndarray:
        ran.append(array)
        return array

    model = Model(run, [-1], [-1])
    unsound = soundness.Verdict(False, "it changes state: Assign")
    assert verdict(model, ["Assign"]) == unsound
    assert soundness.divisible(model, lambda fetches: ["Assign"] if fetches == ["y:0"] else [], [])["s"] == unsound
    assert not ran


def test_rows_that_are_independent() -> None:
    found = verdict(Model(lambda array: array * 2, [-1, 3], [-1, 3]))
    assert found == soundness.Verdict(True, "by made-up inputs: rows have the same answers together as apart")


def mean(array: np.ndarray) -> np.ndarray:
    return array - array.mean(axis=0)


def first(array: np.ndarray) -> np.ndarray:
    """The first row for each."""
    return np.repeat(array[:1], len(array), axis=0)


def total(array: np.ndarray) -> np.ndarray:
    return array.sum(axis=0, keepdims=True)


@pytest.mark.parametrize(("run", "why"), [(mean, "other answers together than apart"), (total, "0th dimension")])
def test_rows_that_are_not(run: Run, why: str) -> None:
    found = verdict(Model(run, [-1, 3], [-1, 3]))
    assert not found.sound
    assert why in found.why


def test_what_the_warmup_has_seen_is_tried_first() -> None:
    seen = [({"x:0": np.full((1, 2), n, np.float32)}, ["y:0"]) for n in range(3)]
    seen.append(({"other:0": np.ones(1)}, ["y:0"]))
    found = verdict(Model(lambda array: array, [-1, -1], [-1, -1]), seen=seen)
    assert found == soundness.Verdict(True, "by warmup requests: rows have the same answers together as apart")


@pytest.mark.parametrize("warmed", [np.zeros((1, 3), np.float32), np.full((2, 3), 7, np.float32)])
@pytest.mark.parametrize("records", [1, 2])
def test_a_row_beside_its_own_copy_tells_nothing(warmed: np.ndarray, records: int) -> None:
    """As of `auto_warmup`, and of a warmup file whose records are alike."""
    seen = [({"x:0": warmed}, ["y:0"])] * records
    found = verdict(Model(mean, [-1, 3], [-1, 3]), seen=seen)
    assert found == soundness.Verdict(False, "rows have other answers together than apart, by made-up inputs")
    assert verdict(Model(lambda array: array, [-1, 3], [-1, 3]), seen=seen).sound


@pytest.mark.parametrize("dtype", ["DT_FLOAT", "DT_HALF", "DT_BFLOAT16", "DT_COMPLEX64"])
def test_nor_do_two_that_are_not_numbers(dtype: str) -> None:
    enum = types_pb2.DataType.Value(dtype)
    warmed = np.full((1, 3), np.nan).astype(DTYPES[enum].numpy)
    copies = [({"x:0": warmed.copy()}, ["y:0"]) for _ in range(2)]
    found = verdict(Model(first, [-1, 3], [-1, 3], enum), seen=copies)
    assert found == soundness.Verdict(False, "rows have other answers together than apart, by made-up inputs")


def test_a_model_that_takes_only_what_it_was_warmed_with() -> None:
    """Its own values in another order serve; so do its inner sizes, for numbers that are made up."""
    warmed = np.arange(4, dtype=np.float32).reshape(1, 4)

    def picky(array: np.ndarray) -> np.ndarray:
        if array.shape[1] != 4 or not np.isin(array, warmed).all():
            raise InvalidArgument("not so")
        return mean(array)

    found = verdict(Model(picky, [-1, -1], [-1, -1]), seen=[({"x:0": warmed}, ["y:0"])])
    assert found == soundness.Verdict(False, "rows have other answers together than apart, by a warmup request")

    def wide(array: np.ndarray) -> np.ndarray:
        return mean(array) if array.shape[1] == 4 else array

    found = verdict(Model(wide, [-1, -1], [-1, -1]), seen=[({"x:0": np.zeros((1, 4), np.float32)}, ["y:0"])])
    assert not found.sound


def test_one_request_alone_still_shows_what_takes_no_two_rows() -> None:
    def one_row(array: np.ndarray) -> np.ndarray:
        if len(array) != 1 or array.any():
            raise InvalidArgument("one row of zeros, please")
        return array

    found = verdict(Model(one_row, [-1, 3], [-1, 3]), seen=[({"x:0": np.zeros((1, 3), np.float32)}, ["y:0"])])
    assert found == soundness.Verdict(False, "one row of zeros, please, by a warmup request")


def words(array: np.ndarray) -> np.ndarray:
    """As a tokenizer's flat values: as many as there are words, in whatever rows."""
    return np.array([word for text in array for word in text.split()], object)


def test_texts_are_made_up_too() -> None:
    found = verdict(Model(words, [-1], [-1], types_pb2.DT_STRING))
    assert not found.sound
    assert "0th dimension" in found.why
    found = verdict(Model(lambda array: array + b"!", [-1], [-1], types_pb2.DT_STRING))
    assert found == soundness.Verdict(True, "by made-up inputs: rows have the same answers together as apart")


@pytest.mark.parametrize("dtype", ["DT_HALF", "DT_BFLOAT16", "DT_COMPLEX64", "DT_INT64", "DT_UINT8", "DT_BOOL"])
def test_every_dtype_tells(dtype: str) -> None:
    enum = types_pb2.DataType.Value(dtype)
    assert verdict(Model(lambda array: array, [-1, 3], [-1, 3], enum)).why.startswith("by made-up inputs")
    assert not verdict(Model(first, [-1, 3], [-1, 3], enum)).sound


def test_without_inputs_there_is_the_declaration_and_the_graph() -> None:
    found = verdict(Model(lambda array: array, [-1], [-1], types_pb2.DT_QINT8))
    assert found.sound
    assert "no inputs to try it with" in found.why

    def refuse(array: np.ndarray) -> np.ndarray:
        raise InvalidArgument("not so")

    found = verdict(Model(refuse, [-1], [-1]))
    assert found.sound
    assert "it refuses what it was tried with: not so" in found.why
