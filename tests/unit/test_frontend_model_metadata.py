"""The head of a GetModelMetadataRequest: TF Serving's checks, in TF Serving's order."""

import pytest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest

from modelpool.frontend import model_metadata
from modelpool.frontend.model_spec import MalformedRequest, ModelSpec, TooManyFields
from modelpool.supervisor.wire.status import InvalidArgument


def request(name: str | None, *fields: str) -> bytes:
    message = GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        message.model_spec.name = name
    raw: bytes = message.SerializeToString()
    return raw


def test_the_model() -> None:
    assert model_metadata.read(request("m", "signature_def")) == ModelSpec("m")
    assert model_metadata.read(request("", "signature_def", "signature_def")) == ModelSpec("")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (request(None, "graph"), "Missing ModelSpec"),
        (request("m"), "GetModelMetadataRequest must specify at least one metadata_field"),
        (request("m", "signature_def", "graph", "x"), "Metadata field graph is not supported"),
        (request("m", ""), "Metadata field  is not supported"),
    ],
)
def test_what_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        model_metadata.read(raw)
    assert caught.value.message == text


def test_malformed() -> None:
    for raw in (b"\x12\x01\xff", request("m") + b"\x12\x05ab"):
        with pytest.raises(MalformedRequest):
            model_metadata.read(raw)


def test_very_many_fields() -> None:
    with pytest.raises(TooManyFields):
        model_metadata.read(request("m", *["signature_def"] * 5000))
