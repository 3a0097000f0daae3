"""What the real kernel says of a process that it has ended for lack of memory, where its memory can be made short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory_group import MemoryGroup, NoGroup

from modelpool.supervisor.oom import Verdict
from tests import kernel_log

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 256 << 20


def test_the_kernel_takes_the_child_and_its_log_and_its_count_tell_of_it() -> None:
    command = [sys.executable, "-m", "tests.process.short_of_memory"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    try:
        with MemoryGroup.made(LIMIT_BYTES) as group:
            done = subprocess.run(
                [*command, str(group.path)], capture_output=True, text=True, env=environment, timeout=60, check=True
            )
            assert group.kills == 1
    except NoGroup as reason:
        pytest.skip(str(reason))
    killed_by, by_log, by_count = json.loads(done.stdout)
    assert killed_by == 9
    assert by_log == (Verdict.CERTAIN if kernel_log.names_our_pids() else Verdict.PROBABLE)
    assert by_count == Verdict.PROBABLE
