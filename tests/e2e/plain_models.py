"""Builders of models without files beside the graph: one for each thing that a test asks of a model.

They import TensorFlow, and run in the process that builds only (`models`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Signatures = dict[str, tuple[dict[str, Any], dict[str, Any]]]
"""Key to inputs and outputs, tensors by name."""

# Names as in `tf.dtypes`; every type that an Identity of a graph carries and a TensorProto has a field for.
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "string", "qint8", "quint8", "qint16", "quint16", "qint32"),
)

NUMBERED_VERSIONS = (1, 2, 3)
"""Versions of the model `numbered`, each of which answers with its number."""


def save(
    path: Path, signatures: Callable[[Any], Signatures], defaults: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """A TF1 SavedModel without variables, whose graph `signatures(tf)` makes.

    A signature whose key begins with `classify` or `regress` says that as its method, any other predict. `defaults`: by
    key, what inputs are when they are not sent.
    """
    import demo_models
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        definitions = {
            key: demo_models.signature(v1, inputs, outputs, f"tensorflow/serving/{_method(key)}")
            for key, (inputs, outputs) in signatures(tf).items()
        }
        for key, values in (defaults or {}).items():
            for name, value in values.items():
                definitions[key].defaults[name].CopyFrom(tf.make_tensor_proto(value))
        demo_models.save_session(path, session, definitions)


def _method(key: str) -> str:
    word = key.partition("_")[0]
    return word if word in {"classify", "regress"} else "predict"


def build_dtypes(path: Path) -> None:
    """For each of DTYPES a signature of that name, `x` of any shape to `y`, its identity. TF1."""

    def signatures(tf: Any) -> Signatures:
        made = {}
        for name in DTYPES:
            x = tf.compat.v1.placeholder(tf.as_dtype(name), shape=None, name=f"x_{name}")
            made[name] = ({"x": x}, {"y": tf.identity(x, name=f"y_{name}")})
        return made

    save(path, signatures)


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

    def signatures(tf: Any) -> Signatures:
        seconds = tf.compat.v1.placeholder(tf.float64, shape=[], name="seconds")
        with tf.control_dependencies([seconds]):
            started = tf.timestamp()

        def body(now: Any) -> Any:
            with tf.control_dependencies([now]):
                return tf.timestamp()

        now = tf.while_loop(lambda now: now - started < seconds, body, [started])
        return {"serving_default": ({"seconds": seconds}, {"elapsed": tf.identity(now - started)})}

    save(path, signatures)


def build_leaky(path: Path) -> None:
    """Keeps `mib` (scalar int32) MiB more with each request, in a queue that nobody empties; `kept`: pieces so far."""

    def signatures(tf: Any) -> Signatures:
        mib = tf.compat.v1.placeholder(tf.int32, shape=[], name="mib")
        queue = tf.queue.FIFOQueue(1_000_000, [tf.float32], shared_name="leak")
        with tf.control_dependencies([queue.enqueue(tf.fill([mib * (1 << 18)], 1.0))]):
            kept = queue.size()
        return {"serving_default": ({"mib": mib}, {"kept": tf.identity(kept)})}

    save(path, signatures)


def build_sum(path: Path) -> None:
    """Two inputs: `total` = `a` + `b`, `product` = `a` * `b`; float32 of any shape."""

    def signatures(tf: Any) -> Signatures:
        a, b = (tf.compat.v1.placeholder(tf.float32, shape=None, name=name) for name in "ab")
        return {"serving_default": ({"a": a, "b": b}, {"total": a + b, "product": a * b})}

    save(path, signatures)


def build_numbered(path: Path, number: int) -> None:
    """`y` = `x` + `number`, so that asked with zeros it tells which version answers; float32 of any shape."""

    def signatures(tf: Any) -> Signatures:
        x = tf.compat.v1.placeholder(tf.float32, shape=None, name="x")
        return {"serving_default": ({"x": x}, {"y": x + float(number)})}

    save(path, signatures)


def build_corrupt(path: Path) -> None:
    """A folder whose `saved_model.pb` is no SavedModel."""
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"\xff\xfethis was a model once" * 20)


def build_twisted(path: Path) -> None:
    """Signatures on strings `e` [batch] whose shapes, keys or dtypes the calls refuse, and unusual ones they take. TF1.

    `classify_*` and `regress_*` say classify and regress as their method, the others predict. `defaults`: y = x + k,
    where k is 3 when it is not sent.
    """

    def signatures(tf: Any) -> Signatures:
        v1 = tf.compat.v1
        e = v1.placeholder(tf.string, shape=[None], name="e")
        x = v1.placeholder(tf.float32, shape=None, name="x")
        lengths = tf.strings.length(e)
        scores = tf.cast(tf.stack([lengths, -lengths], axis=1), tf.float32)
        return {
            **_twisted_classify(tf, e, x, lengths, scores),
            **_twisted_regress(tf, e, x, lengths, scores),
            **_twisted_predict(tf, e, x, lengths),
        }

    save(path, signatures, defaults={"defaults": {"k": 3.0}})


def _twisted_classify(tf: Any, e: Any, x: Any, lengths: Any, scores: Any) -> Signatures:
    labels = tf.stack([e, tf.strings.join(["not ", e])], axis=1)
    return {
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
    }


def _twisted_regress(tf: Any, e: Any, x: Any, lengths: Any, scores: Any) -> Signatures:
    return {
        "regress": ({"inputs": e}, {"outputs": tf.cast(lengths, tf.float32)}),
        "regress_column": ({"inputs": e}, {"outputs": scores[:, :1]}),
        "regress_two_columns": ({"inputs": e}, {"outputs": scores}),
        "regress_int": ({"inputs": e}, {"outputs": lengths}),
        "regress_batch": ({"inputs": e}, {"outputs": scores[:1, 0]}),
        "regress_two_inputs": ({"inputs": e, "x": x}, {"outputs": scores[:, 0]}),
        "regress_two_outputs": ({"inputs": e}, {"outputs": scores[:, 0], "more": lengths}),
        "regress_input_key": ({"e": e}, {"outputs": scores[:, 0]}),
        "regress_output_key": ({"inputs": e}, {"foo": scores[:, 0]}),
    }


def _twisted_predict(tf: Any, e: Any, x: Any, lengths: Any) -> Signatures:
    k = tf.compat.v1.placeholder(tf.float32, shape=None, name="k")
    return {
        "defaults": ({"x": x, "k": k}, {"y": x + k}),
        "scalar": ({"x": x}, {"y": tf.reduce_sum(x)}),
        "uneven": ({"x": x}, {"all": tf.identity(x), "half": x[::2]}),
        "half": ({"x": x}, {"y": tf.cast(x, tf.float16)}),
        "odd_floats": ({"x": x}, {"y": x / 0.0}),
        "pairs": ({"e": e}, {"text": tf.identity(e), "raw_bytes": tf.identity(e), "length": lengths}),
        "number": ({"e": e}, {"y": tf.strings.to_number(e)}),
        "whole": ({"x": x}, {"y": tf.cast(x, tf.int64)}),
    }


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


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "dtypes": build_dtypes,
    "dtypes_tf2": build_dtypes_tf2,
    "slow": build_slow,
    "leaky": build_leaky,
    "sum": build_sum,
    "spam": build_spam,
    "twisted": build_twisted,
    "corrupt": build_corrupt,
    "words": build_words,
    "compiled": build_compiled,
}
"""By the model's name; `numbered` is made otherwise."""
