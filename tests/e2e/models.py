"""Models that only tests need, built once into `build/test-models/<digest of the builders>`.

`test_models()` is for the tests' process and builds by a process of its own; the builders below import TensorFlow and
run there only. All models are whole SavedModels below `<directory>/<name>/<version>`, made as the demo models are.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"

# Names as in `tf.dtypes`; every type that an Identity of a graph carries and a TensorProto has a field for.
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "string", "qint8", "quint8", "qint16", "quint16", "qint32"),
)

BRANCHES = 6
"""Of the model `branches`."""

NUMBERED_VERSIONS = (1, 2, 3)
"""Versions of the model `numbered`, each of which answers with its number."""


def test_models() -> Path:
    """The directory of all models, built first where that has not been done with these very builders."""
    sources = (Path(__file__), SCRIPTS / "demo_models.py")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    directory = ROOT / "build" / "test-models" / digest
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            command = [sys.executable, __file__, str(directory)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            assert done.returncode == 0, f"the test models could not be built:\n{done.stdout}"
    finally:
        os.close(lock)
    return directory


test_models.__test__ = False  # type: ignore[attr-defined]  # a function, not a test


# -- builders: only in the process that builds -------------------------------------------------------------------


def _save(path: Path, signatures: Callable[[Any], dict[str, tuple[dict[str, Any], dict[str, Any]]]]) -> None:
    """A TF1 SavedModel without variables; `signatures(tf)` makes its graph: key to (inputs, outputs)."""
    import tensorflow as tf

    v1 = tf.compat.v1
    info = v1.saved_model.utils.build_tensor_info
    with tf.Graph().as_default(), v1.Session() as session:
        definitions = {
            key: v1.saved_model.signature_def_utils.build_signature_def(
                {name: info(tensor) for name, tensor in inputs.items()},
                {name: info(tensor) for name, tensor in outputs.items()},
                "tensorflow/serving/predict",
            )
            for key, (inputs, outputs) in signatures(tf).items()
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=definitions)
        builder.save()


def build_dtypes(path: Path) -> None:
    """For each of DTYPES a signature of that name, `x` of any shape to `y`, its identity. TF1."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        made = {}
        for name in DTYPES:
            x = tf.compat.v1.placeholder(tf.as_dtype(name), shape=None, name=f"x_{name}")
            made[name] = ({"x": x}, {"y": tf.identity(x, name=f"y_{name}")})
        return made

    _save(path, signatures)


def build_dtypes_tf2(path: Path) -> None:
    """The same for the types that a tf.function takes, in the TF2 format."""
    import tensorflow as tf

    def identity(name: str) -> Any:
        spec = tf.TensorSpec(None, tf.as_dtype(name), name="x")
        return tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])

    module = tf.Module()
    functions = {name: identity(name) for name in DTYPES if not name.startswith(("qint", "quint"))}
    module.functions = functions
    tf.saved_model.save(module, str(path), signatures={name: f for name, f in functions.items()})


def build_slow(path: Path) -> None:
    """Computes for `seconds` (scalar float64) and answers `elapsed`; not to be interrupted."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        seconds = tf.compat.v1.placeholder(tf.float64, shape=[], name="seconds")
        with tf.control_dependencies([seconds]):
            started = tf.timestamp()

        def body(now: Any) -> Any:
            with tf.control_dependencies([now]):
                return tf.timestamp()

        now = tf.while_loop(lambda now: now - started < seconds, body, [started])
        return {"serving_default": ({"seconds": seconds}, {"elapsed": tf.identity(now - started)})}

    _save(path, signatures)


def build_leaky(path: Path) -> None:
    """Keeps `mib` (scalar int32) MiB more with each request, in a queue that nobody empties; `kept`: pieces so far."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        mib = tf.compat.v1.placeholder(tf.int32, shape=[], name="mib")
        queue = tf.queue.FIFOQueue(1_000_000, [tf.float32], shared_name="leak")
        with tf.control_dependencies([queue.enqueue(tf.fill([mib * (1 << 18)], 1.0))]):
            kept = queue.size()
        return {"serving_default": ({"mib": mib}, {"kept": tf.identity(kept)})}

    _save(path, signatures)


