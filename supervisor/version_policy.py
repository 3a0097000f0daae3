"""Which versions of a model are aspired, of those that are there: TF Serving's version policies.

Pure. Knows version numbers only: not where versions lie, nor in what order they are loaded (`transition_policy`).
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latest:
    """The highest `num_versions` versions; 0 counts as 1, as in TF Serving."""

    num_versions: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Exactly these versions, as far as they are there."""

    versions: tuple[int, ...]


VersionPolicy = Latest | All | Specific


def aspired(policy: VersionPolicy, available: Collection[int]) -> tuple[int, ...]:
    """The versions of `available` that `policy` wants, each once, in ascending order."""
    present = set(available)
    match policy:
        case Latest(num_versions):
            wanted = sorted(present)[-max(num_versions, 1) :]
        case All():
            wanted = sorted(present)
        case Specific(versions):
            wanted = sorted(present.intersection(versions))
    return tuple(wanted)


def absent(policy: VersionPolicy, available: Collection[int]) -> tuple[int, ...]:
    """The versions that `policy` names and `available` lacks, each once, in ascending order."""
    return tuple(sorted(set(policy.versions).difference(available))) if isinstance(policy, Specific) else ()
