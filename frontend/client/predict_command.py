"""The command `modelpool predict`: one Predict call, from JSON or an .npz file to text or JSON."""

import base64
import binascii
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import command_line
from .blocking import Client
from .errors import InputError
from .results import Prediction

if TYPE_CHECKING:
    import argparse


def run(argv: Sequence[str]) -> int:
    """The exit code; argparse ends the process for a wrong command line and for --help."""
    parser = command_line.model_parser("predict", "Ask a model, and print its outputs.")
    parser.add_argument(
        "--inputs",
        default="-",
        metavar="JSON",
        help='the inputs by name, or the value of the only one; {"b64": ...} is bytes. @FILE: from this file; '
        "FILE.npz: arrays by name; -: from the standard input",
    )
    parser.add_argument("--signature", help="serving_default if not given")
    parser.add_argument("--outputs", metavar="NAME,NAME", help="only these outputs")
    arguments = parser.parse_args(argv)
    return command_line.ask(arguments, "predict", lambda client: _predict(client, arguments))


def _predict(client: Client, arguments: "argparse.Namespace") -> str:
    prediction = client.predict(
        arguments.model,
        read_inputs(arguments.inputs),
        version=arguments.version,
        label=arguments.label,
        signature=arguments.signature,
        outputs=arguments.outputs.split(",") if arguments.outputs else None,
    )
    return as_json(prediction) if arguments.json else as_text(prediction)


def read_inputs(source: str) -> Any:
    """What `--inputs` says. Raises InputError."""
    try:
        if source == "-":
            return _from_json(sys.stdin.read())
        if source.startswith("@"):
            return _from_json(Path(source[1:]).read_text("utf-8"))
        if source.endswith(".npz"):
            return _from_npz(source)
        return _from_json(source)
    except (OSError, ValueError) as error:
        raise InputError(f"--inputs: {error}") from error


def _from_npz(path: str) -> Any:
    import numpy as np  # noqa: PLC0415 - slow to import

    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _from_json(text: str) -> Any:
    return json.loads(text, object_hook=_bytes_object)


def _bytes_object(value: dict[str, Any]) -> Any:
    """`{"b64": ...}` is bytes, as in TF Serving's REST API."""
    if value.keys() != {"b64"} or not isinstance(value["b64"], str):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise InputError(f"not base64: {error}") from error


def as_json(prediction: Prediction) -> str:
    """`{"model_version": n, "outputs": {name: nested lists}}`; bytes that are no UTF-8 are `{"b64": ...}`."""
    outputs = {name: array.tolist() for name, array in prediction.items()}
    return json.dumps({"model_version": prediction.model_version, "outputs": outputs}, default=_json_value) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return [value.real, value.imag]
    # The small floats of ml_dtypes.
    return float(value)


def as_text(prediction: Prediction) -> str:
    """Each output with its dtype and shape, and numpy's text of it, which leaves out the middle of big ones."""
    import numpy as np  # noqa: PLC0415

    parts = []
    for name, array in prediction.items():
        dtype = "string" if array.dtype == object else str(array.dtype)
        shape = ",".join(map(str, array.shape))
        parts.append(f"{name} {dtype} [{shape}]\n{np.array2string(array, separator=', ')}\n")
    return "".join(parts)
