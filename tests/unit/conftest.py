"""What several unit tests are given."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Writes a text to a file of the test's and says where it is; the next text replaces it."""

    def write(text: str) -> str:
        path = tmp_path / "file.pbtxt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
