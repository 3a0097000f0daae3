"""What somebody may have meant whose request is no REST call: for the error text. Pure.

TF Serving only says "Malformed request". The guess is made by the one grammar: pieces that are nearly right are put
right, and what comes of it is told only if it is a call.
"""

import re
from collections.abc import Callable

# Longer paths are no slips of a hand.
_MAX_BYTES = 2000
_VERBS = rb"(classify|regress|predict)"
_TRAILING_VERB = re.compile(rb"(?i)[:/]+" + _VERBS + rb"/*$")
_MODELS = re.compile(rb"(?i)^/v1/(?:models?|versions?)(?=/)|^/v1(?=/)")
_VERSION = re.compile(rb"(?i)/v(?:ersions?)?/?([0-9]+)$")
_LABEL = re.compile(rb"(?i)/labels?/([^/:]+)$")
_METADATA = re.compile(rb"(?i)/meta-?data$")


def hint(method: str, target: bytes, is_call: Callable[[str, bytes], bool]) -> str:
    """ "; did you mean POST ...?" for a malformed request, or "" where there is no good guess.

    `target` is the raw path with its query; `is_call` tells whether a method and a target are a call.
    """
    if method not in ("GET", "POST") or len(target) > _MAX_BYTES:
        return ""
    path = re.sub(rb"/{2,}", b"/", target.partition(b"?")[0])
    verb = _TRAILING_VERB.search(path)
    if verb:
        guess = ("POST", _servable(path[: verb.start()]) + b":" + verb.group(1).lower())
    elif method == "GET":
        metadata = _METADATA.search(path.rstrip(b"/"))
        ending = b"/metadata" if metadata else b""
        guess = ("GET", _servable(path[: metadata.start()] if metadata else path) + ending)
    else:
        guess = ("POST", _servable(path) + b":predict")
    if guess == (method, target) or not is_call(*guess):
        return ""
    return f"; did you mean {guess[0]} {guess[1].decode('utf-8', 'replace')}?"


def _servable(path: bytes) -> bytes:
    """The part of a path that names model and version, put right where it is nearly so."""
    path = path.rstrip(b":/")
    if path.lower() in (b"/v1/models", b"/v1/model"):
        return path  # names no model
    if not re.match(rb"(?i)/v1/models/", path):
        path = _MODELS.sub(b"/v1/models", path, count=1)
    for pattern, words in ((_VERSION, b"/versions/"), (_LABEL, b"/labels/")):
        found = pattern.search(path)
        # A model may be called v1: what follows /models/ is its name.
        if found and not path[: found.start()].lower().endswith(b"/models"):
            return path[: found.start()] + words + found.group(1)
    return path
