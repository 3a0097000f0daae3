"""The file-system source: which versions of a model lie below its base path, and which of them are aspired.

One look per call of `poll`; no thread and no clock: the caller owns the period and runs it off the event loop.
Only names are looked at, not what is in a version's folder: that is the worker's business. Facts: TF Serving's
`sources/storage_path/file_system_storage_path_source.cc`.
"""

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .model_config import ModelConfig, split_uri
from .version_policy import absent, aspired
from .wire.status import Code, Status

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# What absl::SimpleAtoi takes: a sign and blanks around the digits are fine.
_VERSION = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")

# The errors that reading a folder can meet; the rest is UNKNOWN (the mapping of absl::ErrnoToStatusCode).
_CODES = {
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENODEV: Code.NOT_FOUND,
    errno.ENXIO: Code.NOT_FOUND,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EBUSY: Code.FAILED_PRECONDITION,
    errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.ETIMEDOUT: Code.DEADLINE_EXCEEDED,
    errno.ESTALE: Code.ABORTED,
    errno.EAGAIN: Code.UNAVAILABLE,
    errno.EHOSTDOWN: Code.UNAVAILABLE,
    errno.EHOSTUNREACH: Code.UNAVAILABLE,
    errno.ENETUNREACH: Code.UNAVAILABLE,
    errno.ENOTCONN: Code.FAILED_PRECONDITION,
}


@dataclass(frozen=True, slots=True)
class Poll:
    """What one look found. `versions` maps each aspired version to its local path, in ascending order.

    With an `error` nothing is known: `versions` is empty and whatever is aspired now stays so. Without one, versions
    that are not listed are not aspired any more. `warnings` are for the log; the caller drops repetitions.
    """

    model: str
    versions: Mapping[int, str]
    warnings: tuple[str, ...] = ()
    error: Status | None = None


def poll(model: ModelConfig) -> Poll:
    """Look at the base path of `model` once. Reads the disk; raises nothing for what it finds there."""
    scheme, folder = split_uri(model.base_path)
    if scheme not in ("", "file"):
        return Poll(model.name, {}, error=_unsupported_scheme(model, scheme))
    try:
        names = os.listdir(folder)
    except OSError as error:
        return Poll(model.name, {}, error=_access_error(model, folder, error))
    except ValueError as error:
        text = f"Invalid base path {model.base_path!r} for servable {model.name}: {error}"
        return Poll(model.name, {}, error=Status(Code.INVALID_ARGUMENT, text))
    children, warnings = _by_version(names)
    wanted = aspired(model.version_policy, children)
    for version in absent(model.version_policy, children):
        warnings.append(
            f"Version {version} of servable {model.name}, which was requested to be served as a 'specific' version in "
            "the servable's version policy, was not found in the file system"
        )
    if not wanted:
        warnings.append(
            f"No versions of servable {model.name} found under base path {model.base_path}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )
    versions = {version: os.path.join(folder, children[version]) for version in wanted}
    return Poll(model.name, versions, tuple(warnings))


def _by_version(names: list[str]) -> tuple[dict[int, str], list[str]]:
    """Child name by version number, and warnings. Of several names for one number the last in byte order is used."""
    children: dict[int, str] = {}
    warnings: list[str] = []
    for name in sorted(names):
        version = _version(name)
        if version is None:
            continue
        if version in children:
            warnings.append(
                f"Duplicate version directories detected. Version {version} will be loaded from {name}, "
                f"{children[version]} will be ignored."
            )
        children[version] = name
    return children, warnings


def _version(name: str) -> int | None:
    """The version that a child's name stands for, None if it is no int64."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if INT64_MIN <= number <= INT64_MAX else None


def _unsupported_scheme(model: ModelConfig, scheme: str) -> Status:
    return Status(
        Code.UNIMPLEMENTED,
        f"Base path {model.base_path} for servable {model.name}: file system '{scheme}://' is not supported; "
        "expected an absolute path or a file:// URI",
    )


def _access_error(model: ModelConfig, folder: str, error: OSError) -> Status:
    below_a_file = isinstance(error, NotADirectoryError) and not os.path.lexists(folder)
    if isinstance(error, FileNotFoundError) or below_a_file:
        text = (
            f"Could not find base path {model.base_path} for servable {model.name} "
            f"with error NOT_FOUND: {model.base_path} not found"
        )
        return Status(Code.NOT_FOUND, text)
    text = f"Could not read base path {model.base_path} for servable {model.name}: {error.strerror}"
    return Status(_CODES.get(error.errno or 0, Code.UNKNOWN), text)
