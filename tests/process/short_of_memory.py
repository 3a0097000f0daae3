"""A parent and a child in a group of 256 MiB, all of which is taken: `python -m tests.process.short_of_memory GROUP`.

The parent has more of it than the child, which has raised its own `oom_score_adj` as a worker does. Prints, as a JSON
list, the signal by which the child ended and what is made of it: by the kernel's log, by its count.
"""

import json
import os
import sys
from pathlib import Path

from memory_group import MemoryGroup

from modelpool.supervisor.oom import OomWatch
from modelpool.worker import oom_score

NAME = "mp:1/hungry"
_PIECE_BYTES = 4 << 20
_PARENT_BYTES = 130 << 20


def take_all() -> None:
    Path("/proc/self/comm").write_text(NAME)
    oom_score.go_before_others()
    taken = []
    while True:
        taken.append(b"x" * _PIECE_BYTES)


def main() -> None:
    MemoryGroup(Path(sys.argv[1])).enter()
    by_log, by_count = OomWatch(), OomWatch("/nowhere")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        take_all()
    held = b"x" * _PARENT_BYTES  # not before the fork, or it were the child's as well
    os.write(writing, held[:1])
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.WTERMSIG(status), by_log.look(child, NAME), by_count.look(child, NAME)]))


if __name__ == "__main__":
    main()
