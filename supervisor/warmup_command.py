"""The command `modelpool warmup record MODEL`: writes a warmup file from a running pool's live traffic."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import control_client, runtime_dir
from .flags import UsageError
from .wire.messages import RecordWarmup, RecordWarmupOf, WarmupRecorded
from .wire.status import Code, PoolError

_USAGE = (
    "usage: modelpool warmup record MODEL --output=FILE [--version=N] [--count=100] [--seconds=60]\n"
    "                        [--port=PORT | --runtime_dir=FOLDER]\n"
)
_GRACE_S = 15.0


def run(argv: Sequence[str], base: Path) -> int:
    """Record and say how it went; 0, or 1 when nothing was written. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    model, options = _parse(argv)
    seconds = _number("seconds", options["seconds"])
    port = int(_number("port", options["port"])) if options["port"] else None
    order = partial(
        RecordWarmup,
        count=int(_number("count", options["count"])),
        seconds=seconds,
        path=os.path.abspath(options["output"]),
    )
    version = int(_number("version", options["version"])) if options["version"] else None
    try:
        pool = runtime_dir.find_pool(base, options["runtime_dir"], port)
        answer = control_client.ask(
            pool, lambda token: RecordWarmupOf(model, version, order(token)), WarmupRecorded, seconds + _GRACE_S
        )
    except PoolError as error:
        print(f"modelpool warmup record: {error.message}")
        return 1
    if answer.code is not Code.OK:
        print(f"modelpool warmup record: {answer.code.name}: {answer.message}")
        return 1
    print(f"{answer.records} requests written to {os.path.abspath(options['output'])}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    options = {"output": "", "version": "", "count": "100", "seconds": "60", "port": "", "runtime_dir": ""}
    words: list[str] = []
    for arg in argv:
        name, has_value, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--"):
            words.append(arg)
        elif name not in options or not has_value:
            raise UsageError(f"{arg}: expected one of {', '.join(f'--{each}=...' for each in options)}")
        else:
            options[name] = value
    if len(words) != 2 or words[0] != "record":
        raise UsageError(f"expected `record MODEL`, got {' '.join(words) or 'nothing'}\n{_USAGE}".rstrip())
    if not options["output"]:
        raise UsageError("--output: expected the file to write, for example --output=tf_serving_warmup_requests")
    return words[1], options


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9 or (name != "seconds" and value != int(value)):
        raise UsageError(f"--{name}: expected a number of at least 0, got {text!r}")
    return value
