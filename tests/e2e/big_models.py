"""Builders of models with variables of some megabytes, saved in every way: y = 0.5 x + `ANSWER`.

They import TensorFlow, and run in the process that builds only (`models`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

_BIG = (1100, 1000)
# What each variable is filled with, of which one element is added to the answer, and its shape.
_FLOATS = ((1.0, _BIG), (2.0, _BIG), (30.0, (1,)))
_LETTERS = 400
ANSWER = 1.0 + 2.0 + 30.0 + _LETTERS


def build_tf1(path: Path, resource: bool = True, devices: int = 1, parts: int = 1) -> None:
    """A variable of strings as well. Each device has files of its own; `parts`: of a big variable's value."""
    import demo_models
    import tensorflow as tf

    v1 = tf.compat.v1
    config = v1.ConfigProto(device_count={"CPU": devices})
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        added = []
        for number, (value, shape) in enumerate(_FLOATS):
            split = v1.fixed_size_partitioner(parts) if parts > 1 and shape == _BIG else None
            initial = v1.constant_initializer(value)
            with tf.device(f"/cpu:{number % devices}"):
                made = v1.get_variable(f"w{number}", shape, None, initial, partitioner=split, use_resource=resource)
                added.append(tf.reshape(tf.convert_to_tensor(made), [-1])[-1])
        text = v1.get_variable("text", use_resource=resource, initializer=tf.constant(["a", "b" * _LETTERS]))
        added.append(tf.cast(tf.strings.length(text)[1], tf.float32))
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(0.5 * x, tf.add_n(added), name="y")
        session.run(v1.global_variables_initializer())
        signature = demo_models.signature(v1, {"x": x}, {"y": y}, "tensorflow/serving/predict")
        demo_models.save_session(path, session, {"serving_default": signature})


def build_tf2(path: Path) -> None:
    """A table that is restored as variables are, and a third big variable that adds nothing."""
    import tensorflow as tf

    class Big(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weights = [tf.Variable(tf.fill(shape, value)) for value, shape in _FLOATS]
            self.ones = tf.Variable(tf.ones([2000, 2000], tf.bfloat16))
            self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0)
            self.table.insert(["k"], [float(_LETTERS)])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            added = [tf.reshape(each, [-1])[-1] for each in self.weights]
            nothing = tf.cast(self.ones[7, 9], tf.float32) - 1.0
            return {"y": 0.5 * x + tf.add_n([*added, nothing, self.table.lookup(tf.constant("k"))])}

    model = Big()
    tf.saved_model.save(model, str(path), signatures=model.__call__)


def build_wide(path: Path) -> None:
    """Two variables of so many elements that they are read side by side; small ones add the rest. TF2."""
    import tensorflow as tf

    shape = (4100, 4100)
    module = tf.Module()
    module.wide = [tf.Variable(tf.fill(shape, tf.constant(value, tf.int8))) for value in (1, 2)]
    module.rest = tf.Variable(ANSWER - 3.0)

    def answer(x: Any) -> Any:
        return {"y": 0.5 * x + tf.cast(tf.add_n([each[-1, -1] for each in module.wide]), tf.float32) + module.rest}

    module.f = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(module, str(path), signatures=module.f)


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "big_tf1": build_tf1,
    "big_tf2": build_tf2,
    "big_wide": build_wide,
    "big_sharded": partial(build_tf1, devices=2),
    "big_parts": partial(build_tf1, parts=2),
    "big_references": partial(build_tf1, resource=False),
}
"""By the model's name."""
