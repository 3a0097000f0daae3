"""Which model a call is for. Pure."""

from dataclasses import dataclass
from typing import Any

from .errors import InputError


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model, and which version of it: by number, by label, or the newest. Raises InputError for both."""

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise InputError("version and label: expected one of them")

    def fill(self, spec: Any, signature: str | None = None) -> None:
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        if signature is not None:
            spec.signature_name = signature
