"""`modelpool warmup record`: what it wants of its command line."""

from pathlib import Path

import pytest

from modelpool.supervisor import warmup_command
from modelpool.supervisor.command_options import UsageError

USAGE = (
    "usage: modelpool warmup record MODEL --output=FILE [--version=N] [--count=100] [--seconds=60]\n"
    "                        [--port=PORT | --runtime_dir=FOLDER]"
)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], f"expected `record MODEL`, got nothing\n{USAGE}"),
        (["record"], f"expected `record MODEL`, got record\n{USAGE}"),
        (["play", "m"], f"expected `record MODEL`, got play m\n{USAGE}"),
        (["record", "m", "n", "--output=f"], f"expected `record MODEL`, got record m n\n{USAGE}"),
        (
            ["record", "m"],
            "--output: expected the file to write, for example --output=tf_serving_warmup_requests",
        ),
        (
            ["record", "m", "--output=f", "--count=-1"],
            "--count: expected a whole number from 0 to 1000000000, got '-1'",
        ),
        (["record", "m", "--output=f", "--seconds=x"], "--seconds: expected a number from 0 to 1e+09, got 'x'"),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_was_expected(argv: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        warmup_command.run(argv, tmp_path)
    assert caught.value.message == text
