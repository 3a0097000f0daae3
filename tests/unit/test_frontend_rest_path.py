"""The URL grammar, case by case as TF Serving's own test has it (model_servers/http_rest_api_util_test.cc)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend import rest_path
from modelpool.frontend.model_spec import ModelSpec
from modelpool.frontend.rest_path import RestCall, Verb, VersionOverflow
from modelpool.supervisor.wire.status import InvalidArgument

MAX_INT64 = (1 << 63) - 1


@pytest.mark.parametrize(
    ("method", "target", "verb", "spec"),
    [
        ("POST", b"/v1/models/m:predict", Verb.PREDICT, ModelSpec("m")),
        ("POST", b"/v1/models/m:classify", Verb.CLASSIFY, ModelSpec("m")),
        ("POST", b"/v1/models/m:regress", Verb.REGRESS, ModelSpec("m")),
        ("POST", b"/v1/models/m/versions/7:predict", Verb.PREDICT, ModelSpec("m", 7)),
        ("POST", b"/v1/models/m/versions/0007:predict", Verb.PREDICT, ModelSpec("m", 7)),
        ("POST", b"/v1/models/m/versions/0:predict", Verb.PREDICT, ModelSpec("m", 0)),
        ("POST", b"/v1/models/m/versions/%d:predict" % MAX_INT64, Verb.PREDICT, ModelSpec("m", MAX_INT64)),
        ("POST", b"/v1/models/m/labels/canary:predict", Verb.PREDICT, ModelSpec("m", None, "canary")),
        ("POST", b"/v1/models/a%20b%2Fc:predict", Verb.PREDICT, ModelSpec("a b/c")),
        ("POST", b"/v1/models/m/labels/%C3%A9:predict", Verb.PREDICT, ModelSpec("m", None, "é")),
        ("POST", b"/v1/MODELS/m/VERSIONS/7:predict", Verb.PREDICT, ModelSpec("m", 7)),
        ("POST", b"/v1/models/what?ever:predict", Verb.PREDICT, ModelSpec("what?ever")),
        ("GET", b"/v1/models", Verb.STATUS, ModelSpec("")),
        ("GET", b"/v1/models/m", Verb.STATUS, ModelSpec("m")),
        ("GET", b"/v1/models/m?x", Verb.STATUS, ModelSpec("m?x")),
        ("GET", b"/v1/models/m/versions/7", Verb.STATUS, ModelSpec("m", 7)),
        ("GET", b"/v1/models/m/labels/l", Verb.STATUS, ModelSpec("m", None, "l")),
        ("GET", b"/v1/models/m/metadata", Verb.METADATA, ModelSpec("m")),
        ("GET", b"/v1/models/m/versions/7/metadata", Verb.METADATA, ModelSpec("m", 7)),
        ("GET", b"/v1/models/m/METADATA", Verb.STATUS, ModelSpec("m")),
        ("GET", b"/v1/models/versions/7", Verb.STATUS, ModelSpec("", 7)),
    ],
)
def test_well_formed(method: str, target: bytes, verb: Verb, spec: ModelSpec) -> None:
    assert rest_path.parse(method, target) == RestCall(verb, spec)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", b"/v1/models"),
        ("POST", b"/v1/models/m"),
        ("POST", b"/v1/models/m:PREDICT"),
        ("POST", b"/v1/models/m:predict?x=1"),
        ("POST", b"/v1/models/m:predict/"),
        ("POST", b"/v1/models/m:predict:predict"),
        ("POST", b"/v1/models/m/versions/:predict"),
        ("POST", b"/v1/models/m/versions/seven:predict"),
        ("POST", b"/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/\u0667:predict".encode()),
        ("POST", b"/v1/models/m/versions/1/labels/l:predict"),
        ("POST", b"/v1/models/m:metadata"),
        ("POST", b"/v1/models/m:predict\n"),
        ("GET", b"/v1/models/"),
        ("GET", b"/v1/models/m:predict"),
        ("GET", b"/v1/models/m/versions"),
        ("GET", b"/v1/models/m/versions/7/"),
        ("GET", b"/v1/models/m/metadata/"),
        ("GET", b"/v1/"),
        ("PUT", b"/v1/models/m"),
        ("DELETE", b"/v1/models/m"),
        ("HEAD", b"/v1/models/m"),
    ],
)
def test_malformed(method: str, target: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        rest_path.parse(method, target)
    assert caught.value.message.partition("; did you mean ")[0] == f"Malformed request: {method} {target.decode()}"


@pytest.mark.parametrize("digits", [str(MAX_INT64 + 1), "9" * 20, "9" * 10_000])
def test_version_overflow(digits: str) -> None:
    with pytest.raises(VersionOverflow, match=r"^Failed to convert version: 9"):
        rest_path.parse("POST", f"/v1/models/m/versions/{digits}:predict".encode())


def test_many_leading_zeros_are_no_overflow() -> None:
    assert rest_path.parse("GET", b"/v1/models/m/versions/" + b"0" * 10_000 + b"7").spec == ModelSpec("m", 7)


@given(st.sampled_from(["GET", "POST", "PUT"]), st.binary(max_size=40))
def test_garbage_is_refused_or_parsed(method: str, tail: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        rest_path.parse(method, b"/v1/models/" + tail)
