"""The pool's own settings (`--pool_config_file`): TOML to one frozen `PoolFile`, fully checked.

The keys are those of `model_policy`. Knows nothing of what the values are used for, nor of which models are configured:
a model that the file names need not be one. Only `read` touches the file system; used in the supervisor, at the start
and at a reload.
"""

import difflib
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from .model_policy import Form, ModelPolicy, SourceSettings, spec
from .wire.status import InvalidArgument

_DOC_WIDTH = 100
_TABLES = ("defaults", "models", "source")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# How Python 3.11 to 3.13 end the text of every TOMLDecodeError; 3.14 has attributes for it.
_LOCATION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

S = TypeVar("S", ModelPolicy, SourceSettings)


class PoolFileError(InvalidArgument):
    """A pool configuration file that cannot be used; the text says where, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class PoolFile:
    """The whole file. `models` has the models that the file names, already laid over `defaults`."""

    defaults: ModelPolicy = field(default_factory=ModelPolicy)
    models: Mapping[str, ModelPolicy] = field(default_factory=dict, hash=False)
    source: SourceSettings = field(default_factory=SourceSettings)

    def policy(self, model_name: str) -> ModelPolicy:
        """How to treat a model, whether the file names it or not."""
        return self.models.get(model_name, self.defaults)


# Every key, and the heading of the table that it belongs to.
_KEYS = {each.name: "[defaults]" for each in fields(ModelPolicy)} | {
    each.name: "[source]" for each in fields(SourceSettings)
}


def read(path: str) -> PoolFile:
    """The settings in the file at `path`; all defaults if `path` is "". Raises PoolFileError."""
    return parse(text_of(path), path) if path else PoolFile()


def text_of(path: str) -> str:
    """What is in the file at `path`. Raises PoolFileError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PoolFileError(
            f"{path}: expected UTF-8, got {error.object[error.start]:#04x} at byte {error.start}"
        ) from error
    except OSError as error:
        raise PoolFileError(f"pool_config_file: cannot read '{path}': {error.strerror}") from error


def parse(text: str, path: str) -> PoolFile:
    """The settings in the text of a file; `path` is only for the error text. Raises PoolFileError."""
    document = _document(text, path)
    for name, value in document.items():
        if name not in _TABLES:
            raise PoolFileError(f"{path}: {_unknown_at_top(name, value)}")
    tables = {name: _table(document.get(name, {}), path, f"[{name}]") for name in _TABLES}
    defaults = _overlaid(ModelPolicy(), tables["defaults"], path, "[defaults]")
    models = {
        name: _overlaid(defaults, _model_table(name, value, path), path, _model_heading(name))
        for name, value in tables["models"].items()
    }
    return PoolFile(defaults, models, _overlaid(SourceSettings(), tables["source"], path, "[source]"))


def reference() -> str:
    """A file with every key, its documentation and its default: all that `parse` takes."""
    return "\n".join(
        [
            "# For every model. A table [models.NAME] takes the same keys, for that model alone; a NAME with dots",
            '# or other signs is written in quotes: [models."my.model"].',
            "[defaults]",
            *_described(ModelPolicy),
            "",
            "# For the pool as a whole.",
            "[source]",
            *_described(SourceSettings),
            "",
        ]
    )


def _described(kind: type[ModelPolicy] | type[SourceSettings]) -> Iterator[str]:
    for each in fields(kind):
        help_text = spec(each).help + (f" One of {_listed(each.type)}." if _is_choice(each.type) else "")
        yield from textwrap.wrap(help_text, _DOC_WIDTH, initial_indent="# ", subsequent_indent="# ")
        default: Any = each.default
        if spec(each).alone:
            default = default[0]
        yield f"{each.name} = {json.dumps(default)}"


