"""The command `modelpool status`: asks a running pool by its control socket, prints a table or its JSON."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import command_options, control_client, runtime_dir
from .command_options import UsageError
from .wire.status import PoolError

_USAGE = "usage: modelpool status [--json] [--port=PORT | --runtime_dir=FOLDER]\n"
_MIB = 1 << 20
# More than any line has: into a file or a pipe nothing is folded or cut.
_FILE_COLUMNS = 10_000
_STATE_COLOURS = {"AVAILABLE": "green", "LOADING": "yellow", "START": "yellow", "UNLOADING": "yellow", "END": "dim"}


def run(argv: Sequence[str], base: Path) -> int:
    """Print the status; 0, or 1 when there is no pool to ask. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    options = command_options.parse(argv, {}, switches=("json",))
    if options.words:
        raise UsageError(f"{options.words[0]}: unknown option\n{_USAGE}".rstrip())
    try:
        body = control_client.status(runtime_dir.find_pool(base, options.runtime_dir, options.port))
    except PoolError as error:
        print(f"modelpool status: {error.message}", file=sys.stderr)
        return 1
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    as_json = "json" in options.switches
    print(body.decode() if as_json else render(json.loads(body), width), end="\n" if as_json else "")
    return 0


def render(status: dict[str, Any], width: int | None = None) -> str:
    """The document as a person likes to read it: a line per worker, and whatever is wrong below.

    `width`: columns of the terminal. Into a pipe or a file (None) lines are as long as they are.
    """
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only people need it

    notes = _configuration_notes(status["supervisor"])
    rows = [cells for model in status["models"] for cells in _rows(model, notes)]
    console = Console(highlight=False, width=_FILE_COLUMNS, force_terminal=width is not None)
    table = _table(rows)
    if width is not None and console.measure(table).maximum > width:
        table, console.width = _narrow_table(rows, width)
    with console.capture() as captured:
        console.print(table)
        notes += [f"[red]{each['id']}[/red]: lost: {each['lost']}" for each in status["devices"] if each["lost"]]
        for note in notes:
            console.print(note, soft_wrap=True)
        console.print(_processes(status), style="dim", soft_wrap=True)
    return captured.get()


def _table(rows: Sequence[tuple[str, ...]]) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    return table


def _narrow_table(rows: Sequence[tuple[str, ...]], width: int) -> tuple[Any, int]:
    """Closer together; the names of models and what workers do are folded where they must be, and nothing is cut.

    Also how wide it is: `width`, or more where even so it does not fit.
    """
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    columns = {
        heading: [Text.from_markup(cells[number]) for cells in rows]
        for number, heading in enumerate(_HEADINGS)
        if heading != "DEVICE" or {cells[number] for cells in rows} - {"cpu", ""}
    }
    titles = {heading: _BROKEN.get(heading, heading) for heading in columns}
    widths = {
        heading: max(text.cell_len for text in [*map(Text, titles[heading].split("\n")), *column])
        for heading, column in columns.items()
    }
    for heading, least in _FOLDED.items():
        too_wide = sum(widths.values()) + len(widths) - width
        widths[heading] = max(min(least, widths[heading]), widths[heading] - max(0, too_wide))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in columns:
        justify: Any = "right" if heading in _NUMBERS else "left"
        table.add_column(titles[heading], justify=justify, overflow="fold", width=widths[heading])
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table, max(width, sum(widths.values()) + len(widths))


_HEADINGS = (
    *("MODEL", "VERSION", "STATE", "WORKER", "PID", "DEVICE"),
    *("MEMORY", "IN FLIGHT", "SERVED", "RESTARTS"),
)
_NUMBERS = frozenset({"VERSION", "PID", "MEMORY", "IN FLIGHT", "SERVED", "RESTARTS"})
# In a narrow terminal: headings of two lines, and the least width of the columns that are folded.
_BROKEN = {"IN FLIGHT": "IN\nFLIGHT", "RESTARTS": "RE-\nSTARTS"}
_FOLDED = {"WORKER": 8, "MODEL": 13}


