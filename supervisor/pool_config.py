"""The pool's own settings (`--pool_config_file`): TOML to one frozen `PoolFile`, fully checked.

The fields of `ModelPolicy` and `SourceSettings` are the single source of the file's keys: their types, defaults, limits
and documentation. Knows nothing of what the values are used for, nor of which models are configured: a model that the
file names need not be one. Only `read` touches the file system; used in the supervisor, at the start and at a reload.
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

from .placement import ALL, AUTO, Isolation, Order
from .transition_policy import TransitionPolicy
from .wire.messages import RequestRules, RetryOnCrash
from .wire.status import InvalidArgument

_SPEC = "key"
_DOC_WIDTH = 100
_MAX_INTEGER = 2**31 - 1
_TABLES = ("defaults", "models", "source")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# How Python 3.11 to 3.13 end the text of every TOMLDecodeError; 3.14 has attributes for it.
_LOCATION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

T = TypeVar("T", bound=bool | int | float | str | tuple[str, ...])
S = TypeVar("S", "ModelPolicy", "SourceSettings")


class BatchingMode(StrEnum):
    """Whether requests of a model share runs."""

    FLAGS = "flags"
    OFF = "off"
    AUTO = "auto"


class PoolFileError(InvalidArgument):
    """A pool configuration file that cannot be used; the text says where, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class _Spec:
    """What a key's field says beside its name, type and default."""

    help: str
    form: "Form | None"
    low: float
    high: int
    alone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """What a string, or each string of an array, must look like; `expected` says so in an error."""

    pattern: re.Pattern[str]
    expected: str


