"""The source of one model: which versions lie below its base path, which of them are whole, and which are aspired.

One look per call of `Source.poll`, in a thread of the caller; no thread and no period of its own.
What makes a version whole is `completeness`, base paths that are not local are `remote`; what is in a version is the
worker's business. Facts: TF Serving's `sources/storage_path/file_system_storage_path_source.cc`.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .completeness import Completeness, CompletenessRule, Tree, scan
from .io_status import base_path_missing, local_code
from .model_config import ModelConfig, split_uri
from .version_policy import VersionPolicy, absent, aspired
from .wire.status import InvalidArgument, NotFound, PoolError, Status, StatusError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# What absl::SimpleAtoi takes: a sign and blanks around the digits are fine.
_VERSION = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """`settle_s`, `incomplete_limit_s` and `complete_marker` are the fields of `CompletenessRule`; `cache_dir` is
    where remote versions are copied to, needed for those only. The two flags are TF Serving's, where the second one
    includes the first (`file_system_storage_path_source.proto`). `clock`: the wall clock, as file times are.
    """

    settle_s: float = 1.0
    incomplete_limit_s: float = 60.0
    complete_marker: str = ""
    cache_dir: str = ""
    fail_if_zero_versions_at_startup: bool = False
    servable_versions_always_present: bool = False
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Poll:
    """What one look found. `versions` maps each aspired version to its local path, in ascending order.

    With an `error` nothing is known: `versions` is empty and whatever is aspired now stays so. Without one, versions
    that are not listed are not aspired any more. `warnings` are for the log; the caller drops repetitions.
    `available`: all whole versions that have a local path, aspired or not. `incomplete`: versions that are there and
    not taken yet; there is something to poll for again soon. `fingerprints`: a hash over the content of each aspired
    version, as it was when it was taken; it follows later changes for those that are watched (`Source.watch`).
    """

    model: str
    versions: Mapping[int, str]
    warnings: tuple[str, ...] = ()
    error: Status | None = None
    available: Mapping[int, str] = field(default_factory=dict)
    incomplete: tuple[int, ...] = ()
    fingerprints: Mapping[int, str] = field(default_factory=dict)


class Storage(Protocol):
    """Where a model's versions lie. `eager`: looking at them is cheap and needs no copy. Methods raise PoolError."""

    eager: bool

    @property
    def copies(self) -> str:
        """The folder below which copies of versions lie; "" where versions are loaded from where they are."""

    def names(self) -> list[str]:
        """Names right below the base path."""

    def tree(self, name: str) -> Tree:
        """What lies below one of them now."""

    def fetched(self, version: int, tree: Tree) -> str | None:
        """The path of a copy of exactly this content that was made before; None where there is none."""

    def fetch(self, version: int, name: str, tree: Tree) -> str | None:
        """The local path of this content; None if it has changed meanwhile."""

    def prune(self, keep: Mapping[int, str]) -> None:
        """Remove all copies but those of these versions at these paths; with an empty path any of the version."""


class LocalFolder:
    """A base path on a file system of this machine: versions are loaded from that very folder."""

    eager = True
    copies = ""

    def __init__(self, model: ModelConfig) -> None:
        self._model = model
        self._folder = split_uri(model.base_path)[1]

    def names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except OSError as error:
            raise StatusError(self._status(error)) from error
        except ValueError as error:
            where = f"Invalid base path {self._model.base_path!r} for servable {self._model.name}"
            raise InvalidArgument(f"{where}: no file can have that name") from error

    def tree(self, name: str) -> Tree:
        return scan(os.path.join(self._folder, name))

    def fetched(self, version: int, tree: Tree) -> str | None:
        return None

    def fetch(self, version: int, name: str, tree: Tree) -> str | None:
        return os.path.join(self._folder, name)

    def prune(self, keep: Mapping[int, str]) -> None:
        pass

    def _status(self, error: OSError) -> Status:
        below_a_file = isinstance(error, NotADirectoryError) and not os.path.lexists(self._folder)
        if isinstance(error, FileNotFoundError) or below_a_file:
            return base_path_missing(self._model.base_path, self._model.name)
        text = f"Could not read base path {self._model.base_path} for servable {self._model.name}: {error.strerror}"
        return Status(local_code(error), text)


@dataclass(frozen=True, slots=True)
class Step:
    """What a source is at: waiting for `what`, since `since_s` by the monotonic clock, for a copy or for a look."""

    what: str
    since_s: float
    fetching: bool = False


