"""Whom the kernel ends when there is no memory left: a worker, before any process that all of them need. At its start.

The kernel takes the process that has most, and each has a number that is added for this choice, in thousandths of all
the memory there is (of the host, or of the control group that is full): proc_pid_oom_score_adj(5). Without it the
choice might fall on the fork server, which is larger than a small worker, or on the supervisor's own. Among workers it
still falls on the largest. Anybody may raise their own; what an operator has given the whole pool is added to.
"""

import logging
from pathlib import Path

from modelpool.supervisor.wire.log import fields

log = logging.getLogger(__name__)

ABOVE_OTHERS = 500
"""As if a worker had half of all memory more than it has. With all of it (1000) each worker would go before somebody
else's process that has taken everything.
"""
_MOST = 1000
_FILE = Path("/proc/self/oom_score_adj")


def go_before_others(file: Path = _FILE) -> None:
    """From now on this process is taken before the others of its pool. Where that cannot be had, the log says so."""
    try:
        file.write_text(str(min(_MOST, int(file.read_text()) + ABOVE_OTHERS)))
    except (OSError, ValueError) as error:
        log.warning("the kernel may end others first when memory is short %s", fields(error=error))
