"""The words of commands that ask a running pool."""

from pathlib import Path

import pytest

from modelpool.supervisor import command_options, control_client
from modelpool.supervisor.command_options import UsageError
from modelpool.supervisor.wire.client_messages import Restarted, RestartOf

DEFAULTS = {"version": "", "timeout_s": "600"}


def test_words_options_and_switches() -> None:
    options = command_options.parse(["m", "--version=3", "--port", "8500", "--json"], DEFAULTS, switches=("json",))
    assert (options.words, options.switches) == (("m",), {"json"})
    assert (options.port, options.runtime_dir, options.version) == (8500, "", 3)
    assert options.seconds("timeout_s", 1000) == 600.0
    assert command_options.parse([], DEFAULTS).version is None


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--jsno"], "--jsno: unknown option, expected one of --json, --version=..., --timeout_s=..., --port=..."),
        (["--version"], "--version: missing value; it is written --version=..."),
        (["--version", "--json"], "--version: missing value"),
        (["--json=1"], "--json=1: unknown option"),
        (["--port=65536"], "--port: expected a whole number from 0 to 65535, got '65536'"),
        (["--port=1.5"], "--port: expected a whole number from 0 to 65535, got '1.5'"),
        (["--port=-1"], "--port: expected a whole number from 0 to 65535, got '-1'"),
        (["--port=²"], "--port: expected a whole number"),
    ],
)
def test_what_cannot_be_used_is_named(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as raised:
        command_options.parse(argv, DEFAULTS, switches=("json",))
    assert text in raised.value.message


@pytest.mark.parametrize("text", ["nan", "-1", "x", "", "1e9"])
def test_a_time_is_a_number_within_its_limit(text: str) -> None:
    options = command_options.parse([f"--timeout_s={text}"], DEFAULTS)
    with pytest.raises(UsageError, match="--timeout_s: expected a number from 0 to 86400, got"):
        options.seconds("timeout_s", 86400)


@pytest.mark.parametrize("text", ["1.0", "-1", "9223372036854775808", "9" * 5000])
def test_a_version_is_whole(text: str) -> None:
    with pytest.raises(UsageError, match="--version: expected a whole number from 0 to 9223372036854775807, got"):
        _ = command_options.parse([f"--version={text}"], DEFAULTS).version


@pytest.mark.parametrize("words", [(), ("a", "b")])
def test_one_model_is_named(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected one MODEL, got (nothing|a b)"):
        command_options.one_model(words, "usage: ...\n")


def test_an_order_to_a_pool_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = command_options.parse([f"--runtime_dir={tmp_path}"], {})
    answer = control_client.order(
        "restart",
        options=options,
        base=tmp_path,
        question=lambda token: RestartOf(token, "m", None, 1.0),
        kind=Restarted,
        timeout_s=1.0,
    )
    assert answer is None
    assert "modelpool restart: no pool runs with the runtime directory" in capsys.readouterr().err
