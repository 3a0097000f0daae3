"""Where the command `modelpool` begins: a signal that comes before anything else is there ends it in good order.

The kernel drops a SIGTERM for process 1 of a container that has no handler for it, and importing the rest takes a
moment. So nothing of it is imported here before there are handlers; a running pool replaces them by its own.
"""

import os
import signal
import sys


def main() -> None:
    """Entry point of the console script."""
    _open_streams()
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "serve" or command.startswith("-"):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
    from . import main as command_line  # noqa: PLC0415 - the handlers come first

    command_line.main()


def _open_streams() -> None:
    """A launcher may have closed them: what is opened next would have their numbers, and get what is written there."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _end(*_: object) -> None:
    """There is nothing to drain yet; whoever has made something takes it away."""
    raise SystemExit(0)


if __name__ == "__main__":
    main()
