"""Replies of GetModelMetadata and GetModelStatus as plain data. Pure."""

from typing import Any

from modelpool.supervisor.wire.status import Code, Status

from . import protos
from .errors import Internal
from .results import ModelMetadata, Signature, TensorSpec, VersionStatus

DEFAULT_SIGNATURE = "serving_default"

# Where tf.dtypes, and with it numpy, has another name than the enum.
_PLAIN_NAMES = {"half": "float16", "float": "float32", "double": "float64"}


def dtype_name(enum: int) -> str:
    """As in "float32"; of an enum that the protos do not know, its number."""
    known = protos.DataType.DESCRIPTOR.values_by_number.get(enum)
    name = known.name.removeprefix("DT_").lower() if known else str(enum)
    return _PLAIN_NAMES.get(name, name)


def model_metadata(reply: Any) -> ModelMetadata:
    """Of a GetModelMetadataResponse. Raises CallError when it holds no signatures."""
    found = protos.SignatureDefMap()
    packed = reply.metadata.get("signature_def")
    if packed is None or not packed.Unpack(found):
        raise Internal("the reply has no signature_def")
    signatures = {key: _signature(found.signature_def[key]) for key in sorted(found.signature_def)}
    return ModelMetadata(reply.model_spec.name, reply.model_spec.version.value, signatures)


def _signature(definition: Any) -> Signature:
    return Signature(
        definition.method_name,
        {name: _tensor_spec(definition.inputs[name]) for name in sorted(definition.inputs)},
        {name: _tensor_spec(definition.outputs[name]) for name in sorted(definition.outputs)},
        frozenset(definition.defaults),
    )


def _tensor_spec(info: Any) -> TensorSpec:
    shape = None
    if info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(dtype_name(info.dtype), shape, info.name, info.dtype)


def version_statuses(reply: Any) -> list[VersionStatus]:
    """Of a GetModelStatusResponse, the newest version first."""
    found = [
        VersionStatus(each.version, protos.ModelVersionStatus.State.Name(each.state), _status(each.status))
        for each in reply.model_version_status
    ]
    return sorted(found, key=lambda each: each.version, reverse=True)


def _status(status: Any) -> Status:
    known = {each.value for each in Code}
    return Status(Code(status.error_code) if status.error_code in known else Code.UNKNOWN, status.error_message)
