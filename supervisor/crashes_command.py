"""The command `modelpool crashes`: lists the crash reports that are kept, and shows one. Reads files; asks a pool that
runs only where they are.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import command_options, control_client, runtime_dir
from .command_options import Options, UsageError
from .crash_files import MAX_FILES, CrashFiles
from .wire.status import AlreadyExists, NotFound, PoolError

_USAGE = (
    "usage: modelpool crashes [--json] [--model=M]     list the deaths of workers, the newest first\n"
    "       modelpool crashes show ID [--json]         all that is known of one; the beginning of its ID is enough\n"
    "       with [--port=PORT | --runtime_dir=FOLDER | --crash_dir=FOLDER]\n"
)
_MIB = 1 << 20
# More than any line has: into a file or a pipe nothing is folded or cut.
_FILE_COLUMNS = 10_000


def run(argv: Sequence[str], base: Path, default_dir: Path) -> int:
    """List or show; 0, or 1 when there is nothing to be shown. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    options = command_options.parse(argv, {"model": "", "crash_dir": ""}, switches=("json",))
    words, as_json = options.words, "json" in options.switches
    if words and (words[0] != "show" or len(words) != 2):
        raise UsageError(f"expected nothing, or 'show ID', got {' '.join(words)!r}\n{_USAGE}".rstrip())
    try:
        files = CrashFiles(_directory(options, base, default_dir))
        if words:
            document = files.read(words[1])
            print(json.dumps(document, indent=1) if as_json else _shown(document), end="\n")
        else:
            found = list(files.newest(options.values["model"] or None, MAX_FILES))
            print(json.dumps(found, indent=1) if as_json else render(found), end="\n")
    except (PoolError, OSError) as error:
        print(f"modelpool crashes: {error.message if isinstance(error, PoolError) else error}", file=sys.stderr)
        return 1
    return 0


def _directory(options: Options, base: Path, default_dir: Path) -> Path:
    """Where the reports are: as told, or as the pool says that is meant, or where they are by default."""
    if options.values["crash_dir"]:
        return Path(options.values["crash_dir"])
    try:
        pool = runtime_dir.find_pool(base, options.runtime_dir, options.port)
    except (NotFound, AlreadyExists):
        if options.runtime_dir or options.port is not None:
            raise
        return default_dir
    return Path(json.loads(control_client.status(pool))["supervisor"]["crash_dir"])


def render(reports: Sequence[Mapping[str, Any]]) -> str:
    """A line per death."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only people need it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if not reports:
        return "no worker has died"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("WHEN (UTC)", "MODEL", "VERSION", "KIND", "SERVED", "EXECUTING", "MEMORY", "CAUSE", "ID"):
        right = heading in {"VERSION", "SERVED", "EXECUTING", "MEMORY"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading not in {"CAUSE", "ID"})
    for each in reports:
        peak = each.get("peak_rss_bytes")
        cells = (
            str(each["time"])[:19].replace("T", " "),
            str(each["model"]),
            str(each["version"]),
            str(each["kind"]),
            str(each["served"]),
            str(len(each["executing"])),
            "" if peak is None else f"{peak / _MIB:.0f} MiB",
            str(each["cause"]).partition("\n")[0][:80],
            str(each["id"])[:22],
        )
        table.add_row(*map(escape, cells))
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_FILE_COLUMNS)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _shown(report: Mapping[str, Any]) -> str:
    """All of one report, the texts as they are."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in report.items() if key not in _TEXTS and key not in _LISTS]
    for key in _LISTS:
        lines.append(f"\n-- {key}: {len(report[key])}")
        lines += [" ".join(f"{name}={value}" for name, value in each.items()) for each in report[key]]
    for key in _TEXTS:
        lines.append(f"\n-- {key}\n{report[key].rstrip()}" if report[key] else f"\n-- {key}: nothing")
    return "\n".join(lines)


_LISTS = ("executing", "finished")
_TEXTS = ("stack", "stderr")
