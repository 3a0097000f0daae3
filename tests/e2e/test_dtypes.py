"""Every dtype that a TensorProto carries comes back as it was sent, from a TF1 and from a TF2 SavedModel."""

from typing import Any

import numpy as np
import pytest

from tests.e2e.plain_models import DTYPES
from tests.e2e.pool import Pool, predict_request
from tests.e2e.tensor_proto import array_of, tensor

_EXTREMES: dict[str, Any] = {
    "string": [[b"", b"\x00\xff"], ["\u00e4\u20ac".encode(), b"x" * 1000]],
    "bool": [[True, False], [False, True]],
    "complex64": [[1 + 2j, -0.5j], [0, 3.25]],
    "complex128": [[1 + 2j, -0.5j], [0, 1e300]],
    "float16": [[1.5, -2.25], [65504, np.inf]],
    "bfloat16": [[1.5, -2.25], [-np.inf, 0]],
    "float32": [[1.5, -2.25], [3.4e38, -np.inf]],
    "float64": [[1.5, -2.25], [1.7e308, 5e-324]],
}


def _sample(dtype: str) -> Any:
    if dtype in _EXTREMES:
        return array_of(_EXTREMES[dtype], dtype)
    limits = np.iinfo(array_of(0, dtype).dtype)
    return array_of([[limits.min, limits.max], [0, 1]], dtype)


def _round_trip(pool: Pool, model: str, dtype: str, proto: Any) -> Any:
    return pool.predict(predict_request(model, {"x": proto}, signature=dtype)).outputs["y"]


# A tf.function takes no quantized types.
TF2_DTYPES = [dtype for dtype in DTYPES if not dtype.startswith("q")]


@pytest.mark.parametrize(
    ("model", "dtype"), [*(("dtypes", dtype) for dtype in DTYPES), *(("dtypes_tf2", dtype) for dtype in TF2_DTYPES)]
)
def test_round_trip(shared_pool: Pool, model: str, dtype: str) -> None:
    sample = _sample(dtype)
    for shaped in (sample, sample[0], sample[0, 0], sample[:0]):
        sent = tensor(shaped, dtype)
        assert _round_trip(shared_pool, model, dtype, sent) == sent
        if dtype != "string":
            assert _round_trip(shared_pool, model, dtype, tensor(shaped, dtype, content=True)) == sent


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_short_list_repeats_its_last_value(shared_pool: Pool, dtype: str) -> None:
    last = _sample(dtype)[0, 1]
    short = tensor(np.full([1], last, dtype=array_of(0, dtype).dtype), dtype)
    short.tensor_shape.dim[0].size = 3
    assert _round_trip(shared_pool, "dtypes", dtype, short) == tensor(
        np.full([3], last, dtype=array_of(0, dtype).dtype), dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_list_means_zeros(shared_pool: Pool, dtype: str) -> None:
    zero: Any = b"" if dtype == "string" else 0
    wanted = tensor([zero, zero], dtype)
    none = tensor([zero, zero], dtype)
    none.ClearField(next(name.name for name, _ in none.ListFields() if name.name.endswith("_val")))
    assert _round_trip(shared_pool, "dtypes", dtype, none) == wanted


def test_nan_keeps_being_nan(shared_pool: Pool) -> None:
    got = _round_trip(shared_pool, "dtypes", "float32", tensor([np.nan]))
    assert np.isnan(got.float_val[0])
