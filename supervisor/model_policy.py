"""How the pool treats models: the keys of its own file, with their types, defaults, limits and documentation.

The fields of `ModelPolicy` and `SourceSettings` are the single source of the keys; `pool_config` reads and checks a
file by them. Knows nothing of files, nor of what the values are used for.
"""

import re
from dataclasses import Field, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from .placement import ALL, AUTO, Isolation, Order
from .transition_policy import TransitionPolicy
from .wire.route_table import MOST_QUEUED_REQUESTS, RequestRules, RetryOnCrash

_SPEC = "key"
_MAX_INTEGER = 2**31 - 1

T = TypeVar("T", bound=bool | int | float | str | tuple[str, ...])


class BatchingMode(StrEnum):
    """Whether requests of a model share runs."""

    FLAGS = "flags"
    OFF = "off"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class KeySpec:
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
    return field(default=default, metadata={_SPEC: KeySpec(help_text, form, low, high, alone)})


def spec(each: "Field[Any]") -> KeySpec:
    """What the field of a key says of it."""
    found: KeySpec = each.metadata[_SPEC]
    return found


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
        "Go back to the last good version, where it is still on disk, when a version crash-loops after its promotion "
        "or cannot be brought back.",
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
        0,
        "How many runs of the model go on at the same time in a worker. 0: as many as are found to bring more requests "
        "per second; one where the model changes state, has a GPU or a host_memory_mb, or retry_on_crash is never.",
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
        high=MOST_QUEUED_REQUESTS,
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

    def of_loads(self) -> tuple[object, ...]:
        """What may decide how a load ends, beside the model's files."""
        return (
            (self.auto_warmup, self.golden_rtol, self.golden_atol),
            (self.op_libraries, self.python_modules),
            (self.host_memory_mb, self.gpu_memory_mb, self.devices, self.cpus, self.divide_cpus),
            (self.batching, self.executors),
        )

    def request_rules(self) -> RequestRules:
        """What the frontends need to know of it."""
        return RequestRules(self.retry_on_crash, self.quarantine_s, self.max_queued_requests, self.poison_dir)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where versions come from: the keys of `[source]`."""

    cache_dir: str = key("", "Folder for copies of remote versions. Empty: chosen by the server.")
