"""One row of the table of gRPC cases, and the names that rows share. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
INTERNAL = grpc.StatusCode.INTERNAL

PREDICT = "PredictionService/Predict"
CLASSIFY = "PredictionService/Classify"
REGRESS = "PredictionService/Regress"
MULTI = "PredictionService/MultiInference"
METADATA = "PredictionService/GetModelMetadata"
STATUS = "ModelService/GetModelStatus"
RELOAD = "ModelService/HandleReloadConfigRequest"

PREDICT_UTIL = "servables/tensorflow/predict_util.cc: "
LOOKUP = "model_servers/server_core.cc: ServableRequestFromModelSpec"
BASIC_MANAGER = "core/basic_manager.cc: GetUntypedServableHandle"
CLASSIFIER = "servables/tensorflow/classifier.cc: "
REGRESSOR = "servables/tensorflow/regressor.cc: "
MULTI_INFERENCE = "servables/tensorflow/multi_inference.cc: "
UTIL = "servables/tensorflow/util.cc: "
MODEL_METADATA = "servables/tensorflow/get_model_metadata_impl.cc: "
MODEL_STATUS = "model_servers/get_model_status_impl.cc: GetModelStatusImpl::GetModelStatusWithModelSpec"
PROTO_UTIL = "tensorflow/cc/saved_model/util.cc: GetInputValues"
TENSOR = "tensorflow/core/framework/tensor.cc: Tensor::FromProto"


@dataclass(frozen=True)
class GrpcCase:
    """`expected`: the whole text of a refusal, or its beginning where it ends in "...", or what the reply must pass."""

    id: str
    method: str
    request: Any
    code: grpc.StatusCode
    expected: str | Callable[[Any], bool]
    source: str


def spec_is(name: str, signature: str, version: int) -> Callable[[Any], bool]:
    def check(reply: Any) -> bool:
        spec = reply.model_spec
        return (spec.name, spec.signature_name, spec.version.value, spec.version_label) == (
            name,
            signature,
            version,
            "",
        )

    return check
