"""The command `modelpool warmup record MODEL`: writes a warmup file from a running pool's live traffic."""

import os
from collections.abc import Sequence
from pathlib import Path

from . import command_options, control_client
from .command_options import UsageError
from .wire.client_messages import RecordWarmupOf
from .wire.worker_messages import RecordWarmup, WarmupRecorded

_USAGE = (
    "usage: modelpool warmup record MODEL --output=FILE [--version=N] [--count=100] [--seconds=60]\n"
    "                        [--port=PORT | --runtime_dir=FOLDER]\n"
)
_GRACE_S = 15.0
_MOST = 10**9


def run(argv: Sequence[str], base: Path) -> int:
    """Record and say how it went; 0, or 1 when nothing was written. Raises UsageError."""
    if "--help" in argv:
        print(_USAGE, end="")
        return 0
    options = command_options.parse(argv, {"output": "", "version": "", "count": "100", "seconds": "60"})
    if len(options.words) != 2 or options.words[0] != "record":
        raise UsageError(f"expected `record MODEL`, got {' '.join(options.words) or 'nothing'}\n{_USAGE}".rstrip())
    if not options.values["output"]:
        raise UsageError("--output: expected the file to write, for example --output=tf_serving_warmup_requests")
    path = os.path.abspath(options.values["output"])
    count, seconds, version = options.whole("count", _MOST), options.seconds("seconds", _MOST), options.version

    def question(token: int) -> RecordWarmupOf:
        return RecordWarmupOf(options.words[1], version, RecordWarmup(token, count, seconds, path))

    answer = control_client.order(
        "warmup record", base, options, question, WarmupRecorded, timeout_s=seconds + _GRACE_S
    )
    if answer is None:
        return 1
    print(f"{answer.records} requests written to {path}")
    return 0
