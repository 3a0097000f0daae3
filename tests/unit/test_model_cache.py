"""The cache of remote versions beside others that remove from it just then."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelpool.supervisor.model_cache import ModelCache
from modelpool.supervisor.wire.status import Unavailable


@contextmanager
def removers() -> Iterator[list[int]]:
    """Locks of others who remove what they have locked, let go at the end."""
    locks: list[int] = []
    try:
        yield locks
    finally:
        for lock in locks:
            os.close(lock)


def lock_to_remove(folder: str, locks: list[int]) -> None:
    locks.append(os.open(folder, os.O_RDONLY))
    fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_being_filled_may_be_taken_for_what_a_crash_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(**names: Any) -> str:
        made.append(os.path.join(names["dir"], "temporary"))
        os.mkdir(made[0])
        lock_to_remove(made[0], locks)
        return made[0]

    with removers() as locks:
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        with pytest.raises(Unavailable) as caught:
            ModelCache(str(tmp_path)).add("1-abc", lambda _: True)
    assert caught.value.message == f"Another process is removing {made[0]}"


def test_what_another_has_published_it_may_remove_again(tmp_path: Path) -> None:
    with removers() as locks:

        def other_is_faster(_: str) -> bool:
            (tmp_path / "1-abc" / "variables").mkdir(parents=True)
            lock_to_remove(str(tmp_path / "1-abc"), locks)
            return True

        with pytest.raises(Unavailable) as caught:
            ModelCache(str(tmp_path)).add("1-abc", other_is_faster)
    assert caught.value.message == f"Another process is removing 1-abc in {tmp_path}"
    assert os.listdir(tmp_path) == ["1-abc"], "what was filled in vain is gone"
