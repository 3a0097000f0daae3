"""Builders of half_plus_two with a file in assets.extra: warmup records, golden requests, right and wrong ones.

y = x / 2 + 2, by predict on tensors, else on tf.Examples. They import TensorFlow, and run in the process that builds
only (`models`).
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any


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


def _empty_log() -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2.PredictionLog()


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


def build_dangling_golden(path: Path) -> None:
    """half_plus_two whose golden requests are a link to nothing."""
    import demo_models

    demo_models.build_half_plus_two(path)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "golden_requests").symlink_to("nowhere")


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "bad_warmup": build_bad_warmup,
    "golden_dangling": build_dangling_golden,
    **{name: partial(build_with_extra, name=name) for name in _extra_files()},
}
"""By the model's name."""
