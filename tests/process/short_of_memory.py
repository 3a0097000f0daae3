"""A parent and a child in a group whose memory the child takes: `python -m tests.process.short_of_memory GROUP`.

Prints, as a JSON list, the signal by which the child ended and what is made of it: by the kernel's log, by its count.
"""

import json
import os
import sys
from pathlib import Path

from memory_group import MemoryGroup

from modelpool.supervisor.oom import OomWatch
from modelpool.worker import oom_score

NAME = "mp:1/hungry"
_PIECE_BYTES = 8 << 20


def take_all() -> None:
    Path("/proc/self/comm").write_text(NAME)
    oom_score.go_before_others()
    taken = []
    while True:
        taken.append(b"x" * _PIECE_BYTES)


def main() -> None:
    MemoryGroup(Path(sys.argv[1])).enter()
    by_log, by_count = OomWatch(), OomWatch("/nowhere")
    child = os.fork()
    if child == 0:
        take_all()
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.WTERMSIG(status), by_log.look(child, NAME), by_count.look(child, NAME)]))


if __name__ == "__main__":
    main()
