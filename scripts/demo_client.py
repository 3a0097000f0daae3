"""A stock TensorFlow Serving client in one page: `demo_client.py MODEL [--version V] [--signature S] NAME=JSON ...`.

Nothing of the server is in it: the stub and the messages are those of `tensorflow-serving-api`. The one import from
modelpool only keeps TensorFlow's half gigabyte out; a program that imports TensorFlow anyway needs no such line.
"""

import argparse
import json
import sys
from typing import Any

from modelpool.supervisor.wire import protos as _protos  # noqa: F401  first, see above

# isort: split
import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Value = Any


def tensor(value: Value) -> Any:
    """A TensorProto of strings, or of float32, from nested lists."""
    array = np.asarray(value)
    strings = array.dtype.kind in "US"
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING if strings else types_pb2.DT_FLOAT)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if strings:
        proto.string_val.extend(text.encode() for text in array.ravel().tolist())
    else:
        proto.float_val.extend(array.astype(np.float32).ravel().tolist())
    return proto


def values(proto: Any) -> Value:
    """What a TensorProto of strings or float32 holds, as nested lists."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype == types_pb2.DT_STRING:
        return np.asarray([raw.decode() for raw in proto.string_val], dtype=object).reshape(shape).tolist()
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, np.float32).reshape(shape).tolist()
    return np.asarray(proto.float_val, np.float32).reshape(shape).tolist()


def predict_request(model: str, inputs: dict[str, Value], version: int | None = None, signature: str = "") -> Any:
    """A PredictRequest; no version means the latest, no signature `serving_default`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tensor(value))
    return request


def predict(
    server: str,
    model: str,
    inputs: dict[str, Value],
    *,
    version: int | None = None,
    signature: str = "",
    timeout_s: float = 30,
) -> tuple[int, dict[str, Value]]:
    """Ask `server` ("host:port"); the version that answered and the outputs. Raises grpc.RpcError."""
    with grpc.insecure_channel(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reply = stub.Predict(predict_request(model, inputs, version, signature), timeout=timeout_s)
    return reply.model_spec.version.value, {name: values(proto) for name, proto in sorted(reply.outputs.items())}


def _input(text: str) -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"the value of {name} is not JSON: {error}") from None


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a model over gRPC; inputs are strings or float32.")
    parser.add_argument("model")
    parser.add_argument("inputs", nargs="+", type=_input, metavar="NAME=JSON")
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--version", type=int)
    parser.add_argument("--signature", default="")
    args = parser.parse_args()
    try:
        version, outputs = predict(
            args.server, args.model, dict(args.inputs), version=args.version, signature=args.signature
        )
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    print(json.dumps({"version": version, "outputs": outputs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
