"""The demo models as SavedModels, and the `models.config` that serves them: `python scripts/demo_models.py DIR`.

What is complete is kept: a version is built under a temporary name and renamed, so that a version directory that
exists is whole. `DIR/expected.json` holds what `dense` must answer, worked out from its weights by NumPy alone.
Imports TensorFlow; knows nothing of the server. Other builders of models use what saves and publishes them here.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DENSE_SEEDS = {1: 11, 2: 22}
DENSE_FEATURES = 15
DENSE_UNITS = (15, 10, 1)
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
EXPECTED_FILE = "expected.json"
CONFIG_FILE = "models.config"

Build = Callable[[Path], None]


def publish_version(base_path: Path, version: str, build: Build) -> bool:
    """Build `base_path/version` unless it is there; whole or not at all. Returns whether it was built now."""
    final = base_path / version
    if final.exists():
        return False
    base_path.mkdir(parents=True, exist_ok=True)
    unfinished = base_path / f".unfinished-{version}-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    build(unfinished)
    unfinished.rename(final)
    return True


def silence_tensorflow() -> None:
    """Before TensorFlow is imported: no device is wanted for building models, nor a word about it."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def write_whole(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def write_warmup(version_dir: Path, requests: Sequence[Any]) -> None:
    """Write `PredictRequest`s as the warmup file of a version: one PredictionLog per TFRecord."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = version_dir / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def signature(v1: Any, inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
    """A SignatureDef of tensors by name, whose method name is `method`; `v1` is `tf.compat.v1`."""
    info = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.signature_def_utils.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        method,
    )


def save_session(path: Path, session: Any, signatures: dict[str, Any]) -> None:
    """Save a session's graph and variables, which `signatures` are of, as a SavedModel in the TF1 format."""
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(path))
    tags = [v1.saved_model.tag_constants.SERVING]
    builder.add_meta_graph_and_variables(session, tags, signature_def_map=signatures)
    builder.save()


# -- demo: a string variable, read and written by requests -------------------------------------------------------


def build_demo(path: Path) -> None:
    """State that requests change: `test_assign` sets the string, `test_concat` appends to it. No serving_default."""
    import tensorflow as tf

    class Demo(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.text = tf.Variable("", dtype=tf.string, name="text")

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="a")])  # type: ignore[untyped-decorator]
        def test_concat(self, a: Any) -> Any:
            self.text.assign(tf.strings.join([self.text, a]))
            return self.text.read_value()

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="b")])  # type: ignore[untyped-decorator]
        def test_assign(self, b: Any) -> Any:
            self.text.assign(b)
            return self.text.read_value()

    module = Demo()
    signatures = {"test_concat": module.test_concat, "test_assign": module.test_assign}
    tf.saved_model.save(module, str(path), signatures=signatures)


# -- dense: a Keras model in two versions, with warmup -----------------------------------------------------------


