"""The command line of `modelpool serve`: its words to `Flags`, and the help text. Pure, used once at the start.

Everything about single flags comes from the fields of `Flags`.
"""

import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

from .command_options import UsageError
from .flags import Flags, Section, Spec, spec

_HELP_WIDTH = 100
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class InertFlag:
    """A flag that was given on the command line and has no effect, and why."""

    name: str
    reason: str


_FIELDS: Mapping[str, Field[Any]] = {each.name: each for each in fields(Flags)}


def parse(argv: Sequence[str]) -> Flags:
    """The flags in `argv` (without the program's name) over the defaults; of a repeated flag the last counts.

    Raises UsageError. With `--help` or `--version` no model needs to be named.
    """
    values: dict[str, Any] = {name: _value(name, text) for name, text in _given(argv)}
    flags = Flags(**values)
    if not (flags.help or flags.version or flags.model_config_file or flags.model_base_path):
        raise UsageError(
            "no model to serve: expected --model_base_path=<folder of one model> or "
            "--model_config_file=<ModelServerConfig in text format>"
        )
    return flags


def inert_flags(argv: Sequence[str]) -> tuple[InertFlag, ...]:
    """The flags in `argv` that are accepted without effect, each once, in order. Raises UsageError as `parse` does."""
    names = dict.fromkeys(name for name, _ in _given(argv))
    return tuple(InertFlag(name, _spec(name).inert) for name in names if _spec(name).inert)


def usage() -> str:
    """The help text."""
    lines = [
        "Serve TensorFlow SavedModels over TF Serving's gRPC and REST APIs, each model in processes of its own.",
        "",
        "usage: modelpool serve --model_base_path=FOLDER [--model_name=NAME] [flags]",
        "       modelpool serve --model_config_file=FILE [flags]",
        "",
        "A flag is written --flag=value or --flag value; a boolean --flag, --flag=true or --flag=false.",
        "If a flag is repeated, the last one counts. Each is shown here with its default.",
    ]
    for section in Section:
        lines += ["", f"{section}:"]
        for name in _FIELDS:
            if _spec(name).section is section:
                lines += _described(name)
    return "\n".join(lines) + "\n"


def _described(name: str) -> Iterator[str]:
    spec, default = _spec(name), str(_FIELDS[name].default)
    yield f"  --{name}={default.lower() if _FIELDS[name].type is bool else default}"
    text = f"{spec.help} One of {_listed(spec.one_of)}." if spec.one_of else spec.help
    if spec.inert:
        text += f" [No effect: {spec.inert}.]"
    yield from textwrap.wrap(text, _HELP_WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _spec(name: str) -> Spec:
    return spec(_FIELDS[name])


def _given(argv: Sequence[str]) -> list[tuple[str, str]]:
    """(flag name, text of its value) for each flag of the command line, in order."""
    given: list[tuple[str, str]] = []
    rest = iter(argv)
    for arg in rest:
        if not arg.startswith("--"):
            raise UsageError(_stray(arg, given))
        name, equals, text = arg[2:].partition("=")
        if name not in _FIELDS:
            raise UsageError(_unknown(f"--{name}", "expected a flag of this server"))
        if not equals:
            text = "true" if _FIELDS[name].type is bool else _next_value(name, rest)
        given.append((name, text))
    return given


def _next_value(name: str, rest: Iterator[str]) -> str:
    text = next(rest, None)
    if text is None:
        raise UsageError(f"--{name}: missing value; expected {_expected(name)}")
    if text.startswith("--"):
        raise UsageError(
            f"--{name}: missing value; expected {_expected(name)}, got the flag {text!r}; "
            f"a value that begins so is written --{name}={text}"
        )
    return text


def _stray(arg: str, given: list[tuple[str, str]]) -> str:
    if arg.startswith("-"):
        return _unknown(arg.partition("=")[0], "expected flags that begin with '--'")
    if given and _FIELDS[given[-1][0]].type is bool:
        return f"unexpected argument {arg!r}: a boolean's value is written with '=': --{given[-1][0]}={arg}"
    return f"unexpected argument {arg!r}: expected only flags, written --flag=value"


def _unknown(name: str, expected: str) -> str:
    nearest = difflib.get_close_matches(name.lstrip("-"), _FIELDS, n=1)
    hint = f"did you mean --{nearest[0]}?" if nearest else "--help lists them"
    return f"unknown flag {name}: {expected}; {hint}"


def _value(name: str, text: str) -> bool | int | float | str:
    spec, kind = _spec(name), _FIELDS[name].type
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is int and _INTEGER.fullmatch(text) and len(text) <= 20 and spec.low <= int(text) <= spec.high:
        return int(text)
    if kind is float and _NUMBER.fullmatch(text) and spec.low <= float(text) <= spec.high:
        return float(text)
    if kind is str and (not spec.one_of or text in spec.one_of):
        return text
    raise UsageError(f"--{name}: expected {_expected(name)}, got {text!r}")


def _expected(name: str) -> str:
    spec, kind = _spec(name), _FIELDS[name].type
    if kind is bool:
        return "true or false"
    if kind is int:
        return f"an integer from {spec.low} to {spec.high}"
    if kind is float:
        return f"a number from {spec.low} to {spec.high}"
    return f"one of {_listed(spec.one_of)}" if spec.one_of else "a string"


def _listed(texts: tuple[str, ...]) -> str:
    return ", ".join(text or "''" for text in texts)
