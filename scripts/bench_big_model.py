"""Builds the big model of the benches: `bench_big_model.py BASE_PATH MB` makes version 1 below it, when it is missing.

A process of its own, for it imports TensorFlow, which the bench itself must not.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import demo_models

PIECES = 10
MB = 1000 * 1000


def build_big(path: Path, size_mb: int) -> None:
    """y = 0.5 x + w, w of the weights, which are random so that no file system or memory can make them smaller."""
    import tensorflow as tf

    v1 = tf.compat.v1
    rows = size_mb * MB // PIECES // 4 // 1000
    with tf.Graph().as_default(), v1.Session() as session:
        weights = [
            v1.get_variable(f"w{i}", use_resource=True, initializer=tf.random.uniform([rows, 1000], seed=i))
            for i in range(PIECES)
        ]
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(0.5 * x, tf.add_n([w.sparse_read([0])[0, 0] for w in weights]), name="y")
        for weight in weights:
            session.run(weight.initializer)
        builder = v1.saved_model.Builder(str(path))
        signatures = {"serving_default": v1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": y})}
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_path", type=Path)
    parser.add_argument("size_mb", type=int)
    args: Any = parser.parse_args()
    if not (args.base_path / "1").exists():
        print(f"Building a model of {args.size_mb} MB ...", flush=True)
        demo_models.silence_tensorflow()
        demo_models.publish_version(args.base_path, "1", lambda path: build_big(path, args.size_mb))
    return 0


if __name__ == "__main__":
    sys.exit(main())
