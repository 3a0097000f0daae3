"""What a model needs beside TensorFlow: libraries with custom operations, and Python modules that bring some along.

Main thread of the worker, before the model is loaded, so that what is missing or broken costs that model alone. Both
lists come from the pool's configuration file and are named in errors by their keys there.
"""

import importlib
import os
from collections.abc import Sequence

import tensorflow as tf

from modelpool.supervisor.wire.status import FailedPrecondition, NotFound


def load(op_libraries: Sequence[str], python_modules: Sequence[str]) -> None:
    """Load the libraries, then import the modules, each list in its order.

    Raises NotFound for what is not there and FailedPrecondition for what cannot be loaded.
    """
    for path in op_libraries:
        _load_library(path)
    for name in python_modules:
        _import_module(name)


def _load_library(path: str) -> None:
    if not os.path.isfile(path):
        raise NotFound(f"op_libraries: no such file: {path}")
    try:
        tf.load_op_library(path)
    except Exception as error:  # whatever the library's own code raises, beside TensorFlow's errors
        raise FailedPrecondition(f"op_libraries: cannot load {path}: {_text(error)}") from error


def _import_module(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotFound(f"python_modules: no module named '{name}'") from error
        raise FailedPrecondition(f"python_modules: cannot import '{name}': {_text(error)}") from error
    except Exception as error:  # a module's code can raise anything
        raise FailedPrecondition(f"python_modules: cannot import '{name}': {_text(error)}") from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
