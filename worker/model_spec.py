"""Which signature a request asks for, and which model a reply says it comes from. Pure.

TF Serving: servables/tensorflow/util.cc, MakeModelSpec.
"""

from dataclasses import dataclass
from typing import Any

DEFAULT_SIGNATURE = "serving_default"


def signature_key(spec: Any) -> str:
    """The signature that a ModelSpec names, or the default one."""
    key: str = spec.signature_name or DEFAULT_SIGNATURE
    return key


@dataclass(frozen=True, slots=True)
class Identity:
    """What a loaded model is to its clients."""

    name: str
    version: int

    def fill(self, spec: Any, key: str) -> None:
        """The ModelSpec of a reply: name, signature and version, never a label."""
        spec.name = self.name
        spec.signature_name = key
        spec.version.value = self.version
