"""The text of JSON values as TensorFlow Serving writes them, in replies and in error messages.

Values are None, bool, int, float, str, list and dict, as `json_parser` makes them: bytes that are not UTF-8 are
surrogate escapes in a str. The module knows nothing of tensors or requests; numbers are for `json_decimals`. Nothing
here recurses. Pure; any thread.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import json_decimals

# Echoes of a value in error texts are cut here.
MAX_ECHO_BYTES = 256

_MAX_FLOAT = 3.4028234e38


def raw_bytes(text: str) -> bytes:
    """The bytes that stood in the body (with escapes resolved)."""
    return text.encode("utf-8", "surrogateescape")


def type_name(value: Any) -> str:
    """RapidJSON's type of a value, in json_tensor.cc JsonTypeString's words."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int | float):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list) else "Object"


_QUOTING = {code: f"\\u{code:04X}" for code in range(0x20)}
_QUOTING |= {ord('"'): '\\"', ord("\\"): "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def quoted(text: str) -> str:
    """A JSON string as RapidJSON's writer makes it: only quotes, backslashes and control characters are escaped."""
    return f'"{text.translate(_QUOTING)}"'


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
        return json_decimals.one_by_one(np.array([value], np.float32 if single else np.float64))[0]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)  # a number, or an empty container, which Python writes as JSON does