def build_branches(path: Path) -> None:
    """`y` = `x` (float32 of one dimension) by BRANCHES heavy branches that do not depend on each other."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        x = tf.compat.v1.placeholder(tf.float32, shape=[None], name="x")

        def branch(number: int) -> Any:
            busy = tf.fill([256, 256], tf.reduce_sum(x) * 1e-9 + number / BRANCHES)
            for _ in range(6):
                busy = tf.tanh(tf.matmul(busy, busy))
            return tf.reduce_sum(busy) * 0.0

        return {"serving_default": ({"x": x}, {"y": tf.identity(x + tf.add_n([branch(n) for n in range(BRANCHES)]))})}

    _save(path, signatures)


def build_sum(path: Path) -> None:
    """Two inputs: `total` = `a` + `b`, `product` = `a` * `b`; float32 of any shape."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        a, b = (tf.compat.v1.placeholder(tf.float32, shape=None, name=name) for name in "ab")
        return {"serving_default": ({"a": a, "b": b}, {"total": a + b, "product": a * b})}

    _save(path, signatures)


def build_numbered(path: Path, number: int) -> None:
    """`y` = `x` + `number`, so that asked with zeros it tells which version answers; float32 of any shape."""

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        x = tf.compat.v1.placeholder(tf.float32, shape=None, name="x")
        return {"serving_default": ({"x": x}, {"y": x + float(number)})}

    _save(path, signatures)


def build_corrupt(path: Path) -> None:
    """A folder whose `saved_model.pb` is no SavedModel."""
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"\xff\xfethis was a model once" * 20)


def build_bad_warmup(path: Path) -> None:
    """half_plus_two with a warmup request that fails: an input that the signature does not have."""
    import demo_models
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    demo_models.build_half_plus_two(path)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "bad_warmup"
    request.inputs["nonesuch"].CopyFrom(tf.make_tensor_proto([1.0]))
    demo_models.write_warmup(path, [request])


# -- half_plus_two with files in assets.extra: y = x / 2 + 2, by predict on tensors, else on tf.Examples ------------


def _input(*features: dict[str, float]) -> Any:
    """A tensorflow.serving.Input of Examples with float features."""
    from tensorflow_serving.apis import input_pb2

    made = input_pb2.Input()
    for each in features:
        example = made.example_list.examples.add()
        for name, value in each.items():
            example.features.feature[name].float_list.value.append(value)
    return made


def _predict_log(*numbers: float, answers: list[float] | None = None) -> Any:
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "ignored"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(numbers, np.float32)))
    if answers is not None:
        log.predict_log.response.outputs["y"].CopyFrom(tf.make_tensor_proto(np.array(answers, np.float32)))
    return log


def _example_log(kind: str, signature: str, *features: dict[str, float]) -> Any:
    """A classify_log or regress_log."""
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, kind).request
    request.model_spec.name = "ignored"
    request.model_spec.signature_name = signature
    request.input.CopyFrom(_input(*features))
    return log


def _multi_inference_log(*tasks: tuple[str, str]) -> Any:
    """Tasks as (method, signature)."""
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.multi_inference_log.request
    request.input.CopyFrom(_input({"x": 1.0}))
    for method, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = "ignored"
        task.model_spec.signature_name = signature
    return log


def _bare_log(kind: str) -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    getattr(log, kind).SetInParent()
    return log


def _golden_logs(wrong: str = "") -> list[Any]:
    """A golden request of each kind, all right but the `wrong` kind."""
    predict = _predict_log(1.0, 2.0, 4.0, answers=[2.5, 3.0, 4.5 if wrong == "predict" else 4.0])
    regress = _example_log("regress_log", "regress_x_to_y", {"x": 1.0}, {"x": 2.0})
    for value in (2.5, 3.25 if wrong == "regress" else 3.0):
        regress.regress_log.response.result.regressions.add().value = value
    classify = _example_log("classify_log", "classify_x_to_y", {"x": 1.0})
    classes = classify.classify_log.response.result.classifications.add().classes
    classes.add(score=2.5, label="two" if wrong == "classify" else "")
    return [predict, regress, classify]


