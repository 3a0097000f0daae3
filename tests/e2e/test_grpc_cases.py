"""Every row of the table of gRPC cases against a real server, by a stock gRPC channel."""

from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.e2e import grpc_case
from tests.e2e.grpc_case import GrpcCase
from tests.e2e.grpc_cases import GRPC_CASES
from tests.e2e.pool import CALL_WITHIN_S, Pool

_REPLIES: dict[str, Any] = {
    grpc_case.PREDICT: predict_pb2.PredictResponse,
    grpc_case.CLASSIFY: classification_pb2.ClassificationResponse,
    grpc_case.REGRESS: regression_pb2.RegressionResponse,
    grpc_case.MULTI: inference_pb2.MultiInferenceResponse,
    grpc_case.METADATA: get_model_metadata_pb2.GetModelMetadataResponse,
    grpc_case.STATUS: get_model_status_pb2.GetModelStatusResponse,
    grpc_case.RELOAD: model_management_pb2.ReloadConfigResponse,
}


@pytest.mark.parametrize("case", GRPC_CASES, ids=lambda case: case.id)
def test_grpc_case(shared_pool: Pool, case: GrpcCase) -> None:
    call = shared_pool.channel.unary_unary(f"/tensorflow.serving.{case.method}")
    try:
        answer = call(case.request.SerializeToString(), timeout=CALL_WITHIN_S)
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
    else:
        code, text = grpc.StatusCode.OK, ""
    assert (code, text if code is not case.code else "") == (case.code, ""), case.source
    if callable(case.expected):
        reply = _REPLIES[case.method].FromString(answer)
        assert case.expected(reply), reply
    elif case.expected.endswith("..."):
        assert text.startswith(case.expected.removesuffix("...")), case.source
    else:
        assert text == case.expected, case.source


def test_the_table() -> None:
    """Each row has a name of its own and says where TF Serving decides it."""
    assert len({case.id for case in GRPC_CASES}) == len(GRPC_CASES) >= 120
    assert all(":" in case.source for case in GRPC_CASES)
