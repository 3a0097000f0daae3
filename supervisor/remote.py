"""A base path that is not on a local disk, read through fsspec: its versions are listed and fetched into a cache.

The only module that imports fsspec. Object stores have no directories and no clock of ours, so a version is a prefix,
and whether it is whole is seen from looks alone (`completeness`). Blocks, for as long as a download takes: called in
the source's thread.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from .completeness import Tree, fingerprint
from .io_status import base_path_missing, describe, local_code, remote_code
from .model_cache import ModelCache
from .model_config import ModelConfig, split_uri
from .wire.status import FailedPrecondition, InvalidArgument, Status, StatusError, Unimplemented

# The extra of this distribution that brings a scheme's library.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
# fsspec can read these, but a web server has no listing to find versions in.
_NO_LISTING = frozenset({"http", "https", "data", "blockcache", "cached", "filecache", "simplecache"})
# By what the file systems tell one content from another (s3fs, gcsfs, adlfs, local, memory, sftp).
_IDENTITY = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


class RemoteFolder:
    """The versions of one model below a `scheme://` base path. Every method may raise a PoolError."""

    eager = False

    def __init__(self, model: ModelConfig, cache_dir: str) -> None:
        """`cache_dir`: where copies go, below a directory per base path and model; may be shared by pools."""
        self._model = model
        self._cache_dir = cache_dir
        base = hashlib.blake2b(model.base_path.rstrip("/").encode(), digest_size=8).hexdigest()
        name = quote(model.name, safe="").replace(".", "%2E")
        self._cache = ModelCache(os.path.join(cache_dir, base, name))
        self._fs: Any = None
        self._root = ""

    @property
    def copies(self) -> str:
        """The folder of the local copies, of no other model."""
        return self._cache.folder

    def names(self) -> list[str]:
        """The names of the directories right below the base path."""
        fs = self._connected()
        try:
            with self._mapped("read base path"):
                fs.invalidate_cache()
                entries = fs.ls(self._root, detail=True)
        except FileNotFoundError:
            raise StatusError(base_path_missing(self._model.base_path, self._model.name)) from None
        children = {_relative(entry["name"], self._root) for entry in entries if entry["type"] == "directory"}
        return sorted(name for name in children if name and "/" not in name)

    def tree(self, name: str) -> Tree:
        """What lies below a version now; without times, for the clocks of object stores are not ours."""
        try:
            files = self._files(name)
        except FileNotFoundError:
            files = {}
        return _tree(files)

    def fetched(self, version: int, tree: Tree) -> str | None:
        """The local copy of exactly this content, if there is one from before."""
        with self._cache_mapped():
            return self._cache.hold(_entry(version, tree))

    def fetch(self, version: int, name: str, tree: Tree) -> str | None:
        """The local path of a copy; downloads it if need be. None if the version changed meanwhile."""
        if (path := self.fetched(version, tree)) is not None:
            return path

        def fill(folder: str) -> bool:
            files = self._files(name)
            if _tree(files).fingerprint != tree.fingerprint:
                return False
            for relative, info in files.items():
                self._download(f"{self._root}/{name}/{relative}", os.path.join(folder, relative), info.get("size"))
            return _tree(self._files(name)).fingerprint == tree.fingerprint

        try:
            with self._cache_mapped():
                return self._cache.add(_entry(version, tree), fill)
        except FileNotFoundError:  # a remote one: it went away while it was fetched
            return None

    def prune(self, keep: Mapping[int, str]) -> None:
        """Remove all local copies but those of these versions at these paths; with an empty path any of the version."""
        kept = {str(version): os.path.basename(path) for version, path in keep.items()}

        def keeps(entry: str) -> bool:
            name = kept.get(entry.rpartition("-")[0])
            return name is not None and name in {"", entry}

        with self._cache_mapped():
            self._cache.prune(keeps)

    def _connected(self) -> Any:
        if self._fs is None:
            if not self._cache_dir:
                raise FailedPrecondition(
                    f"Base path {self._model.base_path} for servable {self._model.name} is remote, "
                    "and no cache directory is configured"
                )
            self._fs, root = _open(self._model)
            self._root = root.rstrip("/")
        return self._fs

    def _files(self, name: str) -> dict[str, Mapping[str, Any]]:
        """fsspec's description of each file below a version, by relative path. Raises FileNotFoundError."""
        root = f"{self._root}/{name}"
        with self._mapped(f"read version directory {name} of base path"):
            self._fs.invalidate_cache()
            found = self._fs.find(root, detail=True) if _finds_by_itself(self._fs) else _find(self._fs, root)
        files = {_relative(path, root): info for path, info in found.items() if not path.endswith("/")}
        files.pop("", None)  # the empty object that some tools write for a directory
        for relative in files:
            if not {"", ".", ".."}.isdisjoint(relative.split("/")) or "\0" in relative:
                raise InvalidArgument(
                    f"Version directory {name} of base path {self._model.base_path} for servable {self._model.name} "
                    f"holds a file that cannot be stored locally: {relative!r}"
                )
        return files

    def _download(self, remote: str, local: str, size: int | None) -> None:
        with self._cache_mapped():
            os.makedirs(os.path.dirname(local), exist_ok=True)
        with self._mapped("download from base path"):
            self._fs.get_file(remote, local)
            if size is not None and os.path.getsize(local) != size:
                raise ConnectionError(f"{remote} ended early: {os.path.getsize(local)} of {size} bytes")

    @contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        """Whatever a file system's library raises, as our own error; FileNotFoundError is left to the caller."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            text = f"Could not {what} {self._model.base_path} for servable {self._model.name}: {describe(error)}"
            raise StatusError(Status(remote_code(error), text)) from error

    @contextmanager
    def _cache_mapped(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            text = f"Could not use cache {self._cache_dir} for servable {self._model.name}: {describe(error)}"
            raise StatusError(Status(local_code(error), text)) from error


def _open(model: ModelConfig) -> tuple[Any, str]:
    """fsspec's file system and its own form of the base path. Its options come from fsspec's own configuration.

    Listings are never cached, or new versions would not be seen, and no instance is shared between threads.
    """
    scheme, _ = split_uri(model.base_path)
    subject = f"Base path {model.base_path} for servable {model.name}: file system '{scheme}://'"
    if scheme in _NO_LISTING:
        raise Unimplemented(f"{subject} cannot list directories")
    try:
        fs, root = url_to_fs(model.base_path, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install modelpool[{extra}]" if extra else str(error)
        raise Unimplemented(f"{subject} needs a library that is not installed: {remedy}") from error
    except Exception as error:
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise Unimplemented(f"{subject} is not supported") from error
        raise StatusError(Status(remote_code(error), f"{subject} cannot be used: {describe(error)}")) from error
    return fs, str(root)


def _finds_by_itself(fs: Any) -> bool:
    """Whether it lists all that lies below a prefix at once, as object stores do."""
    return type(fs).find is not AbstractFileSystem.find


def _find(fs: Any, root: str) -> dict[str, Any]:
    """fsspec's `find` for all others, which passes over a directory that cannot be listed: a version would be whole
    without its variables. Raises what the file system's `ls` raises.
    """
    found: dict[str, Any] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        for info in fs.ls(folder, detail=True):
            if info["type"] != "directory":
                found[info["name"]] = info
            elif info["name"].strip("/") != folder.strip("/"):  # some list the folder itself, too
                folders.append(info["name"])
    return found


def _relative(path: str, root: str) -> str:
    """`path` below `root`, "" for the root itself; file systems differ in the slashes around both."""
    return f"{path.strip('/')}/".removeprefix(f"{root.strip('/')}/").rstrip("/")


def _tree(files: Mapping[str, Mapping[str, Any]]) -> Tree:
    lines = []
    for name, info in files.items():
        identity = " ".join(str(info[key]) for key in _IDENTITY if info.get(key) is not None)
        lines.append(f"{name} {info.get('size')} {identity}")
    return Tree(fingerprint(lines), frozenset(files))


def _entry(version: int, tree: Tree) -> str:
    return f"{version}-{tree.fingerprint}"
