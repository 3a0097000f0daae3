"""The inputs of the workloads by formulas, the same everywhere, and where their models are. NumPy only.

Apart from `bench_workloads`, for that imports the protos without TensorFlow, which a process that imports TensorFlow
must not.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DEMO_MODELS = ROOT / ".demo" / "models"
BUILD = ROOT / "build" / "bench"
EXPECTED = "expected.json"  # beside the versions of a model that was built for the benches
HALF_PLUS_TWO = "half_plus_two"

FEATURES = 15
PICTURE = (224, 224, 3)
CONV_PICTURE = (64, 64, 3)
STRINGS = 16


def base_path(model: str) -> Path:
    """Of a model of the benches."""
    return (DEMO_MODELS if model == HALF_PLUS_TWO else BUILD) / model


def numbers() -> Any:
    return np.asarray([1.0, 2.0, 5.0], np.float32)


def features() -> Any:
    """One row for the perceptron."""
    return (np.arange(FEATURES, dtype=np.float32)[None] * 5 % 7 - 3) / 4


@cache
def picture(shape: tuple[int, int, int] = PICTURE) -> Any:
    """One picture, of values between 0 and 1 with six digits."""
    size = int(np.prod(shape))
    values = (np.arange(size, dtype=np.int64) * 37 % 10007) / 10007
    return np.round(values, 6).astype(np.float32).reshape(1, *shape)


def words() -> Any:
    return np.asarray([f"Word {i} of the Strings workload" for i in range(STRINGS)])
