"""The table of gRPC cases: a request, the code and text or the reply that must come, and where TF Serving decides it.

Pure: requests are made here, `test_grpc_cases` sends them. Models are those of `shared_pool`; sources are files and
functions of TensorFlow Serving, below `tensorflow_serving/`, or of TensorFlow where they begin with `tensorflow/`.
"""

from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.e2e.grpc_case import (
    BASIC_MANAGER,
    CLASSIFY,
    INVALID,
    LOOKUP,
    METADATA,
    MODEL_METADATA,
    MODEL_STATUS,
    MULTI,
    NOT_FOUND,
    OK,
    PREDICT,
    REGRESS,
    RELOAD,
    STATUS,
    UNIMPLEMENTED,
    GrpcCase,
    spec_is,
)
from tests.e2e.grpc_example_cases import classifies, example_input, examples_request, multi, multis, regresses
from tests.e2e.grpc_predict_cases import half, predict, predicts, round_trips, tensors
from tests.e2e.pool import predict_request
from tests.e2e.tensor_proto import tensor


def _lookups() -> list[GrpcCase]:
    """Which model and version: the same for every call."""
    examples = example_input({"x": [1.0]})
    calls: list[tuple[str, Callable[[str], Any]]] = [
        (PREDICT, lambda name: predict_request(name, {"x": tensor([1.0])})),
        (CLASSIFY, lambda name: examples_request(classification_pb2.ClassificationRequest, name, "", examples)),
        (REGRESS, lambda name: examples_request(regression_pb2.RegressionRequest, name, "", examples)),
        (MULTI, lambda name: multi([(name, "classify", "classify_x_to_y")], examples)),
        (METADATA, lambda name: _metadata(name, "signature_def")),
    ]
    cases = []
    for method, make in calls:
        verb = method.partition("/")[2]
        cases += [
            GrpcCase(f"{verb} without a name", method, make(""), INVALID, "ModelSpec has no name specified.", LOOKUP),
            GrpcCase(
                f"{verb} of an unknown model",
                method,
                make("nonesuch"),
                NOT_FOUND,
                "Servable not found for request: Latest(nonesuch)",
                BASIC_MANAGER,
            ),
        ]
        request = make("half_plus_two")
        spec = request.tasks[0].model_spec if method == MULTI else request.model_spec
        spec.version.value = 7
        text = "Servable not found for request: Specific(half_plus_two, 7)"
        cases.append(GrpcCase(f"{verb} of an unknown version", method, request, NOT_FOUND, text, BASIC_MANAGER))
        request = make("half_plus_two")
        spec = request.tasks[0].model_spec if method == MULTI else request.model_spec
        spec.version_label = "canary"
        text = "Unrecognized servable version label: canary"
        cases.append(GrpcCase(f"{verb} by an unknown label", method, request, INVALID, text, LOOKUP))
        if method not in (MULTI, METADATA):
            text = "Missing ModelSpec"
            cases.append(GrpcCase(f"{verb} without a spec", method, _without_spec(make("m")), INVALID, text, LOOKUP))
    empty_label = half()
    empty_label.model_spec.version_label = ""
    cases.append(predict("by the label ''", empty_label, INVALID, "Unrecognized servable version label: ", LOOKUP))
    both = half(version=7)
    both.model_spec.version_label = "canary"  # of a oneof the last one counts
    cases.append(predict("by both", both, INVALID, "Unrecognized servable version label: canary", LOOKUP))
    return cases


def _without_spec(request: Any) -> Any:
    request.ClearField("model_spec")
    return request


