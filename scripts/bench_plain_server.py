"""What one would write without a model server: one process, grpcio with a thread pool, TensorFlow beside it.

Not a straw man: the call goes through the same `Session._make_callable_from_options` as in the pool's workers, and
tensors are read and written by hand for the two dtypes it knows. `bench_plain_server.py PORT NAME=DIR...`.
"""

import argparse
import os
import signal
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

THREADS = 32
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class PlainModel:
    """`serving_default` of a SavedModel: one input and one output, float32 or strings."""

    def __init__(self, directory: Path) -> None:
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
        signature = meta_graph.signature_def["serving_default"]
        ((self.input, feed),) = signature.inputs.items()
        ((self.output, fetch),) = signature.outputs.items()
        options = config_pb2.CallableOptions(feed=[feed.name], fetch=[fetch.name])
        options.run_options.inter_op_thread_pool = -1
        self._call = session._make_callable_from_options(options)

    def run(self, x: Any) -> Any:
        (y,) = self._call(x)
        return y


class PlainService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Predict on some models, by name."""

    def __init__(self, models: dict[str, PlainModel]) -> None:
        self._models = models

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = self._models[request.model_spec.name]
        y = model.run(_array(request.inputs[model.input]))
        reply = predict_pb2.PredictResponse()
        reply.model_spec.name = request.model_spec.name
        _write(reply.outputs[model.output], y)
        return reply


def _array(proto: Any) -> Any:
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype == tf.string.as_datatype_enum:
        return np.asarray(proto.string_val, dtype=object).reshape(shape)
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, np.float32).reshape(shape)
    return np.asarray(proto.float_val, np.float32).reshape(shape)


def _write(proto: Any, y: Any) -> None:
    for size in y.shape:
        proto.tensor_shape.dim.add(size=size)
    if y.dtype.kind == "f":
        proto.dtype = tf.float32.as_datatype_enum
        proto.float_val.extend(y.ravel().tolist())
    else:
        proto.dtype = tf.string.as_datatype_enum
        proto.string_val.extend(y.ravel().tolist())


def named_directories(words: list[str]) -> dict[str, Path]:
    """`NAME=DIR` each."""
    return {name: Path(directory) for name, _, directory in (word.partition("=") for word in words)}


def main() -> int:
    parser = argparse.ArgumentParser(description="A server of one process.")
    parser.add_argument("port", type=int)
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help="the directory of a version")
    args = parser.parse_args()
    models = {name: PlainModel(directory) for name, directory in named_directories(args.models).items()}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=THREADS), options=UNLIMITED)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PlainService(models), server)
    server.add_insecure_port(f"127.0.0.1:{args.port}")
    server.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    server.stop(grace=1).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
