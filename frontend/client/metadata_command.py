"""The command `modelpool metadata`: the signatures of a model, as a table or as JSON."""

import json
import sys
from collections.abc import Mapping, Sequence

from . import command_line
from .results import ModelMetadata, Signature, TensorSpec

_FILE_COLUMNS = 200


def run(argv: Sequence[str]) -> int:
    """The exit code; argparse ends the process for a wrong command line and for --help."""
    arguments = command_line.model_parser("metadata", "Print what a model takes and gives.").parse_args(argv)
    render = as_json if arguments.json else as_table
    return command_line.ask(
        arguments,
        "metadata",
        lambda client: render(client.metadata(arguments.model, version=arguments.version, label=arguments.label)),
    )


def as_json(metadata: ModelMetadata) -> str:
    """`{"name", "version", "signatures": {key: {"method_name", "inputs": {name: {"dtype", "shape"}}, "outputs"}}}`."""
    signatures = {
        key: {
            "method_name": each.method_name,
            "inputs": _tensors(each.inputs),
            "outputs": _tensors(each.outputs),
            "defaults": sorted(each.defaults),
        }
        for key, each in metadata.signatures.items()
    }
    return json.dumps({"name": metadata.name, "version": metadata.version, "signatures": signatures}) + "\n"


def _tensors(specs: Mapping[str, TensorSpec]) -> dict[str, object]:
    return {name: {"dtype": each.dtype, "shape": each.shape, "tensor": each.tensor} for name, each in specs.items()}


def as_table(metadata: ModelMetadata) -> str:
    """A line per input and output; signatures without any, as TF2's init op, are left out."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only people need it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("SIGNATURE", "", "NAME", "DTYPE", "SHAPE", "METHOD"):
        table.add_column(heading, no_wrap=True)
    for key, signature in metadata.signatures.items():
        for position, (direction, name, spec) in enumerate(_lines(signature)):
            head, method = (key, signature.method_name) if position == 0 else ("", "")
            name_cell = f"{name} (optional)" if direction == "in" and name in signature.defaults else name
            cells = (head, direction, name_cell, spec.dtype, _shape(spec), method)
            table.add_row(*(escape(cell) for cell in cells))
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_FILE_COLUMNS)
    with console.capture() as captured:
        console.print(f"{escape(metadata.name)} version {metadata.version}", style="dim", soft_wrap=True)
        console.print(table)
    return captured.get()


def _lines(signature: Signature) -> list[tuple[str, str, TensorSpec]]:
    inputs = [("in", name, spec) for name, spec in signature.inputs.items()]
    return inputs + [("out", name, spec) for name, spec in signature.outputs.items()]


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    return f"[{','.join('?' if size is None else str(size) for size in spec.shape)}]"
