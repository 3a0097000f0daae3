"""A launcher that closes the standard streams: no socket or pipe of the server may get their numbers."""

import subprocess
import sys

import pytest

ALL_RIGHT = 17
# What the command leaves behind: they lead nowhere, also in its children, and what is opened next has another number.
LOOK = f"""
import os, sys
from modelpool.supervisor import __main__
sys.argv = ["modelpool", "--help"]
try:
    __main__.main()
except SystemExit:
    pass
led = [os.readlink(f"/proc/self/fd/{{number}}") for number in CLOSED]
heirs = all(os.get_inheritable(number) for number in CLOSED)
os._exit({ALL_RIGHT} if led == ["/dev/null"] * len(CLOSED) and heirs and os.open("/", os.O_RDONLY) > 2 else 1)
"""


@pytest.mark.parametrize("closed", [(0, 1, 2), (0,), (2,), (1, 2)])
def test_closed_streams_lead_nowhere(closed: tuple[int, ...]) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    code = f"CLOSED = {closed}{LOOK}"
    command = ["sh", "-c", f'exec "$0" "$@" {redirections}', sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, timeout=60, input=b"", capture_output=True)
    assert ended.returncode == ALL_RIGHT, ended.stderr
