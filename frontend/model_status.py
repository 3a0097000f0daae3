"""Answers to GetModelStatus, gRPC and REST, from the route table (servables/tensorflow/get_model_status_impl.cc).

Pure: no sockets, no request in flight. The label of a request is ignored, as TF Serving does.
"""

import json

from modelpool.supervisor.wire.protos import GetModelStatusResponse
from modelpool.supervisor.wire.route_table import VersionRoute
from modelpool.supervisor.wire.status import InvalidArgument, NotFound

from .model_spec import ModelSpec
from .routes import Routes


def grpc_reply(routes: Routes, spec: ModelSpec | None) -> bytes:
    """A serialized GetModelStatusResponse. Raises InvalidArgument or NotFound."""
    if spec is None:
        raise InvalidArgument("Missing ModelSpec")
    response = GetModelStatusResponse()
    for version in _versions(routes, spec):
        entry = response.model_version_status.add(version=version.version, state=int(version.state))
        entry.status.SetInParent()
        entry.status.error_code = int(version.code)
        entry.status.error_message = version.message
    reply: bytes = response.SerializeToString()
    return reply


def rest_reply(routes: Routes, spec: ModelSpec) -> bytes:
    """The JSON body of `GET /v1/models/<name>`. Raises InvalidArgument or NotFound."""
    if not spec.name:
        raise InvalidArgument("Missing model name in request.")
    entries = [
        {
            "version": str(version.version),
            "state": version.state.name,
            "status": {"error_code": version.code.name, "error_message": version.message},
        }
        for version in _versions(routes, spec)
    ]
    # With the line break that protobuf's JSON printer ends with (json/internal/unparser.cc, MessageToJsonStream).
    text = json.dumps({"model_version_status": entries}, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace")


def _versions(routes: Routes, spec: ModelSpec) -> tuple[VersionRoute, ...]:
    versions = routes.versions(spec.name)
    if spec.version is None:
        if not versions:
            raise NotFound(f"Could not find any versions of model {spec.name}")
        return versions
    found = tuple(version for version in versions if version.version == spec.version)
    if not found:
        raise NotFound(f"Could not find version {spec.version} of model {spec.name}")
    return found
