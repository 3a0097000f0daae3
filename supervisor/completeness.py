"""When a version's directory counts as whole, so that one that is still being copied is not loaded half-way.

TF Serving has no such rule: it loads what it finds, and a writer must rename a finished directory into place. Here
nothing is asked of the writer: a directory is whole once it has been quiet for a while and lacks no variable shard.
A writer who wants certainty names a marker file, which then decides alone. Knows neither sources nor policies. `scan`
reads the disk; all else is decided from `Tree`s and an injected clock. Called in the source's thread.
"""

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

# File times come from the kernel's tick, which may lie so much behind the clock that `time.time` reads.
_CLOCK_GRAIN_S = 0.1

# How many files and folders a look at a version takes in; of a linked folder outside of it. Models have dozens.
_MAX_ENTRIES = 20_000
_MAX_LINKED_ENTRIES = 1_000

# A checkpoint in TensorFlow's V2 format (tensorflow/core/util/tensor_bundle/naming.cc): an index and its shards.
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-([0-9]{5})-of-([0-9]{5})")


@dataclass(frozen=True, slots=True)
class CompletenessRule:
    """`settle_s`: how long a directory must be quiet. `limit_s`: how long one that lacks shards is waited for after
    its last change. `marker`: the file whose presence alone decides, if not empty.
    """

    settle_s: float = 1.0
    limit_s: float = 60.0
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below a version's directory: a hash over names, sizes and change times, and the files' names.

    `newest_s`: the latest change by the file system's clock, None if that clock says nothing. `plain`: no directory
    but a file, which TF Serving takes for a version all the same.
    """

    fingerprint: str
    files: frozenset[str] = frozenset()
    newest_s: float | None = None
    plain: bool = False


@dataclass(slots=True)
class _Seen:
    """A tree as last looked at: unchanged since our own time `since_s`. `dated`: its file times can be believed."""

    fingerprint: str
    since_s: float
    looked_s: float
    dated: bool


class Completeness:
    """Remembers how the versions of one model looked and says which are whole."""

    def __init__(self, rule: CompletenessRule, clock: Callable[[], float]) -> None:
        self.rule = rule
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._listed_s: float | None = None
        self._listed_before_s: float | None = None

    def listed(self, names: Collection[str]) -> None:
        """A new look at the base path begins, and these are all the names there: the others are forgotten."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        self._listed_before_s, self._listed_s = self._listed_s, self._clock()

    def has_seen(self, name: str) -> bool:
        return name in self._seen

    def judge(self, name: str, tree: Tree) -> str | None:
        """Why the version must wait, as the end of a sentence; None if it is whole."""
        return waits_for(tree, self.rule, self._quiet_s(name, tree))

    def _quiet_s(self, name: str, tree: Tree) -> float:
        """How long the tree is known not to have changed: by its file times or by our own looks, the longer one.

        Times of a file server whose clock is ahead prove nothing: then the looks decide. One whose clock is behind
        makes fresh files look old. It is found out by a change that we saw happen and that is dated before our
        previous look; the times of such a tree are not believed.
        """
        now_s = self._clock()
        seen = self._seen.get(name)
        if seen is None or seen.fingerprint != tree.fingerprint:
            changed_after_s = self._listed_before_s if seen is None else seen.looked_s
            dated = tree.newest_s is not None and (
                changed_after_s is None or tree.newest_s >= changed_after_s - _CLOCK_GRAIN_S
            )
            seen = self._seen[name] = _Seen(tree.fingerprint, now_s, now_s, dated)
        seen.looked_s = now_s
        seen.since_s = min(seen.since_s, now_s)  # our own clock was set back
        by_looks = now_s - seen.since_s
        return max(by_looks, now_s - tree.newest_s) if seen.dated and tree.newest_s is not None else by_looks


def waits_for(tree: Tree, rule: CompletenessRule, quiet_s: float) -> str | None:
    """Why a tree that has been quiet for `quiet_s` must wait; None if it is whole. Pure.

    A quiet directory without any model in it is whole: its load fails with TF Serving's text, which says more than
    passing it over in silence. So does one that still lacks shards when `limit_s` is over.
    """
    if tree.plain:
        return None
    if rule.marker:
        return None if rule.marker in tree.files else f"it does not hold {rule.marker}"
    if quiet_s < rule.settle_s:
        return f"it has not been unchanged for {rule.settle_s:g} s"
    lacking = lacking_variables(tree.files)
    if lacking and quiet_s < rule.limit_s:
        return f"it lacks {lacking}"
    return None


