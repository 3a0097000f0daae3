"""What the operations of a client give, as plain data.

Imports neither numpy nor the protos, so that importing the client costs next to nothing; the first client that is made
loads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from modelpool.supervisor.wire.status import Status

if TYPE_CHECKING:
    import numpy.typing as npt


class Class(NamedTuple):
    """One class of a classification."""

    label: str
    score: float


class Prediction(dict[str, "npt.NDArray[Any]"]):
    """The outputs by name, and which version of the model they come from (0 where the server does not say)."""

    __slots__ = ("model_version",)

    def __init__(self, outputs: "Mapping[str, npt.NDArray[Any]]", model_version: int) -> None:
        super().__init__(outputs)
        self.model_version = model_version


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """`dtype` is its name in tf.dtypes, as in "float32" or "string"; `shape` has None for a free dimension, and is
    None as a whole where the rank is free; `tensor` is the name in the graph."""

    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str
    enum: int


@dataclass(frozen=True, slots=True)
class Signature:
    """`defaults` are the names of the inputs that may be left out."""

    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: frozenset[str]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The signatures of one version, by key."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """`state` is TF Serving's: START, LOADING, AVAILABLE, UNLOADING or END; `error` says why it is not AVAILABLE."""

    version: int
    state: str
    error: Status

    @property
    def available(self) -> bool:
        return self.state == "AVAILABLE"
