"""Golden requests: a version serves only when it answers them as expected. Pure but for the model; main thread.

`assets.extra/golden_requests` has TFRecords of PredictionLog with request and expected response. Outputs are compared
by name, dtype, shape and value: floats within a tolerance, everything else exactly. An output that the expected
response lacks is not compared, nor are model_specs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelpool.supervisor.wire import tensors
from modelpool.supervisor.wire.status import FailedPrecondition, InvalidArgument, PoolError, Status, StatusError
from modelpool.supervisor.wire.tensors import DTYPES, dtype_name

from . import prediction_logs
from .calls import Calls

_ECHO_CHARS = 80
_INEXACT = ("half", "bfloat16", "float", "double", "complex")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Floats pass when |got - want| <= absolute + relative * |want|; NaN equals NaN."""

    relative: float
    absolute: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where an answer is not what was expected; `where` names the output and the element's index."""

    where: str
    got: str
    want: str

    def __str__(self) -> str:
        return f"{self.where}: got {self.got[:_ECHO_CHARS]}, want {self.want[:_ECHO_CHARS]}"


def check(calls: Calls, path: str, records: Iterable[bytes], tolerance: Tolerance) -> int:
    """Ask every golden request once; how many there were. `records` are those of the file `path`.

    Raises FailedPrecondition at the first difference; a request that is not answered raises its own code.
    """
    count = 0
    for log in prediction_logs.parsed(prediction_logs.GOLDEN, path, records):
        count += 1
        where = f"Golden request {count} of {path}"
        kind = log.WhichOneof("log_type")
        if kind is None:
            continue
        compare = _COMPARE.get(kind)
        if compare is None:
            number = log.DESCRIPTOR.fields_by_name[kind].number
            raise FailedPrecondition(f"{where}: Unsupported log_type for golden requests: {number}")
        logged = getattr(log, kind)
        try:
            got = calls.answer(log, "golden requests")
            difference = compare(got, logged.response, tolerance) if logged.HasField("response") else None
        except PoolError as error:
            raise StatusError(Status(error.status.code, f"{where}: {error.status.message}")) from error
        if difference is not None:
            raise FailedPrecondition(f"{where}: {difference}")
    return count


# -- responses ---------------------------------------------------------------------------------------------------


def predict_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two PredictResponses. Raises FailedPrecondition when an expected tensor is broken."""
    for alias in sorted(want.outputs):
        where = f'output "{alias}"'
        if alias not in got.outputs:
            return Difference(where, "no such output", "one")
        try:
            expected = tensors.decode(alias, want.outputs[alias])
        except InvalidArgument as error:
            raise FailedPrecondition(f"{where}: the expected response is broken: {error.message}") from error
        enums = got.outputs[alias].dtype, want.outputs[alias].dtype
        if enums[0] != enums[1]:
            return Difference(where, dtype_name(enums[0]), dtype_name(enums[1]))
        found = array_difference(where, tensors.decode(alias, got.outputs[alias]), expected, enums[0], tolerance)
        if found is not None:
            return found
    return None


def classify_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two ClassificationResponses."""
    return _classifications_difference(got.result, want.result, tolerance)


def regress_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two RegressionResponses."""
    return _regressions_difference(got.result, want.result, tolerance)


def multi_inference_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two MultiInferenceResponses; results are matched by their places, which are the tasks'."""
    if len(got.results) != len(want.results):
        return Difference("results", str(len(got.results)), str(len(want.results)))
    for number, (mine, expected) in enumerate(zip(got.results, want.results, strict=True)):
        where = f"results[{number}]"
        kind, expected_kind = mine.WhichOneof("result"), expected.WhichOneof("result")
        if expected_kind is None:
            continue
        if kind != expected_kind:
            return Difference(where, str(kind), expected_kind)
        found = _RESULTS[kind](getattr(mine, kind), getattr(expected, kind), tolerance)
        if found is not None:
            return replace(found, where=f"{where}.{found.where}")
    return None


def _classifications_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two ClassificationResults."""
    rows, expected_rows = got.classifications, want.classifications
    if len(rows) != len(expected_rows):
        return Difference("classifications", str(len(rows)), str(len(expected_rows)))
    for row, (mine, expected) in enumerate(zip(rows, expected_rows, strict=True)):
        where = f"classifications[{row}].classes"
        if len(mine.classes) != len(expected.classes):
            return Difference(where, str(len(mine.classes)), str(len(expected.classes)))
        for index, (one, other) in enumerate(zip(mine.classes, expected.classes, strict=True)):
            if one.label != other.label:
                return Difference(f"{where}[{index}].label", repr(one.label), repr(other.label))
            if not _close(np.float64(one.score), np.float64(other.score), tolerance):
                return Difference(f"{where}[{index}].score", str(one.score), str(other.score))
    return None


def _regressions_difference(got: Any, want: Any, tolerance: Tolerance) -> Difference | None:
    """Of two RegressionResults."""
    rows, expected_rows = got.regressions, want.regressions
    if len(rows) != len(expected_rows):
        return Difference("regressions", str(len(rows)), str(len(expected_rows)))
    for row, (one, other) in enumerate(zip(rows, expected_rows, strict=True)):
        if not _close(np.float64(one.value), np.float64(other.value), tolerance):
            return Difference(f"regressions[{row}].value", str(one.value), str(other.value))
    return None


_Compare = Callable[[Any, Any, Tolerance], Difference | None]
_COMPARE: Mapping[str, _Compare] = {
    "predict_log": predict_difference,
    "classify_log": classify_difference,
    "regress_log": regress_difference,
    "multi_inference_log": multi_inference_difference,
}
# The results of a MultiInferenceResponse, by the field that holds them.
_RESULTS: Mapping[str, _Compare] = {
    "classification_result": _classifications_difference,
    "regression_result": _regressions_difference,
}


# -- arrays ------------------------------------------------------------------------------------------------------


def array_difference(
    where: str, got: np.ndarray, want: np.ndarray, dtype_enum: int, tolerance: Tolerance
) -> Difference | None:
    """The first element, in row-major order, that differs; both arrays are of the DataType `dtype_enum`."""
    if got.shape != want.shape:
        return Difference(f"{where} shape", tensors.shape_text(got), tensors.shape_text(want))
    dtype = DTYPES[dtype_enum]
    # Quantized types are one-field records; the plain dtype of the same bytes compares.
    mine, expected = (
        array.reshape(-1) if dtype.stored.kind == "O" else _flat(array, dtype.stored) for array in (got, want)
    )
    equal = _close(mine, expected, tolerance) if dtype.name.startswith(_INEXACT) else mine == expected
    wrong = np.flatnonzero(~np.asarray(equal, dtype=bool))
    if not wrong.size:
        return None
    index = ",".join(map(str, np.unravel_index(int(wrong[0]), got.shape)))
    return Difference(f"{where}[{index}]" if got.ndim else where, str(mine[wrong[0]]), str(expected[wrong[0]]))


def _flat(array: np.ndarray, stored: "np.dtype[Any]") -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(stored)


def _close(got: Any, want: Any, tolerance: Tolerance) -> Any:
    """Elementwise. An infinity is close to itself only, however far the tolerance reaches."""
    kind = np.complex128 if np.iscomplexobj(want) else np.float64
    one, other = np.asarray(got).astype(kind), np.asarray(want).astype(kind)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(one - other) <= tolerance.absolute + tolerance.relative * np.abs(other)
    finite = np.isfinite(one) & np.isfinite(other)
    return (finite & near) | (one == other) | (np.isnan(one) & np.isnan(other))
