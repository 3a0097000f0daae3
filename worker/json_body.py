"""What every REST body has in common: a JSON object that may name a signature, and strings of base64 in it.

Owns the error texts of both (json_tensor.cc ParseJson, FillSignature, JsonDecodeBase64Object). It knows nothing of
tensors, examples, models or HTTP. Pure; any thread.
"""

import binascii
from typing import Any, TypeGuard

from modelpool.supervisor.wire.status import InvalidArgument

from . import json_parser, json_text


def parse(body: bytes) -> tuple[str, dict[str, Any]]:
    """The signature's name, "" where the body names none, and the whole object.

    Raises InvalidArgument: a JSON parse error, not an object, signature_name not a string.
    """
    document = json_parser.parse(body)
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name, document


def format_error(value: Any, text: str) -> InvalidArgument:
    """json_tensor.cc FormatError."""
    return InvalidArgument(f"JSON Value: {json_text.echo(value)} {text}")


def is_base64(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether the value is an object of the one key `b64` with a string (json_tensor.cc IsValBase64Object)."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:
    """The bytes of a b64 object; as absl Base64Unescape, blanks are skipped and padding is optional.

    Raises InvalidArgument.
    """
    if not is_base64(value):
        raise format_error(value, "not formatted correctly for base64 data")
    text = json_text.raw_bytes(value["b64"])
    packed = b"".join(text.split()) if any(blank in text for blank in b" \t\n\r\v\f") else text
    digits = packed.rstrip(b"=.")
    padding = -len(digits) % 4
    if len(packed) - len(digits) not in (0, padding):
        raise InvalidArgument("Unable to base64 decode")
    try:
        return binascii.a2b_base64(digits + b"=" * padding, strict_mode=True)
    except binascii.Error as error:
        raise InvalidArgument("Unable to base64 decode") from error
