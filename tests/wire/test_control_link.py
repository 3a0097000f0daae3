"""The worker's link to the supervisor, as the kernel and the supervisor see it."""

import os
from dataclasses import replace
from pathlib import Path

import zmq

from modelpool.supervisor.wire import thread_priority
from modelpool.worker.control import ControlLink
from tests.e2e.eventually import eventually
from tests.unit.test_worker_memory import SPEC


def test_its_thread_is_known_by_name(tmp_path: Path) -> None:
    """By which one that gives way on the CPUs is let speak."""
    spec = replace(SPEC, control_endpoint=f"ipc://{tmp_path}/control")
    lifeline, supervisor_end = os.pipe()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    before = thread_priority.named(os.getpid(), "control")
    link = ControlLink(spec, context, lifeline)
    link.start()
    eventually(lambda: len(thread_priority.named(os.getpid(), "control") - before) == 1, what="it has its name")
    link.close(5.0)
    context.destroy(linger=0)
    for fd in (lifeline, supervisor_end):
        os.close(fd)
