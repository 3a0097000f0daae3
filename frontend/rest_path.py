"""The URL grammar of TF Serving's REST API, quirks included (model_servers/http_rest_api_util.cc). Pure.

The match is on the raw path plus query string, before percent-decoding. Fixed words match in any case, but the verb and
`metadata` are then compared in lower case: `:PREDICT` is malformed, `/METADATA` asks for the status.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from modelpool.supervisor.wire.status import InvalidArgument

from .model_spec import ModelSpec
from .rest_hint import hint

_VERSION_OR_LABEL = rb"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_POST = re.compile(rb"(?i)/v1/models/([^/:]+)" + _VERSION_OR_LABEL + rb":(classify|regress|predict)")
_GET = re.compile(rb"(?i)/v1/models(?:/([^/:]+))?" + _VERSION_OR_LABEL + rb"(?:/(metadata))?")
_MAX_VERSION = (1 << 63) - 1
_MAX_VERSION_DIGITS = 19


class Verb(StrEnum):
    """What a REST call asks for."""

    PREDICT = "predict"
    CLASSIFY = "classify"
    REGRESS = "regress"
    STATUS = "status"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class RestCall:
    """`spec.name` is empty only for STATUS and METADATA."""

    verb: Verb
    spec: ModelSpec


class VersionOverflow(InvalidArgument):
    """A version above int64, which TF Serving answers with 400 and an empty body."""


def parse(method: str, target: bytes) -> RestCall:
    """The call that `method` and the raw `target` (path, and `?query` if any) make.

    Raises VersionOverflow, and InvalidArgument for what is no call at all.
    """
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        raise _malformed(method, target)
    name, version, label, word = match.groups()
    spec = ModelSpec(_decoded(name or b""), _version(version), _decoded(label) if label else None)
    if method == "GET":
        return RestCall(Verb.METADATA if word == b"metadata" else Verb.STATUS, spec)
    if word not in (b"classify", b"regress", b"predict"):
        raise _malformed(method, target)
    return RestCall(Verb(word.decode()), spec)


def _malformed(method: str, target: bytes) -> InvalidArgument:
    text = f"Malformed request: {method} {target.decode('utf-8', 'replace')}"
    return InvalidArgument(text + hint(method, target, _is_call))


def _is_call(method: str, target: bytes) -> bool:
    match = (_POST if method == "POST" else _GET).fullmatch(target)
    return match is not None and bool(match.group(1))


def _decoded(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def _version(digits: bytes | None) -> int | None:
    if digits is None:
        return None
    significant = digits.lstrip(b"0") or b"0"
    if len(significant) > _MAX_VERSION_DIGITS or int(significant) > _MAX_VERSION:
        raise VersionOverflow(f"Failed to convert version: {digits.decode()} to numeric.")
    return int(significant)
