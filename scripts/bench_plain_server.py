"""What one would write without a model server: one process, grpcio with a thread pool, TensorFlow beside it.

Not a straw man: the call goes through the same `Session._make_callable_from_options` as in the pool's workers, and
tensors are read and written by hand for the one dtype it knows. `bench_plain_server.py DIR PORT`.
"""

import argparse
import os
import signal
import sys
import threading
from concurrent import futures
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

THREADS = 32


class PlainService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Predict on `serving_default` of one model: one float32 input, one float32 output."""

    def __init__(self, directory: str) -> None:
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        signature = meta_graph.signature_def["serving_default"]
        ((self._input, feed),) = signature.inputs.items()
        ((self._output, fetch),) = signature.outputs.items()
        options = config_pb2.CallableOptions(feed=[feed.name], fetch=[fetch.name])
        options.run_options.inter_op_thread_pool = -1
        self._call = session._make_callable_from_options(options)

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        proto = request.inputs[self._input]
        shape = [dim.size for dim in proto.tensor_shape.dim]
        (y,) = self._call(np.asarray(proto.float_val, np.float32).reshape(shape))
        reply = predict_pb2.PredictResponse()
        reply.model_spec.name = request.model_spec.name
        output = reply.outputs[self._output]
        output.dtype = tf.float32.as_datatype_enum
        for size in y.shape:
            output.tensor_shape.dim.add(size=size)
        output.float_val.extend(y.ravel().tolist())
        return reply


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=THREADS))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PlainService(args.directory), server)
    server.add_insecure_port(f"127.0.0.1:{args.port}")
    server.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    server.stop(grace=1).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