def _metadata(model: str, *fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def _signature_names(*wanted: str) -> Callable[[Any], bool]:
    def check(reply: Any) -> bool:
        (key,) = reply.metadata
        found = get_model_metadata_pb2.SignatureDefMap()
        return key == "signature_def" and reply.metadata[key].Unpack(found) and set(wanted) == set(found.signature_def)

    return check


def _metadatas() -> list[GrpcCase]:
    valid, get = MODEL_METADATA + "ValidateGetModelMetadataRequest", MODEL_METADATA + "GetModelMetadataImpl"
    unsupported = "Metadata field weights is not supported"
    half = ("serving_default", *(f"regress_{each}" for each in ("x_to_y", "x_to_y2", "x2_to_y3")))
    half += ("classify_x_to_y", "classify_x2_to_y3")
    nothing = "GetModelMetadataRequest must specify at least one metadata_field"
    init = ("__saved_model_init_op", "test_concat", "test_assign")
    rows: list[tuple[str, Any, grpc.StatusCode, Any, str]] = [
        ("signatures", _metadata("half_plus_two", "signature_def"), OK, _signature_names(*half), get),
        ("field twice", _metadata("half_plus_two", *["signature_def"] * 2), OK, _signature_names(*half), get),
        ("of a TF2 model", _metadata("demo", "signature_def"), OK, _signature_names(*init), get),
        ("spec of the reply", _metadata("sum", "signature_def"), OK, spec_is("sum", "", 1), get),
        ("no field", _metadata("half_plus_two"), INVALID, nothing, valid),
        ("no field of an unknown model", _metadata("nonesuch"), INVALID, nothing, valid),
        ("unknown field", _metadata("half_plus_two", "weights"), INVALID, unsupported, valid),
        ("unknown field among known", _metadata("sum", "signature_def", "weights"), INVALID, unsupported, valid),
        ("no spec", _without_spec(_metadata("m", "signature_def")), INVALID, "Missing ModelSpec", LOOKUP),
    ]
    return [GrpcCase(f"metadata {row[0]}", METADATA, *row[1:]) for row in rows]


def _statuses() -> list[GrpcCase]:
    def request(name: str, version: int | None = None, label: str = "") -> Any:
        message = get_model_status_pb2.GetModelStatusRequest()
        message.model_spec.name = name
        if version is not None:
            message.model_spec.version.value = version
        if label:
            message.model_spec.version_label = label
        return message

    def states(*wanted: tuple[int, int]) -> Callable[[Any], bool]:
        return lambda reply: [(each.version, each.state) for each in reply.model_version_status] == list(wanted)

    missing = "Could not find any versions of model nonesuch"
    unknown_version = "Could not find version 7 of model half_plus_two"
    bare = get_model_status_pb2.GetModelStatusRequest()
    rows: list[tuple[str, Any, grpc.StatusCode, Any]] = [
        ("one version", request("half_plus_two"), OK, states((123, 30))),
        ("all versions, newest first", request("dense"), OK, states((2, 30), (1, 30))),
        ("one of the versions", request("dense", 1), OK, states((1, 30))),
        ("a label is ignored", request("dense", label="canary"), OK, states((2, 30), (1, 30))),
        (
            "fine is OK and no text",
            request("sum"),
            OK,
            lambda reply: reply.model_version_status[0].status.error_code == 0,
        ),
        ("unknown model", request("nonesuch"), NOT_FOUND, missing),
        ("unknown version", request("half_plus_two", 7), NOT_FOUND, unknown_version),
        ("no spec", bare, INVALID, "Missing ModelSpec"),
    ]
    cases = [GrpcCase(f"status {row[0]}", STATUS, *row[1:], MODEL_STATUS) for row in rows]
    text = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    source = "model_servers/model_service_impl.cc: ModelServiceImpl::HandleReloadConfigRequest"
    empty = model_management_pb2.ReloadConfigRequest()
    cases.append(GrpcCase("reload without a list", RELOAD, empty, INVALID, text, source))
    custom = model_management_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    cases.append(GrpcCase("reload of a custom config", RELOAD, custom, INVALID, text, source))
    return cases


def _unknown_methods() -> list[GrpcCase]:
    registered = "model_servers/server.cc: Server::BuildAndStart (which services are registered)"
    request = predict_pb2.PredictRequest()
    methods = ("PredictionService/Predicts", "SessionService/SessionRun", "Nonesuch/Predict")
    return [GrpcCase(f"no such method {each}", each, request, UNIMPLEMENTED, "...", registered) for each in methods]


GRPC_CASES: tuple[GrpcCase, ...] = (
    *_lookups(),
    *predicts(),
    *tensors(),
    *round_trips(),
    *classifies(),
    *regresses(),
    *multis(),
    *_metadatas(),
    *_statuses(),
    *_unknown_methods(),
)