def _extra_files() -> dict[str, tuple[str, Callable[[], list[Any]], int]]:
    """Model name to the name of its file in assets.extra, the records, and how many bytes are cut off its end."""
    warmup, golden = "tf_serving_warmup_requests", "golden_requests"
    regress, classify = ("regress", "regress_x_to_y"), ("classify", "classify_x_to_y")
    return {
        "warm_kinds": (
            warmup,
            lambda: [
                _predict_log(1.0),
                _example_log("classify_log", "classify_x_to_y", {"x": 1.0}, {"x": 2.0}),
                _example_log("regress_log", "regress_x_to_y", {"x": 1.0}),
                _multi_inference_log(regress, classify),
                _empty_log(),
            ],
            0,
        ),
        "warm_classify_fails": (warmup, lambda: [_example_log("classify_log", "regress_x_to_y", {"x": 1.0})], 0),
        "warm_regress_fails": (warmup, lambda: [_example_log("regress_log", "regress_x_to_y")], 0),
        "warm_multi_fails": (warmup, lambda: [_multi_inference_log(regress, ("predict", "classify_x_to_y"))], 0),
        "warm_session_run": (warmup, lambda: [_predict_log(1.0), _bare_log("session_run_log")], 0),
        "warm_streamed": (warmup, lambda: [_bare_log("predict_streamed_log")], 0),
        "warm_many": (warmup, lambda: [_predict_log(1.0)] * 1001, 0),
        "warm_cut": (warmup, lambda: [_predict_log(1.0)] * 2, 5),
        "golden_pass": (golden, _golden_logs, 0),
        "golden_predict": (golden, lambda: _golden_logs("predict"), 0),
        "golden_regress": (golden, lambda: _golden_logs("regress"), 0),
        "golden_classify": (golden, lambda: _golden_logs("classify"), 0),
        "golden_cut": (golden, _golden_logs, 5),
    }


def _empty_log() -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2.PredictionLog()


def build_with_extra(path: Path, name: str) -> None:
    """half_plus_two with the file that `_extra_files` says `name` has."""
    import demo_models
    import tensorflow as tf

    file_name, logs, cut = _extra_files()[name]
    demo_models.build_half_plus_two(path)
    file = path / "assets.extra" / file_name
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs():
            writer.write(log.SerializeToString())
    os.truncate(file, file.stat().st_size - cut)


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


