"""The command `modelpool profile MODEL`: traces a worker of a running pool, for TensorBoard."""

import os
from collections.abc import Sequence
from pathlib import Path

from . import command_options, control_client
from .command_options import UsageError
from .profilings import MAX_DURATION_S
from .wire.client_messages import ProfileOf
from .wire.worker_messages import Profile, Profiled

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
    options = command_options.parse(argv, {"logdir": "", "duration_s": "5", "version": ""})
    model = command_options.one_model(options.words, _USAGE)
    if not options.values["logdir"]:
        raise UsageError("--logdir: expected the folder to write to, which TensorBoard is then given")
    logdir = os.path.abspath(options.values["logdir"])
    duration_s, version = options.seconds("duration_s", MAX_DURATION_S), options.version

    def question(token: int) -> ProfileOf:
        root = os.path.join(logdir, "plugins", "profile")
        return ProfileOf(model, version, Profile(token, duration_s, root, "", ""))

    answer = control_client.order("profile", base, options, question, Profiled, timeout_s=duration_s + _GRACE_S)
    if answer is None:
        return 1
    print(f"{answer.file}{': nothing happened while it was traced' if answer.empty else ''}")
    print(f"tensorboard --logdir={logdir}")
    return 0
