"""Numbers of an array as TensorFlow Serving writes them in JSON (json_tensor.cc WriteDecimal). Pure; any thread.

Floats have six significant digits where those read back as the same number, else 9 (float32) or 17 (float64); always
with a point or an exponent. Not finite: NaN, Infinity, -Infinity.

Few numbers are written one by one. Of many, numpy finds the digits and orjson writes them, as float64: the shortest
text of a float64 that was made of at most 15 digits is those digits. Where numpy's arithmetic cannot tell the last
digit, and outside of its range, numbers are written one by one again.
"""

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

Array = npt.NDArray[Any]

# For fewer numbers numpy's calls cost more than they save.
MANY = 100

# Of numbers between these numpy finds the digits: all powers of ten that it takes are exact as float64.
_FROM, _BELOW = 1e-9, 1e6
# Smaller numbers are written with an exponent, by TensorFlow Serving from here on, by orjson from a tenth of it.
_PLAIN_FROM = 1e-4
_PLAIN_POWERS = 5
_POWERS = tuple(10.0**exponent for exponent in range(-8, 6))
# By how many of the powers a number reaches: what makes nine digits before the point of it, or six.
_TO_NINE = np.array([10.0**exponent for exponent in range(17, 2, -1)])
_TO_SIX = np.array([10.0**exponent for exponent in range(14, -1, -1)])
# What makes the nine digits a number that orjson writes like TensorFlow Serving but for the exponent: numbers from 1e-5
# to 1e-4, of which orjson would write zeros, get one that no other has.
_FROM_NINE = np.where(_TO_NINE == 1e13, 1e18, _TO_NINE)
_EXPONENTS = (("e-", "e-0"), ("e-010", "e-05"))
# Looking through the whole text for exponents costs more than to write one number of so many by itself.
_FEW = 50
# A product of more digits than a float64 holds is wrong by less than a quarter of this.
_UNSURE = 1e-6


@dataclass(frozen=True, slots=True)
class _Digits:
    """Of each number: how many powers it reaches, and its digits as a whole number of nine.

    `right`: these are what must be written; `long`: more digits than nine; all others are written one by one.
    """

    powers: Array
    digits: Array
    right: Array
    long: Array


def nested(array: Array) -> str:
    """JSON of an array of numbers or booleans with at least one dimension and element, without spaces."""
    if array.dtype.kind != "f":
        return _dumped(array)
    values = array.ravel()
    with np.errstate(all="ignore"):
        found = _digits(values)
        numbers = np.copysign(found.digits / _FROM_NINE[found.powers], values)
    small = found.right & (found.powers < _PLAIN_POWERS) & (found.digits > 0)
    few = np.count_nonzero(small) * _FEW < len(values)
    odd = ~found.right | small if few else ~found.right
    numbers[odd] = np.nan  # null to orjson
    text = _dumped(numbers.reshape(array.shape))
    if not few:
        for theirs, ours in _EXPONENTS:
            text = text.replace(theirs, ours)
    if not odd.any():
        return text
    written = _written(values[odd], found.long[odd])
    return "".join(chain.from_iterable(zip_longest(text.split("null"), written, fillvalue="")))


def listed(values: Array) -> list[str]:
    """JSON of each element of a flat array of numbers or booleans."""
    if len(values) >= MANY:
        return nested(values)[1:-1].split(",")
    if values.dtype.kind == "f":
        return one_by_one(values)
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    return list(map(str, values.tolist()))


def one_by_one(values: Array) -> list[str]:
    """JSON of each element of a flat float32 or float64 array, whatever it is."""
    texts = _formatted("%g", values)
    with np.errstate(over="ignore"):
        same = np.fromiter(map(float, texts), np.float64, len(texts)).astype(values.dtype) == values
    if not same.all():
        longer = np.flatnonzero(~same)
        pattern = "%.9g" if values.dtype == np.float32 else "%.17g"
        for index, text in zip(longer.tolist(), _formatted(pattern, values[longer]), strict=True):
            texts[index] = text
    texts = _pointed(texts)
    finite = np.isfinite(values)
    if not finite.all():
        for index, text in zip(np.flatnonzero(~finite).tolist(), _not_finite(values[~finite]), strict=True):
            texts[index] = text
    return texts


def _not_finite(values: Array) -> list[str]:
    texts: list[str] = np.where(np.isnan(values), "NaN", np.where(values > 0, "Infinity", "-Infinity")).tolist()
    return texts


def _formatted(pattern: str, values: Array) -> list[str]:
    return (f"{pattern} " * len(values) % tuple(values.tolist())).split()


def _pointed(texts: list[str]) -> list[str]:
    return [text if "." in text or "e" in text else f"{text}.0" for text in texts]


def _dumped(array: Array) -> str:
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY).decode("ascii")


def _digits(values: Array) -> _Digits:
    """The digits of flat floats. What is not finite makes numpy warn."""
    size = np.abs(values.astype(np.float64))
    powers = sum((size >= power for power in _POWERS), np.zeros(len(size), np.uint8))
    to_six = _TO_SIX[powers]
    six = np.rint(size * to_six)
    # Near a tie, where the product may round to the wrong side, neither side reads back as the same number.
    same = (six / to_six).astype(values.dtype) == np.abs(values)
    known = ((size >= _FROM) & (size < _BELOW)) | (size == 0)
    digits, right = six * 1000.0, known & same
    if values.dtype == np.float32:
        product = size * _TO_NINE[powers]
        nine = np.rint(product)
        digits = np.where(same, digits, nine)
        right |= known & (np.abs(product - nine) < 0.5 - _UNSURE)
    long = known & ~same if values.dtype == np.float64 else np.zeros(len(size), np.bool_)
    # Rounding up to a power of ten may end the need of an exponent.
    return _Digits(powers, digits, right & ((size >= _PLAIN_FROM) | (digits < 1e9)), long)


def _written(values: Array, long: Array) -> list[str]:
    """JSON of flat floats; `long` are known to need 17 digits."""
    texts = np.empty(len(values), object)
    finite = np.isfinite(values)
    texts[long] = _pointed(_formatted("%.17g", values[long]))
    texts[finite & ~long] = one_by_one(values[finite & ~long])
    texts[~finite] = _not_finite(values[~finite])
    result: list[str] = texts.tolist()
    return result