@dataclass(frozen=True, slots=True)
class _Taken:
    name: str
    path: str
    fingerprint: str


class Source:
    """Looks for the versions of one model. A version once taken stays so until no directory has its number.

    Every method may be called in any thread; polls, and all that must not run beside one, wait for each other.
    """

    def __init__(self, model: ModelConfig, options: SourceOptions) -> None:
        self._model = model
        self._options = options
        self._storage = _storage(model, options)
        self._lock = threading.Lock()
        self._completeness = Completeness(_rule(options), options.clock)
        self._given = model, options
        self._taken: dict[int, _Taken] = {}
        self._watched: frozenset[int] = frozenset()
        self._aspired: Mapping[int, str] = {}
        self._fingerprints: Mapping[int, str] = {}
        self._polled = False
        self._step_to(self._where)

    @property
    def model_name(self) -> str:
        return self._model.name

    @property
    def copies(self) -> str:
        """The folder below which the local copies of its versions lie; "" where there are none."""
        return self._storage.copies

    def watch(self, versions: Iterable[int]) -> None:
        """From the next poll on, follow the content of just these versions (those whose load failed).

        A changed one gets its new fingerprint, and if remote its new path, once it is whole again.
        """
        self._watched = frozenset(versions)

    def poll(self) -> Poll:
        """Look once. Blocks on the disk or the network; raises nothing for what it finds there."""
        with self._lock:
            try:
                return self._poll()
            except PoolError as error:
                return Poll(self._model.name, {}, error=error.status)
            finally:
                self._step_to(self._where)

    def reconfigure(self, model: ModelConfig, options: SourceOptions) -> None:
        """Take over a new configuration of the same model at the same base path, with the same cache; what was taken
        stays taken, also where a new rule would not have it.

        A new `Source` in its place would have to find out again which versions are whole, and meanwhile leave out
        some that are served. Counts from the next poll on, and does not wait for one that hangs.
        """
        place = self._model.name, self._model.base_path, self._options.cache_dir
        if (model.name, model.base_path, options.cache_dir) != place:
            raise ValueError(f"{model.name} at {model.base_path} needs a source of its own")
        self._given = model, options

    def prune(self, keep: Iterable[int]) -> None:
        """Remove the local copies of all versions but these; nothing where the base path is local.

        The caller keeps what is aspired, what still runs, and the last good one; nothing when the model is gone, or
        lies elsewhere.
        A version whose origin is gone can be kept too. Blocks as `poll` does. Raises a PoolError for a broken cache.
        """
        with self._lock:
            current = {version: taken.path for version, taken in self._taken.items()}
            self._storage.prune({version: current.get(version, "") for version in keep})

    def _take_over(self) -> None:
        """The configuration that was given last. With other options, whether there are versions is asked anew."""
        self._model, options = self._given
        if options != self._options:
            self._options, self._completeness.rule, self._polled = options, _rule(options), False

    def _poll(self) -> Poll:
        self._step_to(self._where)
        self._take_over()
        policy = self._model.version_policy
        first, self._polled = not self._polled, True
        children, warnings = _by_version(self._storage.names())
        wanted = aspired(policy, children)
        if first and not wanted:
            self._check_zero_versions()
        self._forget_absent(children)
        reasons = self._look(children, policy)
        taken = dict(sorted(self._taken.items()))
        available = {version: copy.path for version, copy in taken.items()}
        versions = {version: available[version] for version in aspired(policy, available)}
        fingerprints = {version: taken[version].fingerprint for version in versions}
        warnings += self._warnings(children, wanted, policy)
        for version, reason in sorted(reasons.items()):
            text = f"Version {version} of servable {self._model.name} is not complete yet and is not taken: {reason}"
            warnings.append(text)
        if not versions and self._aspired and self._options.servable_versions_always_present:
            warnings.append(f"Refusing to unload all versions for Servable: {self._model.name}")
            versions, fingerprints = dict(self._aspired), dict(self._fingerprints)
        self._aspired, self._fingerprints = versions, fingerprints
        incomplete = tuple(sorted(reasons))
        return Poll(self._model.name, versions, tuple(warnings), None, available, incomplete, fingerprints)

    def _look(self, children: Mapping[int, str], policy: VersionPolicy) -> dict[int, str]:
        """Take what is whole. Returns why others must wait.

        Of local versions all are looked at. Of remote ones only those that the policy wants, and older ones in place
        of those that turn out to be incomplete; not yet at first sight, when no remote version is known to be whole.
        """
        watched, marker = self._watched, self._options.complete_marker
        reasons: dict[int, str] = {}
        candidates = set(children)
        looked: set[int] = set()
        due = candidates if self._storage.eager else candidates & (watched | set(aspired(policy, candidates)))
        while due:
            for version in sorted(due):
                name = children[version]
                known = self._completeness.has_seen(name)
                reason = self._take(version, name, version in watched)
                if reason is not None:
                    reasons[version] = reason
                    candidates = candidates - {version} if known or marker else candidates
            looked |= due
            due = set(aspired(policy, candidates)) - looked
        return reasons

    def _take(self, version: int, name: str, watched: bool) -> str | None:
        """Take a version if it is whole. Returns why not; None also for one that was taken before, and stays so until
        what has its number now is whole.
        """
        taken = self._taken.get(version)
        if taken is not None and not self._storage.eager and not os.path.isdir(taken.path):
            del self._taken[version]  # somebody emptied the cache
            taken = None
        renamed = taken is not None and taken.name != name  # or it was copied under another name of the same number
        if taken is not None and not watched and not renamed:
            return None
        self._step_to(f"Version directory {name} of {self._where}")
        tree = self._storage.tree(name)
        marker = self._options.complete_marker
        path = self._storage.fetched(version, tree) if not marker or marker in tree.files else None
        if path is None and (taken is None or renamed or taken.fingerprint != tree.fingerprint):
            reason = self._completeness.judge(name, tree)
            if reason is None:
                self._step_to(f"The copy of version {version} of {self._where}", fetching=True)
                path = self._storage.fetch(version, name, tree)
                reason = "it changed while it was fetched" if path is None else None
            if path is None:
                return reason if taken is None else None
        if path is not None:
            self._taken[version] = _Taken(name, path, tree.fingerprint)
        return None

    @property
    def _where(self) -> str:
        return f"base path {self._model.base_path} for servable {self._model.name}"

    def _step_to(self, what: str, *, fetching: bool = False) -> None:
        """Say in `step` where the present poll is, to whoever wonders in another thread."""
        self.step = Step(what[0].upper() + what[1:], time.monotonic(), fetching)

    def _forget_absent(self, children: Mapping[int, str]) -> None:
        self._completeness.listed(set(children.values()))
        self._taken = {version: taken for version, taken in self._taken.items() if version in children}

    def _check_zero_versions(self) -> None:
        """Raises NotFound with TF Serving's text where it refuses to start or to reload."""
        if self._options.fail_if_zero_versions_at_startup or self._options.servable_versions_always_present:
            raise NotFound(
                f"Unable to find a numerical version path for servable {self._model.name} at: {self._model.base_path}"
            )

    def _warnings(self, children: Mapping[int, str], wanted: Collection[int], policy: VersionPolicy) -> list[str]:
        """TF Serving's warnings about what is not there at all, be it whole or not."""
        name = self._model.name
        warnings = [
            f"Version {version} of servable {name}, which was requested to be served as a 'specific' version in "
            "the servable's version policy, was not found in the file system"
            for version in absent(policy, children)
        ]
        if not wanted:
            warnings.append(
                f"No versions of servable {name} found under base path {self._model.base_path}. "
                "Did you forget to name your leaf directory as a number (eg. '/1/')?"
            )
        return warnings


def _rule(options: SourceOptions) -> CompletenessRule:
    return CompletenessRule(options.settle_s, options.incomplete_limit_s, options.complete_marker)


def wanted_versions(model: ModelConfig, options: SourceOptions) -> tuple[int, ...]:
    """The versions that a start would load, whole or not, lowest first; nothing is fetched. Raises a PoolError."""
    children, _ = _by_version(_storage(model, options).names())
    return aspired(model.version_policy, children)


def _storage(model: ModelConfig, options: SourceOptions) -> Storage:
    scheme, _ = split_uri(model.base_path)
    if scheme in {"", "file"}:
        return LocalFolder(model)
    from .remote import RemoteFolder  # noqa: PLC0415 - fsspec takes 0.2 s, and most pools have local models only

    return RemoteFolder(model, options.cache_dir)


def _by_version(names: Iterable[str]) -> tuple[dict[int, str], list[str]]:
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
