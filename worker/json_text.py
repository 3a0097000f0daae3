"""JSON text as TensorFlow Serving reads and echoes it: a tolerant parser, and the text of single values.

TensorFlow Serving parses with RapidJSON (reader.h: iterative, NaN and infinities allowed, stops after the first value);
the reasons and offsets of errors here are RapidJSON's. The module knows nothing of tensors or requests. Values are
None, bool, int, float, str, list and dict; bytes that are not UTF-8 stay in a str as surrogate escapes, so that
`raw_bytes` gives back what came in. A number without fraction and exponent is an int if it fits int64 or uint64 and a
float otherwise. Nothing here recurses: depth is limited by memory only. Pure; any thread.
"""

import re
from collections.abc import Iterator
from typing import Any, Never

import numpy as np
import numpy.typing as npt
import orjson

from modelpool.supervisor.wire.status import InvalidArgument

# Echoes of a value in error texts are cut here.
MAX_ECHO_BYTES = 256

_BOM = b"\xef\xbb\xbf"
_INT64_MIN = -(2**63)
_UINT64_MAX = 2**64 - 1
_MAX_EXPONENT = 308
_MAX_FLOAT = 3.4028234e38

_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN_STRING = re.compile(rb'"([^"\\\x00-\x1f]*)"')
_PLAIN_TEXT = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_EXPONENT_START = re.compile(rb"[eE][+-]?")
_NUMBER_LIST = re.compile(rb"\[[-+0-9eE., \t\n\r]+\]")
_STRINGS_AND_BRACES = re.compile(rb'"(?:[^"\\]|\\.)*"(?:[ \t\n\r]*(:))?|[{}]', re.DOTALL)
_HEX4 = re.compile(rb"[0-9A-Fa-f]{4}")
_OPENED = object()
_LITERALS = ((b"null", None), (b"true", True), (b"false", False))
_ESCAPES = {
    ord('"'): b'"',
    ord("\\"): b"\\",
    ord("/"): b"/",
    ord("b"): b"\b",
    ord("f"): b"\f",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("t"): b"\t",
}


def parse(body: bytes) -> Any:
    """The first JSON value of `body`; what follows it is ignored, the first of duplicate keys wins.

    Raises InvalidArgument `JSON Parse error: <reason> at offset: <n>`; json_tensor.cc ParseJson.
    """
    if not body:
        raise InvalidArgument("JSON Parse error: The document is empty")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _Reader(body).document()
    # orjson accepts a subset of what RapidJSON accepts, and reads it the same except that the last key wins.
    if body.count(b'"') != 2 * _strings_near_the_top(value) and _repeats_a_key(body):
        return _Reader(body).document()
    return value


def raw_bytes(text: str) -> bytes:
    """The bytes that stood in the body (with escapes resolved)."""
    return text.encode("utf-8", "surrogateescape")


def _strings_near_the_top(value: Any, depth: int = 0) -> int:
    """Keys and strings that are found without a look at each number. All quotes counted: no key is repeated."""
    if isinstance(value, str):
        return 1
    if depth == 4:
        return 0
    if isinstance(value, dict):
        return len(value) + sum(_strings_near_the_top(item, depth + 1) for item in value.values())
    if isinstance(value, list) and value and isinstance(value[0], str | dict):
        return sum(_strings_near_the_top(item, depth + 1) for item in value)
    return 0


def _repeats_a_key(body: bytes) -> bool:
    """Whether an object of this valid JSON text may have a key twice; keys with escapes count as repeated."""
    open_objects: list[set[bytes]] = []
    for match in _STRINGS_AND_BRACES.finditer(body):
        token = match.group()
        if token == b"{":
            open_objects.append(set())
        elif token == b"}":
            open_objects.pop()
        elif match.group(1):
            key = token[: token.rindex(b'"')]
            if key in open_objects[-1] or b"\\" in key:
                return True
            open_objects[-1].add(key)
    return False


