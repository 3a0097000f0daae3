"""The head of a GetModelMetadataRequest: which model, and whether it asks for what there is. Pure; in the event loop.

The reply is the worker's, which knows the signatures.
"""

from google.protobuf.message import DecodeError

from modelpool.supervisor.wire.parts import Payload
from modelpool.supervisor.wire.protos import GetModelMetadataRequest
from modelpool.supervisor.wire.status import InvalidArgument

from . import model_spec
from .model_spec import MalformedRequest, ModelSpec

_SIGNATURE_DEF = "signature_def"


def read(request: Payload) -> ModelSpec:
    """The ModelSpec of a serialized GetModelMetadataRequest, its metadata_field list checked.

    Raises MalformedRequest, TooManyFields, and InvalidArgument with TF Serving's texts in TF Serving's order
    (servables/tensorflow/get_model_metadata_impl.cc), which is before the model is looked up.
    """
    spec = model_spec.read(request)
    try:
        fields = GetModelMetadataRequest.FromString(bytes(request)).metadata_field
    except DecodeError as error:
        raise MalformedRequest("Malformed request: not a GetModelMetadataRequest") from error
    if spec is None:
        raise InvalidArgument("Missing ModelSpec")
    if not fields:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in fields:
        if name != _SIGNATURE_DEF:
            raise InvalidArgument(f"Metadata field {name} is not supported")
    return spec
