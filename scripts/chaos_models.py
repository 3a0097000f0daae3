"""The models of the chaos scenes: `python scripts/chaos_models.py DIR`. Each answers `y`, the numbers `x` that it got.

So every answer can be checked: it is right when it carries the number of its request. Built once, by a process of its
own that imports TensorFlow; importing this module does not.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import demo_models

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "chaos"

Graph = Callable[[Any, Any], Any]


def build() -> Path:
    """The directory of all models, built where they are missing."""
    subprocess.run([sys.executable, __file__, str(MODELS)], check=True)
    return MODELS


def _quick(tf: Any, x: Any) -> Any:
    return tf.identity(x)


def _work(tf: Any, x: Any) -> Any:
    """Some milliseconds of one CPU."""
    seed = tf.fill([192, 192], tf.cast(x[0] % 7, tf.float32) / 7.0)
    busy = tf.while_loop(lambda i, _: i < 6, lambda i, m: (i + 1, tf.tanh(tf.matmul(m, m))), [tf.constant(0), seed])[1]
    return x + tf.cast(tf.reduce_sum(busy) * 0.0, tf.int64)


def _spin(tf: Any, x: Any, seconds: Any = 0.01) -> Any:
    """So much time of the clock for each run, whatever it shares the CPU with: so that its capacity is known."""
    with tf.control_dependencies([x]):
        started = tf.timestamp()

    def body(_: Any) -> Any:
        return tf.timestamp()

    now = tf.while_loop(lambda now: now - started < seconds, body, [started])
    return x + tf.cast(tf.reshape(now, []) * 0.0, tf.int64)


def _deadly(tf: Any, x: Any) -> Any:
    """As `quick`, by a Python function that aborts the process when the deadly number is in its batch."""
    import chaos_deadly

    y = tf.numpy_function(chaos_deadly.numbers, [x], tf.int64)
    y.op._set_attr("token", tf.compat.v1.AttrValue(s=chaos_deadly.TOKEN.encode()))
    return tf.reshape(y, tf.shape(x))


def _brittle(tf: Any, x: Any) -> Any:
    """By an operation of TensorFlow's own that reads whatever address it is told to; the slow number takes long.

    FractionalMaxPoolGrad does not check its pooling sequences, here those of the deadly number.
    """
    import chaos_deadly

    deadly = tf.reduce_any(tf.equal(x, chaos_deadly.NUMBER))
    rows = tf.constant([0, 2, 4], tf.int64) - tf.where(deadly, tf.constant(1 << 40, tf.int64), 0)
    pooled = tf.raw_ops.FractionalMaxPoolGrad(
        orig_input=tf.ones([1, 4, 4, 1]),
        orig_output=tf.ones([1, 2, 2, 1]),
        out_backprop=tf.ones([1, 2, 2, 1]),
        row_pooling_sequence=rows,
        col_pooling_sequence=tf.constant([0, 2, 4], tf.int64),
        overlapping=False,
    )
    seconds = tf.where(tf.reduce_any(tf.equal(x, chaos_deadly.SLOW_NUMBER)), chaos_deadly.SLOW_S, 0.01)
    return _spin(tf, x, tf.cast(seconds, tf.float64)) + tf.cast(tf.reduce_sum(pooled) * 0.0, tf.int64)


_BUILDERS: dict[str, Graph] = {
    "quick": _quick,
    "work": _work,
    "spin": _spin,
    "deadly": _deadly,
    "brittle": _brittle,
}


def _save(path: Path, graph: Graph) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.int64, shape=[None], name="x")
        y = tf.identity(graph(tf, x), name="y")
        definition = demo_models.signature(v1, {"x": x}, {"y": y}, "tensorflow/serving/predict")
        demo_models.save_session(path, session, {"serving_default": definition})


def main() -> None:
    directory = Path(sys.argv[1])
    missing = [name for name in _BUILDERS if not (directory / name / "1").exists()]
    if not missing:
        return
    demo_models.silence_tensorflow()
    for name in missing:
        demo_models.publish_version(directory / name, "1", partial(_save, graph=_BUILDERS[name]))


if __name__ == "__main__":
    main()
