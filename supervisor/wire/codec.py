"""Control messages to bytes and back: msgpack of `[type name, field, field, ...]`, checked against the type hints.

What does not fit is refused with WireError, so a peer that sends garbage costs a log line and nothing else.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin

import msgpack

from .messages import MESSAGE_TYPES, Message
from .status import InvalidArgument


class WireError(InvalidArgument):
    """Bytes that are not a message of this version of modelpool."""


def encode(message: Message) -> bytes:
    """A message as msgpack bytes."""
    packed: bytes = msgpack.packb([type(message).__name__, *_field_values(message)])
    return packed


def decode(raw: bytes) -> Message:
    """The message in `raw`. Raises WireError when it is none."""
    try:
        body = msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"control message: expected msgpack, got {raw[:32]!r}: {error}") from error
    if not isinstance(body, list) or not body or not isinstance(body[0], str):
        raise WireError(f"control message: expected [type, fields...], got {body!r:.80}")
    cls = MESSAGE_TYPES.get(body[0])
    if cls is None:
        raise WireError(f"control message: unknown type {body[0]!r:.80}")
    return typing.cast(Message, _build(cls, body[1:]))


def _field_values(value: Any) -> list[Any]:
    return [_plain(getattr(value, field.name)) for field in fields(value)]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _field_values(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


@cache
def _hints(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in fields(cls))


def _build(cls: type, values: Any) -> Any:
    hints = _hints(cls)
    if not isinstance(values, list) or len(values) != len(hints):
        raise WireError(f"{cls.__name__}: expected {len(hints)} fields, got {values!r:.80}")
    return cls(
        *(_typed(hint, value, f"{cls.__name__}.{name}") for (name, hint), value in zip(hints, values, strict=True))
    )


def _typed(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    origin = get_origin(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(get_args(hint)[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        key_hint, item_hint = get_args(hint)
        return {_typed(key_hint, key, where): _typed(item_hint, item, where) for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        return (
            None
            if value is None
            else _typed(next(arg for arg in get_args(hint) if arg is not type(None)), value, where)
        )
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise WireError(f"{where}: expected {hint}, got {value!r:.80}")
