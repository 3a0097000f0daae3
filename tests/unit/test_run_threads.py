"""Threads that run jobs: what they have done is given back, and nothing of it is kept."""

import os
import weakref

from modelpool.worker.jobs import Job
from modelpool.worker.run_threads import RunThreads


class Held(Job):
    """One that can be watched."""

    __slots__ = ("__weakref__",)


def test_a_thread_that_waits_keeps_nothing_of_its_last_job() -> None:
    wake_fd = os.eventfd(0)
    ran: list[int] = []
    threads = RunThreads(lambda job: ran.append(job.rows), wake_fd)
    job = Held((), rows=7)
    watched = weakref.ref(job)
    threads.start(job)
    del job
    os.eventfd_read(wake_fd)
    assert len(list(threads.done())) == 1
    assert (ran, threads.running) == ([7], 0)
    assert watched() is None
    threads.close()
    os.close(wake_fd)
