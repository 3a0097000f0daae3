"""The command `modelpool restart MODEL`.

A worker that serves is replaced without a gap: the fresh one is ready before the old one goes. One that was given up,
or waits for its next try, is tried now.
"""

from collections.abc import Sequence
from pathlib import Path

from . import command_options, control_client
from .wire.client_messages import Restarted, RestartOf

_USAGE = "usage: modelpool restart MODEL [--version=N] [--timeout_s=600] [--port=PORT | --runtime_dir=FOLDER]\n"
_MAX_TIMEOUT_S = 86_400.0
# The answer comes from a supervisor that may be busy.
_GRACE_S = 5.0


def run(argv: Sequence[str], base: Path) -> int:
    """Restart and say how it went; 0, or 1 when not all of it went well. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    options = command_options.parse(argv, {"version": "", "timeout_s": "600"})
    model = command_options.one_model(options.words, _USAGE)
    timeout_s, version = options.seconds("timeout_s", _MAX_TIMEOUT_S), options.version

    def question(token: int) -> RestartOf:
        return RestartOf(token, model, version, timeout_s)

    answer = control_client.order("restart", base, options, question, Restarted, timeout_s=timeout_s + _GRACE_S)
    if answer is None:
        return 1
    print(answer.message)
    return 0
