"""The command `modelpool restart MODEL`, and the supervisor's answer to it.

A worker that serves is replaced without a gap: the fresh one is ready before the old one goes. One that was given up,
or waits for its next try, is tried now.
"""

from collections.abc import Sequence
from pathlib import Path

from . import control_client, runtime_dir
from .flags import UsageError
from .servable import Slot
from .wire.messages import Restarted, RestartOf
from .wire.status import OK, Code, PoolError, Status, truncated

_USAGE = "usage: modelpool restart MODEL [--version=N] [--timeout_s=600] [--port=PORT | --runtime_dir=FOLDER]\n"
_MAX_TIMEOUT_S = 86_400.0
# The answer comes from a supervisor that may be busy.
_GRACE_S = 5.0


def run(argv: Sequence[str], base: Path) -> int:
    """Restart and say how it went; 0, or 1 when not all of it went well. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    model, options = _parse(argv)
    timeout_s = _number("timeout_s", options["timeout_s"], _MAX_TIMEOUT_S)
    port = int(_number("port", options["port"], 65535)) if options["port"] else None
    version = int(_number("version", options["version"], 2**63 - 1)) if options["version"] else None
    try:
        pool = runtime_dir.find_pool(base, options["runtime_dir"], port)
        answer = control_client.ask(
            pool, lambda token: RestartOf(token, model, version, timeout_s), Restarted, timeout_s + _GRACE_S
        )
    except PoolError as error:
        print(f"modelpool restart: {error.message}")
        return 1
    if answer.code is not Code.OK:
        print(f"modelpool restart: {answer.code.name}: {answer.message}")
        return 1
    print(answer.message)
    return 0


def outcome(wanted: RestartOf, slots: Sequence[tuple[Slot, Status | None]]) -> Restarted:
    """What to answer: how the restart of each slot ended, None where it goes on."""
    lines, code = [], Code.OK
    for slot, status in slots:
        where = f"{slot.id.servable} on {slot.device.id}"
        if status is None:
            code = Code.DEADLINE_EXCEEDED
            lines.append(f"{where}: not ready within {wanted.timeout_s:g} s, it goes on: {slot.state}")
        elif status != OK:
            code = status.code
            lines.append(f"{where}: {status.code.name}: {status.message}")
        else:
            spent_s = (slot.load_s or 0.0) + (slot.warmup_s or 0.0)
            lines.append(f"{where}: pid {slot.pid} serves, loaded and warm in {spent_s:.1f} s")
    return Restarted(wanted.token, code, truncated("\n".join(lines)))


def _parse(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    options = {"version": "", "timeout_s": "600", "port": "", "runtime_dir": ""}
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
    return words[0], options


def _number(name: str, text: str, most: float) -> float:
    """Version and port must be whole."""
    try:
        value = float(text) if name == "timeout_s" else int(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise UsageError(f"--{name}: expected a number from 0 to {most:g}, got {text!r}")
    return value