def _configuration_notes(own: dict[str, Any]) -> list[str]:
    """Of files that were changed since and cannot be taken; a pool that was started before this was told has none."""
    from rich.markup import escape  # noqa: PLC0415

    return [
        f"[red]--{flag}[/red]: refused, the last good one stays: {error['code']}: {escape(error['message'])}"
        for flag, error in own.get("configuration_errors", {}).items()
    ]


def _rows(model: dict[str, Any], notes: list[str]) -> Iterator[tuple[str, ...]]:
    from rich.markup import escape  # noqa: PLC0415

    name = escape(model["name"])
    if model["source_error"]["code"] != "OK":
        notes.append(f"[red]{name}[/red]: {escape(model['source_error']['message'])}")
    notes += [f"[yellow]{name}[/yellow]: {escape(note)}" for note in model["source_notes"]]
    if model.get("rolled_back_to") is not None:
        notes.append(f"[yellow]{name}[/yellow]: rolled back to version {model['rolled_back_to']}")
    if not model["versions"]:
        yield (name, "-", "[yellow]no version[/yellow]", *[""] * 7)
    for version in model["versions"]:
        state = version["state"]
        colour = "red" if state == "END" and version["error"]["code"] != "OK" else _STATE_COLOURS[state]
        head = (name, str(version["version"]), f"[{colour}]{state}[/{colour}]")
        if version["error"]["code"] != "OK":
            error = version["error"]
            notes.append(f"[red]{name} {version['version']}[/red]: {error['code']}: {escape(error['message'])}")
        elif version["placement_error"]:
            notes.append(f"[yellow]{name} {version['version']}[/yellow]: {escape(version['placement_error'])}")
        for worker in version["workers"]:
            if worker["waits_for"] and worker["state"] == "pending":
                notes.append(f"{name} {version['version']}: waits: {escape(worker['waits_for'])}")
            if worker["last_exit"] is not None and worker["last_exit"]["kind"] != "stopped":
                notes.append(f"{name} {version['version']}: the last worker {escape(worker['last_exit']['cause'])}")
            yield (*head, *_worker_cells(worker))
        if not version["workers"]:
            yield (*head, *[""] * 7)


def _worker_cells(worker: dict[str, Any]) -> tuple[str, ...]:
    state = worker["state"]
    if state != "ready" and worker["pid"] is not None:
        state = f"{state} for {worker['state_s']:.1f} s"
    if worker["retry_in_s"] is not None:
        state = f"{state}, again in {worker['retry_in_s']:.0f} s"
    memory = "" if worker["rss_bytes"] is None else f"{worker['rss_bytes'] / _MIB:.0f} MiB"
    numbers = (str(worker["in_flight"]), str(worker["served"]), str(worker["restarts"]))
    return (state, str(worker["pid"] or ""), worker["device"], memory, *numbers)


def _processes(status: dict[str, Any]) -> str:
    own = status["supervisor"]
    parts = [f"supervisor pid {own['pid']}, {(own['rss_bytes'] or 0) / _MIB:.0f} MiB"]
    for frontend in status["frontends"]:
        parts.append(f"frontend pid {frontend['pid']}, {(frontend['rss_bytes'] or 0) / _MIB:.0f} MiB")
    shared = own.get("shared_memory")  # a pool that was started before there was this key has none
    if shared is not None:
        used, reserved = shared["used_bytes"] / _MIB, shared["reserved_bytes"] / _MIB
        parts.append(f"shared memory {used:.0f} of at most {reserved:.0f} MiB")
    where = [f"gRPC {own['grpc_port']}"] if own["grpc_port"] else []
    where += [f"REST {own['rest_port']}"] if own["rest_port"] else []
    where += [own["grpc_socket_path"]] if own["grpc_socket_path"] else []
    return f"{'; '.join(parts)}\n{'serving on' if own['serving'] else 'not serving yet:'} {', '.join(where)}"