_FILE_NAME = Form(re.compile(r"(?!\.{1,2}\Z)[^/\0]*"), "the name of a file, without a folder")
_ABSOLUTE_PATH = Form(re.compile(r"/[^\0]+"), "absolute paths")
_DEVICE = Form(
    re.compile(r"auto|all|cpu|gpu:\d+(:mig:\d+)?|(GPU|MIG)-[\w/-]+"),
    '"auto", "all", or names of devices ("cpu", "gpu:0", "gpu:0:mig:1", "GPU-...", "MIG-...")',
)
_FOLDER = Form(re.compile(r"(/[^\0]+)?"), "the absolute path of a folder, or nothing")
_CPUS = Form(re.compile(r"\d{1,4}(-\d{1,4})?"), "numbers or ranges of CPUs")
_MODULE = Form(re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*"), "names of Python modules")


def key(
    default: T,
    help_text: str,
    *,
    form: Form | None = None,
    low: float = 0,
    high: int = _MAX_INTEGER,
    alone: tuple[str, ...] = (),
) -> T:
    """A field that is a key of the file. Numbers are finite and at least `low`; integers are at most `high`.

    An array with words that stand `alone` may also be a string, which counts as an array of it.
    """
    return field(default=default, metadata={_SPEC: _Spec(help_text, form, low, high, alone)})


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """How the pool treats a model: the keys of `[defaults]` and of `[models.NAME]`. Durations in seconds."""

    transition_policy: TransitionPolicy = key(  # noqa: RUF009 - makes a field
        TransitionPolicy.AVAILABILITY_PRESERVING,
        "In what order versions change: load the new one before the old one goes, or, to save memory, after it.",
    )
    required: bool = key(True, "Count the server as ready only while this model answers.")
    auto_warmup: bool = key(
        False, "Warm a version that has no warmup file by running each of its signatures once on made-up inputs."
    )
    golden_rtol: float = key(
        1e-5,
        "How far an answer may be from that of its golden request, relative to the latter; added to golden_atol.",
    )
    golden_atol: float = key(1e-6, "How far it may be, absolutely.")
    rollback: bool = key(
        True,
        "Go back to the last good version, where it is still on disk, when a version crash-loops after its promotion.",
    )
    max_restarts: int = key(
        20,
        "How often a worker that dies is replaced within restart_period_s. One more death, and its place is given up "
        "for a while.",
    )
    restart_period_s: float = key(60.0, "The seconds in which the deaths are counted.", low=1)
    run_timeout_s: float = key(
        600.0,
        "What one execution of the model may take. After that its worker is taken for hung, and replaced; one that "
        "does not move at all is replaced within this and a second. 0: as long as it likes.",
    )
    host_memory_mb: float = key(
        0.0,
        "What one worker of the model may have of the host's memory for itself, in MiB. One that nears it is replaced "
        "by a fresh one first; one that goes over it is killed. 0: no limit. "
        "A change counts for workers started after it.",
    )
    complete_marker: str = key(
        "",
        "Load a version only when its folder has a file of this name, which whoever copies it writes last. "
        "Empty: settle_s decides.",
        form=_FILE_NAME,
    )
    devices: tuple[str, ...] = key(
        (AUTO,),
        'Where its workers run: "auto" (a GPU; the CPU on a host without), "all" (on every GPU), "cpu", or an array of '
        "devices by number (gpu:0, gpu:0:mig:1) or UUID.",
        form=_DEVICE,
        alone=(AUTO, ALL),
    )
    replicas: int = key(1, 'Workers of each version, in all; with devices = "all": on each device.', low=1, high=256)
    gpu_memory_mb: int = key(
        0,
        "GPU memory of one worker in MiB, CUDA's own included; 0: what it was measured to need, with a margin.",
        high=1 << 24,
    )
    placement: Order = key(  # noqa: RUF009 - makes a field
        Order.SPREAD, "How its workers choose among devices with room: the emptiest, or the fullest."
    )
    isolation: Isolation = key(  # noqa: RUF009 - makes a field
        Isolation.PROCESS, "What separates models: each worker is a process."
    )
    batching: BatchingMode = key(  # noqa: RUF009 - makes a field
        BatchingMode.FLAGS,
        "Several requests in one run of the model: as TF Serving's flags say; not at all; or, without anything to set, "
        "whatever waits when the model is free, as much at a time as is found to be best.",
    )
    latency_target_ms: float = key(
        0.0,
        'For batching = "auto": what a request may take that comes when a run has just begun, in milliseconds. 0: '
        "batches grow as long as that brings more rows per second.",
    )
    executors: int = key(
        1,
        "How many threads of a worker run the model at the same time; for models that can and gain by it.",
        low=1,
        high=16,
    )
    cpus: tuple[str, ...] = key(
        (),
        'CPUs that its workers may use, by number or range, as in ["0-3", "8"]; empty: all. TensorFlow makes as many '
        "threads.",
        form=_CPUS,
    )
    divide_cpus: bool = key(
        False,
        "Whether each replica of a version has a part of `cpus` (of all CPUs, where that is empty) for itself, instead "
        "of all of them together. A change counts for workers started after it.",
    )
    cpu_weight: int = key(
        100,
        "The share of the CPU of each of its workers when the CPU is short, to 100 of a process that has all.",
        low=1,
        high=100,
    )
    settle_s: float = key(
        1.0, "Load a version only when nothing in its folder has changed for so many seconds; 0: at once."
    )
    servable_versions_always_present: bool = key(
        False, "Keep the loaded versions when the model's folder has none any more, instead of unloading them."
    )
    fail_if_zero_versions_at_startup: bool = key(
        False, "Count a model whose folder has no version at the start as failed, instead of waiting for one."
    )
    record_warmup: bool = key(False, "Let `modelpool warmup record` write warmup files from this model's requests.")
    op_libraries: tuple[str, ...] = key(
        (),
        "Shared libraries with custom operations, each loaded into the model's workers before the model. "
        "A change counts for workers started after it.",
        form=_ABSOLUTE_PATH,
    )
    python_modules: tuple[str, ...] = key(
        (),
        "Python modules that bring operations along, such as tensorflow_text, imported before the model is loaded. "
        "A change counts for workers started after it.",
        form=_MODULE,
    )
    request_log_max_file_mb: float = key(
        64.0, "Size in MiB at which a file of the request log (logging_config) ends and the next begins.", low=0.001
    )
    request_log_max_files: int = key(
        10, "How many files of a model's request log are kept; the oldest is deleted when there are more.", low=1
    )
    retry_on_crash: RetryOnCrash = key(  # noqa: RUF009 - makes a field
        RetryOnCrash.ONCE,
        "What becomes of a request that a worker was executing when it died: it is tried once more, by itself; or, for "
        "models that must execute no request twice, it is answered UNAVAILABLE at once.",
    )
    quarantine_s: float = key(
        300.0,
        "For how many seconds requests are refused that are the same as one that killed a worker when it was tried "
        "once more; 0: not at all.",
    )
    max_queued_requests: int = key(
        1000,
        "Requests of the model that may wait or be executed at each of its workers, from all frontends together, each "
        "of which may have its equal part. More are refused at once.",
        low=1,
    )
    poison_dir: str = key(
        "",
        "Folder in which requests that killed a worker twice are kept, the newest of them, payload and all. "
        "Empty: they are not kept.",
        form=_FOLDER,
    )

    def cpu_numbers(self) -> tuple[int, ...]:
        """`cpus`, each by its number."""
        found: set[int] = set()
        for text in self.cpus:
            first, _, last = text.partition("-")
            found.update(range(int(first), int(last or first) + 1))
        return tuple(sorted(found))

    def request_rules(self) -> RequestRules:
        """What the frontends need to know of it."""
        return RequestRules(self.retry_on_crash, self.quarantine_s, self.max_queued_requests, self.poison_dir)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where versions come from: the keys of `[source]`."""

    cache_dir: str = key("", "Folder for copies of remote versions. Empty: chosen by the server.")


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
    if not path:
        return PoolFile()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PoolFileError(
            f"{path}: expected UTF-8, got {error.object[error.start]:#04x} at byte {error.start}"
        ) from error
    except OSError as error:
        raise PoolFileError(f"pool_config_file: cannot read '{path}': {error.strerror}") from error
    return parse(text, path)


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
        help_text = _spec(each).help + (f" One of {_listed(each.type)}." if _is_choice(each.type) else "")
        yield from textwrap.wrap(help_text, _DOC_WIDTH, initial_indent="# ", subsequent_indent="# ")
        default: Any = each.default
        if _spec(each).alone:
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
    if isinstance(value, dict):
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
    spec = _spec(each)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and type(value) in (int, float) and spec.low <= value <= sys.float_info.max:
        return float(value)
    if kind is int and type(value) is int and spec.low <= value <= spec.high:
        return value
    if _is_array(kind) and spec.alone and isinstance(value, str) and _fits(spec.form, value):
        return (value,)
    if _is_array(kind) and isinstance(value, list) and not (spec.alone and not _fits_together(value, spec.alone)):
        for item in value:
            if not isinstance(item, str) or not _fits(spec.form, item):
                raise PoolFileError(
                    f"{path}: {where}: {each.name}: expected {_expected(each)}, got {_shown(item)} in it"
                )
        return tuple(value)
    if _is_choice(kind) and isinstance(value, str) and value in list(kind):
        return kind(value)
    if kind is str and isinstance(value, str) and _fits(spec.form, value):
        return value
    raise PoolFileError(f"{path}: {where}: {each.name}: expected {_expected(each)}, got {_shown(value)}")


def _expected(each: "Field[Any]") -> str:
    if each.type is bool:
        return "true or false"
    if each.type is float:
        return f"a finite number of at least {_spec(each).low:g}"
    if each.type is int:
        return f"an integer from {_spec(each).low:g} to {_spec(each).high}"
    if _is_choice(each.type):
        return f"one of {_listed(each.type)}"
    form = _spec(each).form
    if _spec(each).alone and form:
        return f"{form.expected}, of which {_listed(_spec(each).alone)} stand alone"
    if _is_array(each.type):
        return f"an array of {form.expected if form else 'strings'}"
    return form.expected if form else "a string"


def _spec(each: "Field[Any]") -> _Spec:
    spec: _Spec = each.metadata[_SPEC]
    return spec


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