def lacking_variables(files: Collection[str]) -> str | None:
    """The first file that a SavedModel's variables lack, None if they are whole or there are none."""
    shards = [match for name in files if (match := _SHARD.fullmatch(name))]
    if _INDEX not in files:
        return _INDEX if shards else None
    if not shards:
        return "variables/variables.data-*"
    count = max(int(shard[2]) for shard in shards)
    for number in range(count):
        name = f"variables/variables.data-{number:05d}-of-{count:05d}"
        if name not in files:
            return name
    return None


def scan(path: str) -> Tree:
    """The tree at a local `path`. Raises nothing: what cannot be read shows in the fingerprint, and has no age.

    Looks at no more than `_MAX_ENTRIES` files and folders. A link to a folder outside of the version is followed when
    no more than `_MAX_LINKED_ENTRIES` lie there: one to /usr, or /proc, is no part of a model.
    """
    if not os.path.isdir(path):
        return _plain_file(path)
    found = _Found()
    _, linked = _walk(path, "", _MAX_ENTRIES, found, within=os.path.realpath(path))
    for folder in linked:
        there = _Found(visited=set(found.visited))
        whole, _ = _walk(path, folder, _MAX_LINKED_ENTRIES, there)
        if whole:
            found.add(there)
        else:
            line, changed_s = _file(os.path.join(path, folder))
            found.add(_Found([f"{folder} {line}"], newest_s=changed_s))
    return Tree(fingerprint(found.lines), frozenset(found.files), found.newest_s)


@dataclass(slots=True)
class _Found:
    """What a walk came by; `visited` are the folders, by device and inode."""

    lines: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    newest_s: float = float("-inf")
    visited: set[tuple[int, int]] = field(default_factory=set)

    def add(self, other: "_Found") -> None:
        self.lines += other.lines
        self.files |= other.files
        self.newest_s = max(self.newest_s, other.newest_s)
        self.visited |= other.visited


def _walk(path: str, start: str, limit: int, found: _Found, within: str = "") -> tuple[bool, list[str]]:
    """Add what lies below the folder `start` of `path` to `found`, what is near before what is far.

    Whether that was all, `limit` entries at most; and the linked folders that were passed over because they do not lie
    `within` this real path, if it is given.
    """
    folders = deque([start])
    linked: list[str] = []
    while folders:
        folder = folders.popleft()
        try:
            status = os.stat(os.path.join(path, folder))
            names = sorted(os.listdir(os.path.join(path, folder)))
        except OSError as error:
            found.lines.append(f"{folder}!{error.errno}")
            found.newest_s = float("inf")
            continue
        if (status.st_dev, status.st_ino) in found.visited:  # a link back up
            continue
        found.visited.add((status.st_dev, status.st_ino))
        found.newest_s = max(found.newest_s, status.st_ctime, status.st_mtime)
        found.lines.append(f"{folder}/ {status.st_ctime_ns}")
        for name in names[:limit]:
            child = os.path.join(folder, name)
            full = os.path.join(path, child)
            if os.path.isdir(full):
                (linked if within and _leaves(full, within) else folders).append(child)
                continue
            line, changed_s = _file(full)
            found.lines.append(f"{child} {line}")
            found.files.add(child)
            found.newest_s = max(found.newest_s, changed_s)
        if len(names) > limit:
            return False, linked
        limit -= len(names)
    return True, linked


def _leaves(folder: str, within: str) -> bool:
    """Whether this folder is a link to one that does not lie within the real path `within`."""
    return os.path.islink(folder) and not f"{os.path.realpath(folder)}/".startswith(f"{within}/")


def fingerprint(lines: Iterable[str]) -> str:
    """A short hash over lines in any order."""
    text = "\n".join(sorted(lines))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _plain_file(path: str) -> Tree:
    line, changed_s = _file(path)
    return Tree(fingerprint([line]), newest_s=changed_s, plain=True)


def _file(path: str) -> tuple[str, float]:
    """Size and change time of a file as a line, and its latest change; a file that went away is as new as can be."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"!{error.errno}", float("inf")
    return f"{status.st_size} {status.st_ctime_ns}", max(status.st_ctime, status.st_mtime)
