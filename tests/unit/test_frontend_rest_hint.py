"""The hint at the right path of a REST call that is nearly one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend import rest_path
from modelpool.supervisor.wire.status import InvalidArgument

PREDICT = "POST /v1/models/demo:predict"
VERSION = "POST /v1/models/demo/versions/1:predict"
MEANT = {
    ("POST", "/v1/models/demo/version1/:predict"): VERSION,
    ("POST", "/v1/models/demo/version/1:predict"): VERSION,
    ("POST", "/v1/models/demo/versions/1/:predict"): VERSION,
    ("POST", "/v1/models/demo/versions/1/predict"): VERSION,
    ("POST", "/v1/models/demo/v1:predict"): VERSION,
    ("POST", "/v1/models/demo/label/stable:classify"): "POST /v1/models/demo/labels/stable:classify",
    ("POST", "/v1/models/demo/predict"): PREDICT,
    ("POST", "/v1/models/demo:Predict"): PREDICT,
    ("POST", "/v1/models/demo:predict/"): PREDICT,
    ("POST", "/v1/models/demo:predict?x=1"): PREDICT,
    ("POST", "/v1/models//demo:predict"): PREDICT,
    ("POST", "/v1/model/demo:predict"): PREDICT,
    ("POST", "/v1/demo:predict"): PREDICT,
    ("POST", "/v1/models/demo"): PREDICT,
    ("POST", "/v1/models/v1/predict"): "POST /v1/models/v1:predict",
    ("GET", "/v1/models/demo:predict"): PREDICT,
    ("GET", "/v1/models/demo/"): "GET /v1/models/demo",
    ("GET", "/v1/models/demo/version/1"): "GET /v1/models/demo/versions/1",
    ("GET", "/v1/models/demo/metadata/"): "GET /v1/models/demo/metadata",
    ("GET", "/v1/model/demo"): "GET /v1/models/demo",
}
NO_IDEA = [
    ("POST", "/v1/models/demo:guess"),
    ("POST", "/v1/models/:predict"),
    ("POST", "/v1/models:predict"),
    ("POST", "/v1/models"),
    ("POST", "/v1/models/a/b/c:predict"),
    ("GET", "/v1/models/a/b"),
    ("PUT", "/v1/models/demo:predict"),
    ("POST", "/v1/models/demo/predict" + "/" * 2000),
]


def refusal(method: str, target: bytes) -> str:
    with pytest.raises(InvalidArgument) as caught:
        rest_path.parse(method, target)
    return caught.value.message


@pytest.mark.parametrize(("asked", "meant"), MEANT.items(), ids=lambda each: " ".join(each) if each else None)
def test_a_near_miss(asked: tuple[str, str], meant: str) -> None:
    method, target = asked
    assert refusal(method, target.encode()) == f"Malformed request: {method} {target}; did you mean {meant}?"


@pytest.mark.parametrize(("method", "target"), NO_IDEA)
def test_no_idea(method: str, target: str) -> None:
    assert refusal(method, target.encode()) == f"Malformed request: {method} {target}"


@given(
    st.sampled_from(["GET", "POST"]),
    st.lists(
        st.sampled_from([b"/v1", b"/models", b"/m", b"/versions", b"/1", b"/labels", b":predict", b"?", b"/", b"%"])
    ),
)
def test_what_is_told_is_a_call(method: str, pieces: list[bytes]) -> None:
    try:
        rest_path.parse(method, b"/v1/" + b"".join(pieces))
    except InvalidArgument as error:
        _, said, meant = error.message.partition("; did you mean ")
        if said:
            told_method, _, told = meant.removesuffix("?").partition(" ")
            assert rest_path.parse(told_method, told.encode()).spec.name