def build_dense(path: Path, seed: int) -> None:
    """A subclassed Keras model, 15 relu, 10 relu, 1 sigmoid on [batch, 15] float; weights follow from `seed`."""
    import keras
    import tensorflow as tf

    first, second, last = DENSE_UNITS

    class Dense(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = _dense_layer(first, "relu", seed)
            self.second = _dense_layer(second, "relu", seed + 1)
            self.last = _dense_layer(last, "sigmoid", seed + 2)

        def call(self, inputs: Any) -> Any:
            return self.last(self.second(self.first(inputs)))

    model = Dense()
    model(tf.zeros([1, DENSE_FEATURES]))
    signature = [tf.TensorSpec([None, DENSE_FEATURES], tf.float32, name="inputs")]
    model.export(str(path), format="tf_saved_model", verbose=False, input_signature=signature)
    (path / "weights.json").write_text(json.dumps([w.tolist() for w in model.get_weights()]), encoding="utf-8")
    write_warmup(path, [_dense_request()])


def _dense_layer(units: int, activation: str, seed: int) -> Any:
    import keras

    initializer = keras.initializers.GlorotUniform(seed=seed)
    bias = keras.initializers.RandomUniform(-0.1, 0.1, seed=seed + 100)
    return keras.layers.Dense(units, activation=activation, kernel_initializer=initializer, bias_initializer=bias)


def dense_inputs() -> list[list[float]]:
    """Two rows of 15 that the demo sends and the warmup uses; exact in float32."""
    return [[(5 * i % 7) / 2 for i in range(DENSE_FEATURES)], [(3 * i % 5) - 2.0 for i in range(DENSE_FEATURES)]]


def dense_answers(version_dir: Path) -> list[list[float]]:
    """What a version must answer to `dense_inputs`, in float64 by NumPy from the weights beside the model."""
    import numpy as np

    kernels_and_biases = [np.asarray(w) for w in json.loads((version_dir / "weights.json").read_text("utf-8"))]
    x = np.asarray(dense_inputs())
    for kernel, bias in zip(kernels_and_biases[0:-2:2], kernels_and_biases[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    logits = x @ kernels_and_biases[-2] + kernels_and_biases[-1]
    answers: list[list[float]] = (1 / (1 + np.exp(-logits))).tolist()
    return answers


def _dense_request() -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "dense"
    request.model_spec.signature_name = "serving_default"
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(dense_inputs(), dtype=tf.float32))
    return request


# -- half_plus_two: TensorFlow's classic sample, in the TF1 form -------------------------------------------------


def build_half_plus_two(path: Path) -> None:
    """y = 0.5 x + 2 on any batch, y2 = 0.5 x + 3, y3 = 0.5 x2 + 3, with the signature names of TensorFlow's sample."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5, use_resource=True)
        b = v1.get_variable("b", initializer=2.0, use_resource=True)
        c = v1.get_variable("c", initializer=3.0, use_resource=True)
        serialized = v1.placeholder(tf.string, shape=[None], name="tf_example")
        features = {
            "x": v1.FixedLenFeature([1], tf.float32),
            "x2": v1.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = v1.parse_example(serialized, features)
        x = tf.identity(parsed["x"], name="x")
        x2 = tf.identity(parsed["x2"], name="x2")
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, x2), c, name="y3")
        session.run(v1.global_variables_initializer())
        names = v1.saved_model.signature_constants
        signatures = {
            names.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signature(v1, {"x": x}, {"y": y}, names.PREDICT_METHOD_NAME),
            "regress_x_to_y": _regress_signature(v1, serialized, y),
            "regress_x_to_y2": _regress_signature(v1, serialized, y2),
            "regress_x2_to_y3": _regress_signature(v1, serialized, y3),
            "classify_x_to_y": _classify_signature(v1, serialized, y),
            "classify_x2_to_y3": _classify_signature(v1, serialized, y3),
        }
        save_session(path, session, signatures)


def _regress_signature(v1: Any, serialized: Any, output: Any) -> Any:
    names = v1.saved_model.signature_constants
    outputs = {names.REGRESS_OUTPUTS: output}
    return signature(v1, {names.REGRESS_INPUTS: serialized}, outputs, names.REGRESS_METHOD_NAME)


def _classify_signature(v1: Any, serialized: Any, scores: Any) -> Any:
    names = v1.saved_model.signature_constants
    outputs = {names.CLASSIFY_OUTPUT_SCORES: scores}
    return signature(v1, {names.CLASSIFY_INPUTS: serialized}, outputs, names.CLASSIFY_METHOD_NAME)


# -- all of them -------------------------------------------------------------------------------------------------


def model_config(directory: Path) -> str:
    """The ModelServerConfig, in text format, of the models below `directory`."""
    entries = []
    for name in ("demo", "dense", "half_plus_two"):
        policy = "\n    model_version_policy { specific { versions: 1 versions: 2 } }" if name == "dense" else ""
        entries.append(
            f'  config {{\n    name: "{name}"\n    base_path: {json.dumps(str(directory / name))}\n'
            f'    model_platform: "tensorflow"{policy}\n  }}\n'
        )
    return "model_config_list {\n" + "".join(entries) + "}\n"


def build_all(directory: Path) -> None:
    """Build what is missing of all demo models, then write `models.config` and `expected.json`."""
    silence_tensorflow()
    directory = directory.resolve()
    versions: list[tuple[str, str, Build]] = [
        ("demo", "1", build_demo),
        *(("dense", str(v), lambda path, seed=seed: build_dense(path, seed)) for v, seed in DENSE_SEEDS.items()),
        ("half_plus_two", "00000123", build_half_plus_two),
    ]
    for name, version, build in versions:
        started = time.monotonic()
        built = publish_version(directory / name, version, build)
        what = f"built in {time.monotonic() - started:.1f} s" if built else "there already"
        print(f"  {name}/{version}: {what}", flush=True)
    answers = {str(version): dense_answers(directory / "dense" / str(version)) for version in DENSE_SEEDS}
    expected = {"dense": {"inputs": dense_inputs(), "answers": answers}}
    write_whole(directory / EXPECTED_FILE, json.dumps(expected, indent=2) + "\n")
    write_whole(directory / CONFIG_FILE, model_config(directory))


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the demo models of modelpool as SavedModels.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    build_all(parser.parse_args().directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
