"""Big lists of numbers in a JSON body, made arrays without an object for each list in them.

They are taken out of the text before the rest is parsed: without its inner brackets a nested list is a flat one, which
orjson reads several times as fast, and the brackets and commas alone tell its shape. Owns what counts as such a list;
everything else, errors above all, is left for `json_parser` to read as it stands. It knows nothing of requests, dtypes
or signatures. Pure; any thread.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

Array = npt.NDArray[Any]

# A smaller list is read as fast as it stands.
LEAST_BYTES = 8 * 1024
# With more strings than this in it, a body is one of strings, and looking between them costs more than it can save.
_BYTES_OF_A_STRING = 256
# numpy 1 has no arrays of more dimensions.
_MAX_RANK = 32

_SPACE = b" \t\n\r"
_OF_NUMBERS = b"0123456789+-.eE"
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
_OPEN, _COMMA, _CLOSE = b"[,]"
# A control character in a string must be escaped, and a body with a backslash is not looked at: no client writes this.
_MARK = "\0"
_MARKED = b'"\\u0000%d"'


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body without its big lists. Valid JSON if and only if the body is, and then the same but for those lists."""

    rest: bytes
    arrays: tuple[Array, ...]

    def put_back(self, document: dict[str, Any], keys: tuple[str, ...]) -> bool:
        """Put the arrays where their lists were: below one of the keys, in an object there, or in a list of objects.

        `document` is what `rest` was parsed to. False when an array belongs elsewhere; the document is then of no use.
        """
        return sum(self._fill(document, key, True) for key in keys if key in document) == len(self.arrays)

    def _fill(self, container: dict[str, Any], key: str, deeper: bool) -> int:
        """How many arrays were put at the key and below it."""
        value = container[key]
        if isinstance(value, str) and value.startswith(_MARK):
            container[key] = self.arrays[int(value[1:])]
            return 1
        if not deeper:
            return 0
        objects = value if isinstance(value, list) else (value,)
        return sum(self._fill(each, name, False) for each in objects if isinstance(each, dict) for name in each)


def lift(body: bytes) -> Lifted | None:
    """The body without its big lists of numbers, where an object's key names them; None when there are none."""
    if len(body) < LEAST_BYTES or b"\\" in body or body.count(b'"') > len(body) // _BYTES_OF_A_STRING:
        return None
    rest: list[bytes] = []
    arrays: list[Array] = []
    copied = 0
    for start, end in _lists_in(body):
        array = _array(bytearray(memoryview(body)[start:end]))
        if array is not None:
            rest += (body[copied:start], _MARKED % len(arrays))
            arrays.append(array)
            copied = end
    return Lifted(b"".join((*rest, body[copied:])), tuple(arrays)) if arrays else None


def _lists_in(body: bytes) -> Iterator[tuple[int, int]]:
    """Where there may be big lists: each begins after a key, and ends before the next string or end of an object."""
    # Without a backslash quotes begin and end strings in turn.
    opening = body.find(b'"')
    while opening >= 0:
        closing = body.find(b'"', opening + 1)
        opening = body.find(b'"', closing + 1) if closing >= 0 else -1
        limit = opening if opening >= 0 else len(body)
        if closing < 0 or limit - closing < LEAST_BYTES:
            continue
        start = body.find(b"[", closing, limit)
        if start < 0 or body[closing + 1 : start].strip(_SPACE) != b":":
            continue
        brace = body.find(b"}", start, limit)
        end = body.rfind(b"]", start, brace if brace >= 0 else limit) + 1
        if end - start >= LEAST_BYTES:
            yield start, end


def _array(text: bytearray) -> Array | None:
    """The array of a regular, non-empty, nested list of numbers (NaN among them), as numpy makes it of Python's.

    None for anything else: what is not valid, infinities, numbers too big, lists in the wrong place or of unequal size.
    """
    packed = text.translate(None, _SPACE)
    skeleton = packed.translate(None, _OF_NUMBERS)
    has_nan = b"N" in skeleton
    if has_nan:
        skeleton = skeleton.replace(b"NaN", b"")
    shape = _shape(skeleton)
    if shape is None or not _brackets_enclose(packed):
        return None
    flat = text.translate(_BRACKETS_TO_SPACES)
    flat[0], flat[-1] = _OPEN, _CLOSE
    if has_nan:
        flat = flat.replace(b"NaN", b"null")
    try:
        numbers = orjson.loads(flat)
    except orjson.JSONDecodeError:
        return None
    if len(numbers) != math.prod(shape):
        return None
    if has_nan or any(sign in packed for sign in (b".", b"e", b"E")):
        return np.fromiter(numbers, np.float64, len(numbers)).reshape(shape)
    return np.array(numbers).reshape(shape)


def _shape(skeleton: bytearray) -> tuple[int, ...] | None:
    """The shape of a regular nested list by its brackets and commas; None when there is anything else, or it is not."""
    rank = len(skeleton) - len(skeleton.lstrip(b"["))
    if not 0 < rank <= _MAX_RANK:
        return None
    sizes: list[int] = []
    element = b""
    for level in range(rank):
        # The first list of this level begins after all its parents' brackets, and ends where all its children have.
        end = skeleton.find(b"]" * (level + 1)) + level
        sizes.append((end - (rank - level) + 1) // (len(element) + 1))
        if sizes[-1] < 1 or (len(element) + 1) * sizes[-1] > len(skeleton):
            return None
        element = b"[%b]" % ((element + b",") * sizes[-1])[:-1]
    return tuple(reversed(sizes)) if element == skeleton else None


def _brackets_enclose(packed: bytearray) -> bool:
    """Whether in a text without spaces no bracket opens right after a number, and none closes right before one."""
    text = np.frombuffer(packed, np.uint8)
    brackets = np.flatnonzero((text == _OPEN) | (text == _CLOSE))
    opens = text[brackets] == _OPEN
    before = text[brackets[opens][1:] - 1]
    after = text[brackets[~opens][:-1] + 1]
    return bool(((before == _OPEN) | (before == _COMMA)).all() and ((after == _CLOSE) | (after == _COMMA)).all())
