"""A worker says of itself that it goes first; what the whole pool was given counts as well."""

import logging
from pathlib import Path

import pytest

from modelpool.worker import oom_score


@pytest.mark.parametrize(("given", "raised"), [("0\n", "500"), ("-500\n", "0"), ("800\n", "1000"), ("1000\n", "1000")])
def test_it_is_raised_as_far_as_it_goes(tmp_path: Path, given: str, raised: str) -> None:
    file = tmp_path / "oom_score_adj"
    file.write_text(given)
    oom_score.go_before_others(file)
    assert file.read_text() == raised


def test_where_it_cannot_be_raised_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        oom_score.go_before_others(tmp_path / "none")
    assert "the kernel may end others first" in caplog.text
