"""The command `modelpool profile MODEL`: traces a worker of a running pool, for TensorBoard."""

import os
from collections.abc import Sequence
from pathlib import Path

from . import control_client, runtime_dir
from .flags import UsageError
from .profilings import MAX_DURATION_S
from .wire.messages import Profile, Profiled, ProfileOf
from .wire.status import Code, PoolError

_USAGE = (
    "usage: modelpool profile MODEL --logdir=DIR [--duration_s=5] [--version=N]\n"
    "                        [--port=PORT | --runtime_dir=FOLDER]\n"
)
# A trace of many events takes longer to collect than to take.
_GRACE_S = 60.0


def run(argv: Sequence[str], base: Path) -> int:
    """Trace and say where the file is; 0, or 1 when nothing was written. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    model, options = _parse(argv)
    duration_s = _number("duration_s", options["duration_s"], MAX_DURATION_S)
    port = int(_number("port", options["port"], 65535)) if options["port"] else None
    version = int(_number("version", options["version"], 2**63 - 1)) if options["version"] else None
    logdir = os.path.abspath(options["logdir"])
    try:
        pool = runtime_dir.find_pool(base, options["runtime_dir"], port)
        answer = control_client.ask(
            pool,
            lambda token: ProfileOf(
                model, version, Profile(token, duration_s, os.path.join(logdir, "plugins", "profile"), "", "")
            ),
            Profiled,
            duration_s + _GRACE_S,
        )
    except PoolError as error:
        print(f"modelpool profile: {error.message}")
        return 1
    if answer.code is not Code.OK:
        print(f"modelpool profile: {answer.code.name}: {answer.message}")
        return 1
    print(f"{answer.file}{': nothing happened while it was traced' if answer.empty else ''}")
    print(f"tensorboard --logdir={logdir}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    options = {"logdir": "", "duration_s": "5", "version": "", "port": "", "runtime_dir": ""}
    words: list[str] = []
    for arg in argv:
        name, has_value, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--"):
            words.append(arg)
        elif name not in options or not has_value:
            raise UsageError(f"{arg}: expected one of {', '.join(f'--{each}=...' for each in options)}")
        else:
            options[name] = value
    if len(words) != 1:
        raise UsageError(f"expected one MODEL, got {' '.join(words) or 'nothing'}\n{_USAGE}".rstrip())
    if not options["logdir"]:
        raise UsageError("--logdir: expected the folder to write to, which TensorBoard is then given")
    return words[0], options


def _number(name: str, text: str, most: float) -> float:
    """Version and port must be whole."""
    try:
        value = float(text) if name == "duration_s" else int(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise UsageError(f"--{name}: expected a number from 0 to {most:g}, got {text!r}")
    return value
