"""Models with operations of our own, where there is a C++ compiler; see `models`."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.plain_models import Signatures, save

LIBRARY = "custom_ops.so"
"""The operations, in the directory of all models. A server must be told of it."""
BRANCHES = 8
"""Of the model `branches`."""

_SOURCE = """
#include <sys/syscall.h>
#include <unistd.h>
#include <chrono>
#include <thread>
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
// Sleeps, so that it takes time and no CPU, and says which thread that was.
REGISTER_OP("ModelpoolNap").Input("x: float").Output("thread: int64")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->Scalar());
      return absl::OkStatus();
    });
class Nap : public tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;
  void Compute(tensorflow::OpKernelContext* context) override {
    tensorflow::Tensor* thread = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &thread));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    thread->scalar<int64_t>()() = syscall(SYS_gettid);
  }
};
REGISTER_KERNEL_BUILDER(Name("ModelpoolNap").Device(tensorflow::DEVICE_CPU), Nap);
"""


def _compiled(library: Path) -> Any:
    """The operations, compiled where that has not been done."""
    import tensorflow as tf

    if not library.exists():
        flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "custom_ops.cc"
            source.write_text(_SOURCE, encoding="utf-8")
            compiler = ["g++", "-shared", "-fPIC", "-O1", "-w", str(source), "-o", str(library)]
            subprocess.run([*compiler, *flags], check=True)
    return tf.load_op_library(str(library))


def build_plus_seven(path: Path, library: Path) -> None:
    """`y` = `x` + 7, float32 of any shape."""
    operations = _compiled(library)

    def signatures(tf: Any) -> Signatures:
        x = tf.compat.v1.placeholder(tf.float32, shape=None, name="x")
        return {"serving_default": ({"x": x}, {"y": operations.modelpool_plus_seven(x)})}

    save(path, signatures)


def build_branches(path: Path, library: Path) -> None:
    """Of `x` (float32 [n]) the ids of the `threads` that have run BRANCHES slow branches, independent of each other."""
    operations = _compiled(library)

    def signatures(tf: Any) -> Signatures:
        x = tf.compat.v1.placeholder(tf.float32, shape=[None], name="x")
        # Of inputs that differ: what is the same would be made one.
        threads = [operations.modelpool_nap(x + float(number)) for number in range(BRANCHES)]
        return {"serving_default": ({"x": x}, {"threads": tf.stack(threads)})}

    save(path, signatures)


BUILDERS: dict[str, Callable[[Path, Path], None]] = {"plus_seven": build_plus_seven, "branches": build_branches}
"""By the model's name; each takes the path of the library as well."""
