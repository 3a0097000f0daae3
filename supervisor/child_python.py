"""How a module of ours is started as a process of its own, whatever lies in the folder that the server runs in.

For `-m` Python looks there before its own library: a `queue.py` would be taken for Python's, whoever wrote it.
"""

import sys


def command(module: str) -> list[str]:
    """The command line that runs `module`."""
    return [sys.executable, "-P", "-m", module]