class _Reader:
    """One pass over a body that is in some way unusual; exact, but slower than orjson."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = len(_BOM) if body.startswith(_BOM) else 0

    def document(self) -> Any:
        self._skip_space()
        # A bracket or separator that closes or parts nothing counts as no document at all.
        if self._peek() in (b"", b"\0", b"]", b"}", b",", b":"):
            self._fail("The document is empty.")
        stack: list[Any] = []
        keys: list[str] = []
        while True:
            value = self._start_of_value()
            if value is _OPENED:
                stack.append([] if self._peek(-1) == b"[" else {})
                self._skip_space()
                if isinstance(stack[-1], dict):
                    keys.append(self._key())
                continue
            while stack:
                self._attach(stack[-1], keys, value)
                if self._continues(stack[-1], keys):
                    break
                value = stack.pop()
            else:
                return value

    def _attach(self, container: Any, keys: list[str], value: Any) -> None:
        if isinstance(container, dict):
            container.setdefault(keys.pop(), value)
        else:
            container.append(value)

    def _continues(self, container: Any, keys: list[str]) -> bool:
        """After an element: whether another follows (and then its key is read), or the container was closed."""
        is_object = isinstance(container, dict)
        self._skip_space()
        separator = self._peek()
        if separator == b",":
            self._position += 1
            self._skip_space()
            if is_object:
                keys.append(self._key())
            return True
        if separator != (b"}" if is_object else b"]"):
            self._fail(
                "Missing a comma or '}' after an object member."
                if is_object
                else "Missing a comma or ']' after an array element."
            )
        self._position += 1
        return False

    def _start_of_value(self) -> Any:
        """A scalar, an empty container or a list of numbers; or _OPENED right after the bracket of another."""
        first = self._peek()
        if first == b'"':
            return self._string()
        if first in (b"[", b"{"):
            return self._open(first)
        for literal, value in _LITERALS:
            if first == literal[:1]:
                self._consume(literal)
                return value
        return self._number()

    def _open(self, bracket: bytes) -> Any:
        if bracket == b"[":
            numbers = _NUMBER_LIST.match(self._body, self._position)
            if numbers:
                try:
                    value = orjson.loads(numbers.group())
                except orjson.JSONDecodeError:
                    pass
                else:
                    self._position = numbers.end()
                    return value
        opened = self._position
        self._position += 1
        self._skip_space()
        if self._peek() == (b"]" if bracket == b"[" else b"}"):
            self._position += 1
            return [] if bracket == b"[" else {}
        self._position = opened + 1
        return _OPENED

    def _key(self) -> str:
        if self._peek() != b'"':
            self._fail("Missing a name for object member.")
        key = self._string()
        self._skip_space()
        if self._peek() != b":":
            self._fail("Missing a colon after a name of object member.")
        self._position += 1
        self._skip_space()
        return key

    def _number(self) -> int | float:
        start = self._position
        match = _NUMBER.match(self._body, start)
        if match is None:
            return self._not_finite()
        self._position = match.end()
        whole, fraction, exponent = match.groups()
        if exponent is None:
            if fraction is None and self._peek() == b".":
                self._fail("Miss fraction part in number.", 1)
            start_of_exponent = _EXPONENT_START.match(self._body, self._position)
            if start_of_exponent:
                self._fail("Miss exponent in number.", len(start_of_exponent.group()))
        # The length keeps the conversion of absurdly long integers away.
        if fraction is None and exponent is None and len(whole) <= 20 and _INT64_MIN <= int(whole) <= _UINT64_MAX:
            return int(whole)
        value = float(match.group())
        fraction_digits = len(fraction) - 1 if fraction else 0
        too_big = exponent is not None and len(exponent) < 20 and int(exponent) > _MAX_EXPONENT + fraction_digits
        if too_big or value in (float("inf"), float("-inf")):
            self._position = start
            self._fail("Number too big to be stored in double.")
        return value

    def _not_finite(self) -> float:
        """NaN, Inf or Infinity with an optional minus."""
        minus = self._peek() == b"-"
        self._position += minus
        if self._peek() == b"N":
            self._consume(b"NaN")
            return float("nan")
        if self._peek() != b"I":
            self._fail("Invalid value.")
        self._consume(b"Inf")
        if self._peek() == b"i":
            self._consume(b"inity")
        return float("-inf") if minus else float("inf")

    def _string(self) -> str:
        plain = _PLAIN_STRING.match(self._body, self._position)
        if plain:
            self._position = plain.end()
            return plain.group(1).decode("utf-8", "surrogateescape")
        self._position += 1
        out = bytearray()
        while True:
            text = _PLAIN_TEXT.match(self._body, self._position)
            if text:
                out += text.group()
                self._position = text.end()
            end = self._peek()
            if end == b'"':
                self._position += 1
                return out.decode("utf-8", "surrogateescape")
            if end == b"\\":
                out += self._escape()
            elif end in (b"", b"\0"):
                self._fail("Missing a closing quotation mark in string.")
            else:
                self._fail("Invalid encoding in string.")

    def _escape(self) -> bytes:
        """One backslash sequence; the offset of its errors is the backslash."""
        start = self._position
        kind = self._peek(1)
        if kind and kind[0] in _ESCAPES:
            self._position += 2
            return _ESCAPES[kind[0]]
        if kind != b"u":
            self._fail("Invalid escape character in string.")
        code = self._hex4(start, start + 2)
        self._position = start + 6
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code).encode()
        if code > 0xDBFF or self._body[start + 6 : start + 8] != b"\\u":
            self._position = start
            self._fail("The surrogate pair in string is invalid.")
        low = self._hex4(start, start + 8)
        if not 0xDC00 <= low <= 0xDFFF:
            self._position = start
            self._fail("The surrogate pair in string is invalid.")
        self._position = start + 12
        return chr(((code - 0xD800) << 10 | (low - 0xDC00)) + 0x10000).encode()

    def _hex4(self, start: int, position: int) -> int:
        digits = _HEX4.match(self._body, position)
        if digits is None:
            self._position = start
            self._fail("Incorrect hex digit after \\u escape in string.")
        return int(digits.group(), 16)

    def _consume(self, word: bytes) -> None:
        """`word`, or an error at the first byte that differs."""
        for index, byte in enumerate(word):
            if self._peek(index) != bytes((byte,)):
                self._fail("Invalid value.", index)
        self._position += len(word)

    def _skip_space(self) -> None:
        space = _SPACE.match(self._body, self._position)
        self._position = space.end() if space else self._position

    def _peek(self, ahead: int = 0) -> bytes:
        """The byte there; empty at the end."""
        position = self._position + ahead
        return self._body[position : position + 1]

    def _fail(self, reason: str, ahead: int = 0) -> Never:
        raise InvalidArgument(f"JSON Parse error: {reason} at offset: {self._position + ahead}")


# -- text of values ----------------------------------------------------------------------------------------------


def type_name(value: Any) -> str:
    """RapidJSON's type of a value, in json_tensor.cc JsonTypeString's words."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int | float):
        return "Number"
    return {str: "String", list: "Array", dict: "Object"}[type(value)]


