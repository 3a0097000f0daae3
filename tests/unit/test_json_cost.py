"""REST bodies that are read in memory of their own size, though they are made to take far more."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import json
import tracemalloc
from typing import Any

import pytest
from modelpool.supervisor.wire.status import PoolError
from modelpool.worker import rest_json

FLOAT, INT32, BOOL = 1, 3, 10
MOST_BYTES = 4 << 20

NUMBERS = [1.5] * 3000
STRING = "x" * 9000  # numpy makes strings of one length of all, 36 kB each


def read(body: bytes, inputs: dict[str, int]) -> str:
    """Its error, or "", in little memory."""
    tracemalloc.start()
    try:
        rest_json.parse(body).tensors(inputs)
    except PoolError as error:
        return error.message
    finally:
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most_bytes < MOST_BYTES
    return ""


@pytest.mark.parametrize("dtype", [FLOAT, INT32, BOOL])
@pytest.mark.parametrize(
    "document",
    [
        {"instances": [*NUMBERS, STRING]},
        {"instances": [*([1, 2] for _ in NUMBERS), [1, STRING]]},
        {"instances": [*({"x": 1} for _ in NUMBERS), {"x": STRING}]},
        {"inputs": [*NUMBERS, STRING]},
        {"inputs": {"x": [*NUMBERS, STRING]}},
        {"inputs": [STRING, *NUMBERS]},
        {"inputs": [*NUMBERS, STRING, "\udcff"]},
    ],
    ids=["rows", "lists", "named rows", "columns", "named columns", "first", "no UTF-8"],
)
def test_a_long_string_among_many_numbers(document: Any, dtype: int) -> None:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
    assert " is not of expected type: " in read(body, {"x": dtype})


def test_a_long_string_deep_within_lists() -> None:
    body = json.dumps({"inputs": {"x": [[[["x" * 200_000]]]]}}).encode()
    assert read(body, {"x": 7}) == ""