def build_twisted(path: Path) -> None:
    """Signatures on strings `e` [batch] whose shapes, keys or dtypes the calls refuse, and unusual ones they take. TF1.

    `classify_*` and `regress_*` say classify and regress as their method, the others predict. `defaults`: y = x + k,
    where k is 3 when it is not sent.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    info = v1.saved_model.utils.build_tensor_info
    with tf.Graph().as_default(), v1.Session() as session:
        e = v1.placeholder(tf.string, shape=[None], name="e")
        x = v1.placeholder(tf.float32, shape=None, name="x")
        k = v1.placeholder(tf.float32, shape=None, name="k")
        lengths = tf.strings.length(e)
        scores = tf.cast(tf.stack([lengths, -lengths], axis=1), tf.float32)
        labels = tf.stack([e, tf.strings.join(["not ", e])], axis=1)
        named: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "classify": ({"inputs": e}, {"classes": labels, "scores": scores}),
            "classify_labels": ({"inputs": e}, {"classes": labels}),
            "classify_scores": ({"inputs": e}, {"scores": scores}),
            "classify_two_inputs": ({"inputs": e, "x": x}, {"scores": scores}),
            "classify_input_key": ({"e": e}, {"scores": scores}),
            "classify_three_outputs": ({"inputs": e}, {"classes": labels, "scores": scores, "more": lengths}),
            "classify_output_keys": ({"inputs": e}, {"foo": scores}),
            "classify_int_labels": ({"inputs": e}, {"classes": tf.stack([lengths], axis=1)}),
            "classify_double": ({"inputs": e}, {"scores": tf.cast(scores, tf.float64)}),
            "classify_rank": ({"inputs": e}, {"scores": tf.reshape(scores, [-1])}),
            "classify_label_rank": ({"inputs": e}, {"classes": tf.identity(e)}),
            "classify_batch": ({"inputs": e}, {"scores": scores[:1]}),
            "classify_widths": ({"inputs": e}, {"classes": labels, "scores": scores[:, :1]}),
            "regress": ({"inputs": e}, {"outputs": tf.cast(lengths, tf.float32)}),
            "regress_column": ({"inputs": e}, {"outputs": scores[:, :1]}),
            "regress_two_columns": ({"inputs": e}, {"outputs": scores}),
            "regress_int": ({"inputs": e}, {"outputs": lengths}),
            "regress_batch": ({"inputs": e}, {"outputs": scores[:1, 0]}),
            "regress_two_inputs": ({"inputs": e, "x": x}, {"outputs": scores[:, 0]}),
            "regress_two_outputs": ({"inputs": e}, {"outputs": scores[:, 0], "more": lengths}),
            "regress_input_key": ({"e": e}, {"outputs": scores[:, 0]}),
            "regress_output_key": ({"inputs": e}, {"foo": scores[:, 0]}),
            "defaults": ({"x": x, "k": k}, {"y": x + k}),
            "scalar": ({"x": x}, {"y": tf.reduce_sum(x)}),
            "uneven": ({"x": x}, {"all": tf.identity(x), "half": x[::2]}),
            "half": ({"x": x}, {"y": tf.cast(x, tf.float16)}),
            "odd_floats": ({"x": x}, {"y": x / 0.0}),
            "pairs": ({"e": e}, {"text": tf.identity(e), "raw_bytes": tf.identity(e), "length": lengths}),
            "number": ({"e": e}, {"y": tf.strings.to_number(e)}),
            "whole": ({"x": x}, {"y": tf.cast(x, tf.int64)}),
        }
        kinds = {"classify": "classify", "regress": "regress"}
        definitions = {
            key: v1.saved_model.signature_def_utils.build_signature_def(
                {name: info(tensor) for name, tensor in inputs.items()},
                {name: info(tensor) for name, tensor in outputs.items()},
                f"tensorflow/serving/{kinds.get(key.partition('_')[0], 'predict')}",
            )
            for key, (inputs, outputs) in named.items()
        }
        definitions["defaults"].defaults["k"].CopyFrom(tf.make_tensor_proto(3.0))
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=definitions)
        builder.save()


def build_words(path: Path) -> None:
    """`words`: the words of the texts `line` [n], one after the other, by an operation of tensorflow_text."""
    import tensorflow as tf
    import tensorflow_text

    def split(line: Any) -> dict[str, Any]:
        return {"words": tensorflow_text.WhitespaceTokenizer().tokenize(line).flat_values}

    module = tf.Module()
    module.split = tf.function(split, input_signature=[tf.TensorSpec([None], tf.string, name="line")])
    tf.saved_model.save(module, str(path), signatures=module.split)


def build_compiled(path: Path) -> None:
    """`y` = 2 `x` + 1, to be compiled by XLA; float32 [n]."""
    import tensorflow as tf

    def call(x: Any) -> dict[str, Any]:
        return {"y": 2.0 * x + 1.0}

    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.call = tf.function(call, input_signature=[spec], jit_compile=True)
    tf.saved_model.save(module, str(path), signatures=module.call)


CUSTOM_OP_LIBRARY = "plus_seven.so"
"""In the directory of all models, where there is a C++ compiler: the operation of the model `plus_seven`."""

_CUSTOM_OP = """
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
REGISTER_OP("ModelpoolPlusSeven").Input("x: float").Output("y: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(0));
      return absl::OkStatus();
    });
