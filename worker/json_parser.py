"""A JSON parser as tolerant as TensorFlow Serving's.

TensorFlow Serving parses with RapidJSON (reader.h: iterative, NaN and infinities allowed, stops after the first value);
the reasons and offsets of errors here are RapidJSON's. The module knows nothing of tensors or requests. Values are
None, bool, int, float, str, list and dict; bytes that are not UTF-8 stay in a str as surrogate escapes, so that
`json_text.raw_bytes` gives back what came in. A number without fraction and exponent is an int if it fits int64 or
uint64 and a float otherwise. Nothing here recurses; MAX_DEPTH is there for the memory's sake. Pure; any thread.
"""

import re
from typing import Any, Never

import orjson

from modelpool.supervisor.wire.status import InvalidArgument

# Each open object costs a few hundred bytes for one byte of the body. TensorFlow Serving has no limit.
MAX_DEPTH = 100_000

# encodedstream.h takes each byte of the mark if it is there, alone or not.
_BYTE_ORDER_MARK = re.compile(rb"\xef?\xbb?\xbf?")
_INT64_MIN = -(2**63)
_UINT64_MAX = 2**64 - 1

_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN_STRING = re.compile(rb'"([^"\\\x00-\x1f]*)"')
_PLAIN_TEXT = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_EXPONENT_START = re.compile(rb"[eE][+-]?")
_NUMBER_LIST = re.compile(rb"\[[-+0-9eE., \t\n\r]+\]")
# Possessive: to be able to go back, `re` would keep a hundred bytes for each byte of a string.
_STRINGS_AND_BRACES = re.compile(rb'"(?:[^"\\]++|\\.)*+"(?:[ \t\n\r]*(:))?|[{}]', re.DOTALL)
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


def parse(body: bytes | memoryview) -> Any:
    """The first JSON value of `body`; what follows it is ignored, the first of duplicate keys wins.

    Raises InvalidArgument `JSON Parse error: <reason> at offset: <n>`; json_tensor.cc ParseJson.
    """
    body = bytes(body)  # a copy of a big body, which is a memoryview; next to nothing beside reading it
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
        mark = _BYTE_ORDER_MARK.match(body)
        self._position = mark.end() if mark else 0

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
                if len(stack) == MAX_DEPTH:
                    self._fail(f"More than {MAX_DEPTH} levels of nesting.")
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
        if value in (float("inf"), float("-inf")):
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
