"""GetModelMetadata: the reply's protos, and the JSON as TensorFlow Serving prints it."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
import json
from typing import Any

import pytest
from modelpool.supervisor.wire.status import Code, PoolError, Status
from modelpool.worker.metadata import Metadata
from modelpool.worker.model_spec import Identity
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2


def signature() -> Any:
    made = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    made.inputs["x"].name, made.inputs["x"].dtype = "x:0", types_pb2.DT_FLOAT
    made.inputs["x"].tensor_shape.dim.add().size = -1
    made.outputs["y"].name, made.outputs["y"].dtype = "y<\u00e9>:0", types_pb2.DT_STRING
    made.outputs["y"].tensor_shape.unknown_rank = True
    return made


def init_op() -> Any:
    made = meta_graph_pb2.SignatureDef()
    made.outputs["__saved_model_init_op"].name = "NoOp"
    return made


SIGNATURES = {"serving_default": signature(), "__saved_model_init_op": init_op()}


def metadata() -> Metadata:
    return Metadata(SIGNATURES, Identity("m", 7))


def request(*fields: str) -> bytes:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    asked.model_spec.name = "as the client says"
    raw: bytes = asked.SerializeToString()
    return raw


def test_the_reply() -> None:
    served = metadata()
    raw = served.grpc(request("signature_def"))
    assert served.grpc(request("signature_def", "signature_def")) == raw
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(raw)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 7, "")
    assert list(response.metadata) == ["signature_def"]
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert response.metadata["signature_def"].Unpack(found)
    assert dict(found.signature_def) == SIGNATURES


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((), "GetModelMetadataRequest must specify at least one metadata_field"),
        (("signature_def", "x"), "Metadata field x is not supported"),
    ],
)
def test_fields_that_are_not_there(fields: tuple[str, ...], text: str) -> None:
    with pytest.raises(PoolError) as caught:
        metadata().grpc(request(*fields))
    assert caught.value.status == Status(Code.INVALID_ARGUMENT, text)


BODY = """{
"model_spec":{
 "name": "m",
 "signature_name": "",
 "version": "7"
}
,
"metadata": {"signature_def": {
 "signature_def": {
  "__saved_model_init_op": {
   "inputs": {},
   "outputs": {
    "__saved_model_init_op": {
     "dtype": "DT_INVALID",
     "name": "NoOp"
    }
   },
   "method_name": "",
   "defaults": {}
  },
  "serving_default": {
   "inputs": {
    "x": {
     "dtype": "DT_FLOAT",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     },
     "name": "x:0"
    }
   },
   "outputs": {
    "y": {
     "dtype": "DT_STRING",
     "tensor_shape": {
      "dim": [],
      "unknown_rank": true
     },
     "name": "y\\u003c\u00e9\\u003e:0"
    }
   },
   "method_name": "tensorflow/serving/predict",
   "defaults": {}
  }
 }
}
}
}
"""


def test_the_json() -> None:
    text = metadata().rest(b"").decode()
    assert text == BODY
    names = json.loads(text)["metadata"]["signature_def"]["signature_def"]["serving_default"]["outputs"]
    assert names["y"]["name"] == "y<\u00e9>:0"


def test_defaults_in_the_json() -> None:
    made = signature()
    made.defaults["x"].dtype = types_pb2.DT_FLOAT
    made.defaults["x"].float_val.append(0.5)
    tree = json.loads(Metadata({"s": made}, Identity("m", 7)).rest(b""))
    found = tree["metadata"]["signature_def"]["signature_def"]["s"]["defaults"]["x"]
    assert (found["dtype"], found["float_val"], found["int64_val"]) == ("DT_FLOAT", [0.5], [])
