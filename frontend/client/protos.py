"""TF Serving's protos without TensorFlow, in a process that may import TensorFlow before, after or at the same time.

Owns the import of the generated modules. These import modules below the package `tensorflow`, whose own import takes
seconds. So while they are imported, a bare package with the right `__path__` stands for it; afterwards `tensorflow` is
as unknown to the interpreter as before, and whoever imports it gets the real one. The submodules stay: the real
package takes them as they are. (`supervisor.wire.protos` leaves its bare package behind, which suits processes that
never want TensorFlow; a library may not do so in its user's process.)
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULES = (
    "tensorflow.core.framework.tensor_pb2",
    "tensorflow.core.framework.types_pb2",
    "tensorflow.core.example.example_pb2",
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.inference_pb2",
    "tensorflow_serving.apis.model_management_pb2",
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.regression_pb2",
)


class _Imported(Exception):
    """Ends the execution of the bare package, which makes the interpreter forget it."""


class _BarePackage:
    """Finder and loader of a `tensorflow` that imports the protos and then fails.

    The interpreter holds the import lock of `tensorflow` meanwhile: another thread that imports it waits, and then
    imports the real one. The finder answers only to the thread that put it in place.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "tensorflow" or threading.get_ident() != self._thread:
            return None
        spec = ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]  # a loader by its methods
        spec.submodule_search_locations = self._path
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _import_all()
        raise _Imported


def _import_all() -> None:
    for name in _MODULES:
        importlib.import_module(name)


def _import_protos() -> None:
    if "tensorflow" in sys.modules:
        # Another thread may be importing it right now; this waits until it is whole.
        importlib.import_module("tensorflow")
        _import_all()
        return
    real = PathFinder.find_spec("tensorflow")
    if real is None or real.submodule_search_locations is None:
        raise ImportError("modelpool needs the package 'tensorflow' (for its protos): pip install tensorflow")
    finder: Any = _BarePackage(real.submodule_search_locations)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("tensorflow")
    except _Imported:
        return
    finally:
        sys.meta_path.remove(finder)
    # Another thread has imported the real one in between.
    _import_all()


_import_protos()

# The codec imports some of these modules too; it finds them now. The client's modules take it from here.
from modelpool.supervisor.wire import tensors as tensors  # noqa: E402, PLC0414


def _class(module: str, name: str) -> Any:
    return getattr(sys.modules[module], name)


def _serving(module: str, name: str) -> Any:
    return _class(f"tensorflow_serving.apis.{module}_pb2", name)


Example = _class("tensorflow.core.example.example_pb2", "Example")
DataType = _class("tensorflow.core.framework.types_pb2", "DataType")
PredictRequest = _serving("predict", "PredictRequest")
PredictResponse = _serving("predict", "PredictResponse")
ClassificationRequest = _serving("classification", "ClassificationRequest")
ClassificationResponse = _serving("classification", "ClassificationResponse")
RegressionRequest = _serving("regression", "RegressionRequest")
RegressionResponse = _serving("regression", "RegressionResponse")
MultiInferenceRequest = _serving("inference", "MultiInferenceRequest")
MultiInferenceResponse = _serving("inference", "MultiInferenceResponse")
GetModelMetadataRequest = _serving("get_model_metadata", "GetModelMetadataRequest")
GetModelMetadataResponse = _serving("get_model_metadata", "GetModelMetadataResponse")
SignatureDefMap = _serving("get_model_metadata", "SignatureDefMap")
GetModelStatusRequest = _serving("get_model_status", "GetModelStatusRequest")
GetModelStatusResponse = _serving("get_model_status", "GetModelStatusResponse")
ModelVersionStatus = _serving("get_model_status", "ModelVersionStatus")
ReloadConfigRequest = _serving("model_management", "ReloadConfigRequest")
ReloadConfigResponse = _serving("model_management", "ReloadConfigResponse")
