"""The words of a command that asks a running pool: `WORD ... --name=value ...`. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .wire.status import InvalidArgument

# How a command says which pool is meant.
_POOL = {"port": "", "runtime_dir": ""}
_MAX_PORT = 65535
_MAX_VERSION = 2**63 - 1


class UsageError(InvalidArgument):
    """The command line cannot be used; the text says which flag, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was given: words that are no options, each option's text (its default where it was not given), switches.

    `port` and `runtime_dir` say which pool is meant.
    """

    words: tuple[str, ...]
    values: Mapping[str, str]
    switches: frozenset[str]
    port: int | None
    runtime_dir: str

    @property
    def version(self) -> int | None:
        """Of the model that is meant. Raises UsageError."""
        return self.whole("version", _MAX_VERSION) if self.values["version"] else None

    def whole(self, name: str, most: int) -> int:
        """A whole number from 0 to `most`. Raises UsageError."""
        return _whole(name, self.values[name], most)

    def seconds(self, name: str, most: float) -> float:
        """A number from 0 to `most`. Raises UsageError."""
        text = self.values[name]
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most:
            raise UsageError(f"--{name}: expected a number from 0 to {most:g}, got {text!r}")
        return value


def parse(argv: Sequence[str], defaults: Mapping[str, str], switches: Sequence[str] = ()) -> Options:
    """`defaults`: the command's own options, beside those that name the pool; `switches` have no value. Raises
    UsageError.
    """
    values, words = {**defaults, **_POOL}, []
    given: set[str] = set()
    rest = iter(argv)
    for arg in rest:
        name, has_value, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--"):
            words.append(arg)
        elif name in switches and not has_value:
            given.add(name)
        elif name in values:
            values[name] = value if has_value else _next_value(name, rest)
        else:
            known = [f"--{each}" for each in switches] + [f"--{each}=..." for each in values]
            raise UsageError(f"{arg}: unknown option, expected one of {', '.join(known)}")
    port, runtime_dir = values.pop("port"), values.pop("runtime_dir")
    number = _whole("port", port, _MAX_PORT) if port else None
    return Options(tuple(words), values, frozenset(given), number, runtime_dir)


def _next_value(name: str, rest: Iterator[str]) -> str:
    text = next(rest, "--")
    if text.startswith("--"):
        raise UsageError(f"--{name}: missing value; it is written --{name}=...")
    return text


def one_model(words: Sequence[str], usage: str) -> str:
    """The model that is named by the only word. Raises UsageError."""
    if len(words) != 1:
        raise UsageError(f"expected one MODEL, got {' '.join(words) or 'nothing'}\n{usage}".rstrip())
    return words[0]


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > most:
        raise UsageError(f"--{name}: expected a whole number from 0 to {most}, got {text!r}")
    return int(text)
