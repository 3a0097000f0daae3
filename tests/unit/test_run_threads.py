"""Threads that run jobs: what they have done is given back, nothing of it is kept, and nobody's policy is theirs."""

import os
import threading
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


def test_a_thread_made_by_one_that_gathers_does_not_gather() -> None:
    wake_fd = os.eventfd(0)
    ran: list[int] = []
    threads = RunThreads(lambda job: ran.append(os.sched_getscheduler(0)), wake_fd)

    def start() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        threads.start(Job((), rows=7))

    main = threading.Thread(target=start)
    main.start()
    main.join(10)
    os.eventfd_read(wake_fd)
    assert ran == [os.SCHED_OTHER]
    threads.close()
    os.close(wake_fd)
