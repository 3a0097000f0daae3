"""Builds the models of the workloads: `bench_model_builder.py NAME...` makes version 1 of each that is missing.

A process of its own, for it imports TensorFlow, which the bench itself must not. Weights follow from fixed seeds. What
the perceptron must answer is worked out by NumPy from its weights, what the convolutions must, by TensorFlow's eager
operations, apart from the graph that is saved.
"""

import argparse
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_inputs
import demo_models
import numpy as np

HIDDEN = 512
CHANNELS = 64
LAYERS = 8
CLASSES = 10
VERSION = "1"


def _save(path: Path, call: Callable[[Any], Any], spec: Any, variables: list[Any]) -> None:
    """A SavedModel of one function from `x` to `y`."""
    import tensorflow as tf

    module = tf.Module()
    module.kept = variables
    module.call = tf.function(lambda x: {"y": call(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.call})


def _normal(seed: int, *shape: int) -> Any:
    """Weights that keep the size of what goes through them."""
    fan_in = int(np.prod(shape[:-1]))
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def build_mlp(path: Path) -> Any:
    import tensorflow as tf

    sizes = (bench_inputs.FEATURES, HIDDEN, HIDDEN, 1)
    weights = [_normal(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    variables = [tf.Variable(w) for w in weights]

    def call(x: Any) -> Any:
        first, second, last = variables
        return tf.nn.relu(tf.nn.relu(x @ first) @ second) @ last

    _save(path, call, tf.TensorSpec([None, sizes[0]], tf.float32, name="x"), variables)
    y = bench_inputs.features().astype(np.float64)
    for w in weights[:-1]:
        y = np.maximum(y @ w, 0)
    return y @ weights[-1]


def build_image(path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec([None, *bench_inputs.PICTURE], tf.float32, name="x")
    _save(path, lambda x: tf.reduce_mean(x, axis=[1, 2]), spec, [])


def build_conv(path: Path) -> Any:
    import tensorflow as tf

    widths = (bench_inputs.CONV_PICTURE[-1], *[CHANNELS] * LAYERS)
    shapes = list(itertools.pairwise(widths))
    kernels = [tf.Variable(_normal(10 + i, 3, 3, a, b)) for i, (a, b) in enumerate(shapes)]
    head = tf.Variable(_normal(99, CHANNELS, CLASSES))

    def call(x: Any) -> Any:
        for kernel in kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"))
        return tf.reduce_mean(x, axis=[1, 2]) @ head

    spec = tf.TensorSpec([None, *bench_inputs.CONV_PICTURE], tf.float32, name="x")
    _save(path, call, spec, [*kernels, head])
    return call(tf.constant(bench_inputs.picture(bench_inputs.CONV_PICTURE))).numpy()


def build_string(path: Path) -> None:
    import tensorflow as tf

    _save(path, tf.strings.upper, tf.TensorSpec([None], tf.string, name="x"), [])


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "mlp": build_mlp,
    "image": build_image,
    "conv": build_conv,
    "string": build_string,
}


def build(name: str) -> None:
    """Build a model, whole or not at all; its folder also holds what it must answer, where no formula says it."""
    base = bench_inputs.BUILD / name

    def both(path: Path) -> None:
        expected = BUILDERS[name](path)
        if expected is not None:
            demo_models.write_whole(base / bench_inputs.EXPECTED, json.dumps(np.asarray(expected).tolist()))

    # A model built by other code is another model.
    stamp = base / f"built-by-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}"
    if base.exists() and not stamp.exists():
        shutil.rmtree(base)
    if demo_models.publish_version(base, VERSION, both):
        print(f"  {name}: built", flush=True)
        stamp.touch()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the models of the benches.")
    parser.add_argument("names", nargs="+", choices=sorted(BUILDERS))
    args = parser.parse_args()
    demo_models.silence_tensorflow()
    for name in args.names:
        build(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
