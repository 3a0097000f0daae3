"""One process for one model, without any server: `bench_plain_loader.py DIR`; imports TensorFlow, loads, says so.

Then it waits for the end of its standard input, so that it never outlives whoever started it.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf


def main() -> int:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    print("loaded", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