class PlusSeven : public tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;
  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& x = context->input(0);
    tensorflow::Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    for (int64_t i = 0; i < x.NumElements(); ++i) y->flat<float>()(i) = x.flat<float>()(i) + 7;
  }
};
REGISTER_KERNEL_BUILDER(Name("ModelpoolPlusSeven").Device(tensorflow::DEVICE_CPU), PlusSeven);
"""


def build_plus_seven(path: Path, library: Path) -> None:
    """`y` = `x` + 7, float32 of any shape, by an operation of our own in `library`, which is compiled first."""
    import tensorflow as tf

    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "plus_seven.cc"
        source.write_text(_CUSTOM_OP, encoding="utf-8")
        compiler = ["g++", "-shared", "-fPIC", "-O1", "-w", str(source), "-o", str(library)]
        subprocess.run([*compiler, *flags], check=True)
    operations = tf.load_op_library(str(library))

    def signatures(tf: Any) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        x = tf.compat.v1.placeholder(tf.float32, shape=None, name="x")
        return {"serving_default": ({"x": x}, {"y": operations.modelpool_plus_seven(x)})}

    _save(path, signatures)


def build_spam(path: Path) -> None:
    """TF2, on serialized tf.Examples with a string `text` and floats `weights` [2]; the signatures say predict.

    `serving_default`: classes spam and ham, whose scores are the weights. `regress`: the weights' sum. `length`: takes
    strings `text` [batch] as they are, answers `length` and `text_bytes`, the text reversed byte by byte.
    """
    import tensorflow as tf

    serialized = [tf.TensorSpec([None], tf.string, name="inputs")]
    features = {
        "text": tf.io.FixedLenFeature([], tf.string, default_value=""),
        "weights": tf.io.FixedLenFeature([2], tf.float32),
    }

    class Spam(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=serialized)  # type: ignore[untyped-decorator]
        def classify(self, inputs: Any) -> Any:
            scores = tf.io.parse_example(inputs, features)["weights"]
            classes = tf.broadcast_to(tf.constant([["spam", "ham"]]), tf.shape(scores))
            return {"classes": classes, "scores": scores}

        @tf.function(input_signature=serialized)  # type: ignore[untyped-decorator]
        def regress(self, inputs: Any) -> Any:
            return {"outputs": tf.reduce_sum(tf.io.parse_example(inputs, features)["weights"], axis=1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])  # type: ignore[untyped-decorator]
        def length(self, text: Any) -> Any:
            pieces = tf.strings.bytes_split(text)
            return {
                "length": tf.strings.length(text),
                "text_bytes": tf.strings.reduce_join(tf.reverse(pieces.to_tensor(""), axis=[1]), axis=1),
            }

    module = Spam()
    signatures = {"serving_default": module.classify, "regress": module.regress, "length": module.length}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _build_all(directory: Path) -> None:
    import demo_models

    demo_models.build_all(directory)
    builders: dict[str, Callable[[Path], None]] = {
        "dtypes": build_dtypes,
        "dtypes_tf2": build_dtypes_tf2,
        "slow": build_slow,
        "leaky": build_leaky,
        "branches": build_branches,
        "sum": build_sum,
        "spam": build_spam,
        "twisted": build_twisted,
        "tflite": build_tflite,
        "tflite_bare": build_tflite_bare,
        "tflite_examples": build_tflite_examples,
        "tflite_flex": build_tflite_flex,
        "tflite_described": build_tflite_described,
        "tflite_corrupt": build_tflite_corrupt,
        "corrupt": build_corrupt,
        "bad_warmup": build_bad_warmup,
        "words": build_words,
        "compiled": build_compiled,
    }
    if shutil.which("g++"):
        builders["plus_seven"] = partial(build_plus_seven, library=directory / CUSTOM_OP_LIBRARY)
    builders |= {name: partial(build_with_extra, name=name) for name in _extra_files()}
    for name, build in builders.items():
        demo_models.publish_version(directory / name, "1", build)
    for number in NUMBERED_VERSIONS:
        demo_models.publish_version(directory / "numbered", str(number), partial(build_numbered, number=number))
    (directory / "empty").mkdir(exist_ok=True)
    (directory / "complete").touch()


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    _build_all(Path(sys.argv[1]))
