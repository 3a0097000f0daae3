"""Where the command `modelpool` begins: a signal that comes before anything else is there ends it in good order.

The kernel drops a SIGTERM for process 1 of a container that has no handler for it, and importing the rest takes a
moment. So nothing of it is imported here before there are handlers; a running pool replaces them by its own.
"""

import signal
import sys


def main() -> None:
    """Entry point of the console script."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "serve" or command.startswith("-"):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
    from . import main as command_line  # noqa: PLC0415 - the handlers come first

    command_line.main()


def _end(*_: object) -> None:
    """There is nothing to drain yet; whoever has made something takes it away."""
    raise SystemExit(0)


if __name__ == "__main__":
    main()