def _document(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, found = str(error), _LOCATION.search(str(error))
        if found is None:
            raise PoolFileError(f"{path}: {message}") from error
        last = text.rpartition("\n")[2]
        line, column = found["line"] or text.count("\n") + 1, found["column"] or len(last) + 1
        raise PoolFileError(f"{path}:{line}:{column}: {message[: found.start()]}") from error
    except (ValueError, RecursionError) as error:
        # tomllib lets through what Python says of integers of thousands of digits and of very deep nesting.
        raise PoolFileError(f"{path}: {error}") from error


def _table(value: Any, path: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PoolFileError(f"{path}: {where}: expected a table, got {_shown(value)}")
    return value


def _model_table(name: str, value: Any, path: str) -> dict[str, Any]:
    heading = _model_heading(name)
    table = _table(value, path, heading)
    for inner, content in table.items():
        if isinstance(content, dict) and inner not in _KEYS:
            raise PoolFileError(
                f"{path}: {heading}: unknown table {_written(inner)}: a model's name with dots is written in quotes: "
                f"{_model_heading(f'{name}.{inner}')}"
            )
    return table


def _model_heading(name: str) -> str:
    return f"[models.{_written(name)}]"


def _overlaid(under: S, given: Mapping[str, Any], path: str, where: str) -> S:
    """`under` with the values of one table laid over it."""
    known = {each.name: each for each in fields(under)}
    values = {}
    for name, value in given.items():
        if name not in known:
            raise PoolFileError(f"{path}: {where}: unknown key {_written(name)}: {_nearest(name, known)}")
        values[name] = _value(known[name], value, path, where)
    return replace(under, **values)


def _unknown_at_top(name: str, value: Any) -> str:
    rows = value if isinstance(value, list) else [value]  # [[x]] makes a list of tables
    if rows and all(isinstance(row, dict) for row in rows):
        return f"unknown table [{_written(name)}]: {_nearest(name, _TABLES, '[{}]')}"
    if name in _KEYS:
        return f"key {name} stands outside of any table: expected it in {_KEYS[name]}"
    return f"unknown key {_written(name)} outside of any table: {_nearest(name, _KEYS)}"


def _nearest(name: str, known: Iterable[str], form: str = "{}") -> str:
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    if nearest:
        return f"did you mean {form.format(nearest[0])}?"
    return f"expected one of {', '.join(form.format(each) for each in names)}"


def _value(each: "Field[Any]", value: Any, path: str, where: str) -> Any:
    kind: Any = each.type
    limits = spec(each)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and type(value) in (int, float) and limits.low <= value <= sys.float_info.max:
        return float(value)
    if kind is int and type(value) is int and limits.low <= value <= limits.high:
        return value
    if _is_array(kind) and limits.alone and isinstance(value, str) and _fits(limits.form, value):
        return (value,)
    if _is_array(kind) and isinstance(value, list) and not (limits.alone and not _fits_together(value, limits.alone)):
        for item in value:
            if not isinstance(item, str) or not _fits(limits.form, item):
                raise PoolFileError(
                    f"{path}: {where}: {each.name}: expected {_expected(each)}, got {_shown(item)} in it"
                )
        return tuple(value)
    if _is_choice(kind) and isinstance(value, str) and value in list(kind):
        return kind(value)
    if kind is str and isinstance(value, str) and _fits(limits.form, value):
        return value
    raise PoolFileError(f"{path}: {where}: {each.name}: expected {_expected(each)}, got {_shown(value)}")


def _expected(each: "Field[Any]") -> str:
    if each.type is bool:
        return "true or false"
    if each.type is float:
        return f"a finite number of at least {spec(each).low:g}"
    if each.type is int:
        return f"an integer from {spec(each).low:g} to {spec(each).high}"
    if _is_choice(each.type):
        return f"one of {_listed(each.type)}"
    form = spec(each).form
    if spec(each).alone and form:
        return f"{form.expected}, of which {_listed(spec(each).alone)} stand alone"
    if _is_array(each.type):
        return f"an array of {form.expected if form else 'strings'}"
    return form.expected if form else "a string"


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _is_array(kind: Any) -> bool:
    return bool(kind == tuple[str, ...])


def _fits(form: Form | None, value: str) -> bool:
    return form is None or form.pattern.fullmatch(value) is not None


def _fits_together(items: list[Any], alone: tuple[str, ...]) -> bool:
    """An array that is not empty, and whose words that stand alone do so."""
    return bool(items) and (len(items) == 1 or not any(item in alone for item in items))


def _listed(kind: Any) -> str:
    return ", ".join(f'"{item}"' for item in kind)


def _written(name: str) -> str:
    """A key as it is written in TOML."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _shown(value: Any) -> str:
    """A value that came, as an operator wrote it or nearly so, cut to a line."""
    match value:
        case dict():
            return "a table"
        case list():
            return "an array"
        case bool() | str():
            return textwrap.shorten(json.dumps(value, ensure_ascii=False), 80, placeholder="...")
        case int() if value.bit_length() > 64:
            return f"an integer of {value.bit_length()} bits"
        case _:
            return str(value)