_QUOTING = {code: f"\\u{code:04X}" for code in range(0x20)}
_QUOTING |= {ord('"'): '\\"', ord("\\"): "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def quoted(text: str) -> str:
    """A JSON string as RapidJSON's writer makes it: only quotes, backslashes and control characters are escaped."""
    return f'"{text.translate(_QUOTING)}"'


def decimals(values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """JSON numbers of a flat float32 or float64 array (json_tensor.cc WriteDecimal).

    Six significant digits where they read back as the same number, else 9 (float32) or 17 (float64); always with a
    point or an exponent. Not finite: NaN, Infinity, -Infinity.
    """
    texts = [f"{value:g}" for value in values.tolist()]
    with np.errstate(over="ignore"):
        same = np.fromiter(map(float, texts), np.float64, len(texts)).astype(values.dtype) == values
    digits = 9 if values.dtype == np.float32 else 17
    for index in np.flatnonzero(~same).tolist():
        texts[index] = f"{float(values[index]):.{digits}g}"
    texts = [text if "." in text or "e" in text else f"{text}.0" for text in texts]
    for index in np.flatnonzero(~np.isfinite(values)).tolist():
        texts[index] = "NaN" if np.isnan(values[index]) else "Infinity" if values[index] > 0 else "-Infinity"
    return texts


def readable(text: str) -> str:
    """Text for messages: bytes that are not UTF-8 are replaced."""
    return raw_bytes(text).decode("utf-8", "replace")


def echo(value: Any) -> str:
    """The value as error texts show it, indented, cut at MAX_ECHO_BYTES (json_tensor.cc JsonValueToString)."""
    out = b""
    for piece in _pieces(value):
        out += raw_bytes(piece[: MAX_ECHO_BYTES + 1])
        if len(out) > MAX_ECHO_BYTES:
            return out[:MAX_ECHO_BYTES].decode("utf-8", "ignore") + "..."
    return out.decode("utf-8", "replace")


def _pieces(value: Any) -> Iterator[str]:
    if not isinstance(value, list | dict) or not value:
        yield _scalar(value)
        return
    open_containers: list[tuple[Iterator[Any], bool]] = []
    entering: Any = value
    while True:
        is_object = isinstance(entering, dict)
        yield "{" if is_object else "["
        open_containers.append((iter(entering.items() if is_object else entering), is_object))
        entering = None
        separator = "\n"
        while entering is None:
            entries, is_object = open_containers[-1]
            try:
                item = next(entries)
            except StopIteration:
                open_containers.pop()
                yield "\n" + " " * (4 * len(open_containers)) + ("}" if is_object else "]")
                if not open_containers:
                    return
                separator = ",\n"
                continue
            yield separator + " " * (4 * len(open_containers))
            separator = ",\n"
            if is_object:
                yield f"{quoted(item[0][:MAX_ECHO_BYTES])}: "
                item = item[1]
            if isinstance(item, list | dict) and item:
                entering = item
            else:
                yield _scalar(item)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value[:MAX_ECHO_BYTES])
    if isinstance(value, float):
        single = abs(value) <= _MAX_FLOAT
        return decimals(np.array([value], np.float32 if single else np.float64))[0]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return {list: "[]", dict: "{}"}.get(type(value)) or str(value)
