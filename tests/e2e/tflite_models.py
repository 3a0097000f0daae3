"""Builders of TensorFlow Lite models, beside a SavedModel or alone, such as can be served and such as cannot.

They import TensorFlow, and run in the process that builds only (`models`).
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def build_tflite(path: Path) -> None:
    """A SavedModel y = sum(x) + 1 on [batch, 3], TF2; beside it a `model.tflite` of that signature: y = sum(x) + 2."""
    import tensorflow as tf

    _save_sum(path, 1.0)
    other = path.with_name(f"{path.name}-lite")
    _save_sum(other, 2.0)
    (path / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(other)).convert())
    shutil.rmtree(other)


def _save_sum(path: Path, bias: float) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": tf.reduce_sum(x, axis=1, keepdims=True) + bias},
        input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


def build_tflite_bare(path: Path) -> None:
    """A `model.tflite` alone and without signature definitions: y = 2 x on [batch, 2]."""
    import tensorflow as tf

    double = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    path.mkdir(parents=True)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()])
    (path / "model.tflite").write_bytes(converter.convert())


def build_tflite_mixed(path: Path) -> None:
    """A `model.tflite` whose rows depend on each other, `mean`, and that has an output without a row for each."""
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(
        lambda x: {"mean": x - tf.reduce_mean(x, 0, keepdims=True), "labels": tf.constant([1.0, 2.0, 3.0])},
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")],
    )
    path.mkdir(parents=True)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    (path / "model.tflite").write_bytes(converter.convert())


def build_tflite_remembering(path: Path) -> None:
    """A `model.tflite` with a variable: `put` keeps the largest x of a request and answers x, `get` answers it + x."""
    import tensorflow as tf

    module = tf.Module()
    module.largest = tf.Variable(0.0)

    def put(x: Any) -> Any:
        module.largest.assign(tf.reduce_max(x))
        return {"y": x * 1.0}

    signature = [tf.TensorSpec([None, 1], tf.float32, name="x")]
    module.put = tf.function(put, input_signature=signature)
    module.get = tf.function(lambda x: {"y": x + module.largest}, input_signature=signature)
    whole = path.with_name(f"{path.name}-whole")
    tf.saved_model.save(module, str(whole), signatures={"put": module.put, "get": module.get})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(whole), signature_keys=["put", "get"])
    converter.experimental_enable_resource_variables = True
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())
    shutil.rmtree(whole)


def build_tflite_flex(path: Path) -> None:
    """A `model.tflite` with an operation of TensorFlow, which neither TF Serving nor TensorFlow's package can run."""
    import tensorflow as tf

    function = tf.function(tf.linalg.det, input_signature=[tf.TensorSpec([2, 2], tf.float32, name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())


def build_tflite_examples(path: Path) -> None:
    """A `model.tflite` that parses tf.Examples by a custom operation: x / 2 + c + how many `s` the batch has."""
    import tensorflow as tf

    features = {
        "x": tf.io.FixedLenFeature([1], tf.float32, default_value=[8.0]),
        "c": tf.io.FixedLenFeature([], tf.float32, default_value=2.0),
        "s": tf.io.VarLenFeature(tf.int64),
    }

    def answer(examples: Any) -> Any:
        parsed = tf.io.parse_example(examples, features)
        more = tf.cast(tf.size(parsed["s"].values), tf.float32)
        return {"outputs": parsed["x"] / 2.0 + tf.expand_dims(parsed["c"], 1) + more}

    function = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    module = tf.Module()
    module.f = function
    full = path.with_name(f"{path.name}-full")
    tf.saved_model.save(module, str(full), signatures=module.f)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(full))
    converter.allow_custom_ops = True
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())
    shutil.rmtree(full)


def build_tflite_described(path: Path) -> None:
    """The same with signature definitions in its metadata, as TF Serving reads them: `number` to `twice`."""
    from flatbuffers import flexbuffers
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    build_tflite_bare(path)
    file = path / "model.tflite"
    model = flatbuffer_utils.read_model(str(file))
    graph = model.subgraphs[0]
    x, y = (graph.tensors[index[0]].name.decode() for index in (graph.inputs, graph.outputs))
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    # The suffix is TensorFlow's, the model's tensor may lack it.
    definition.inputs["number"].name = f"{x.partition(':')[0]}:0"
    definition.outputs["twice"].name = y
    for info in (definition.inputs["number"], definition.outputs["twice"]):
        info.dtype = 1
    map_of = flexbuffers.Builder()
    with map_of.Map():
        map_of.Key("doubling")
        map_of.String(definition.SerializeToString().decode("ascii"))
    buffer, metadata = schema.BufferT(), schema.MetadataT()
    buffer.data = list(map_of.Finish())
    metadata.name, metadata.buffer = "signature_defs_metadata", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), metadata]
    flatbuffer_utils.write_model(model, str(file))


def build_tflite_corrupt(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(b"no flatbuffer" * 20)


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "tflite": build_tflite,
    "tflite_bare": build_tflite_bare,
    "tflite_mixed": build_tflite_mixed,
    "tflite_remembering": build_tflite_remembering,
    "tflite_examples": build_tflite_examples,
    "tflite_flex": build_tflite_flex,
    "tflite_described": build_tflite_described,
    "tflite_corrupt": build_tflite_corrupt,
}
"""By the model's name."""
