"""Threads that run the model at the same time, for a worker with several executors.

They take jobs, run them and give them back; what is run, and what becomes of it, is decided by the main thread, which
alone calls the methods here.
"""

import os
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from .executor import Job


class RunThreads:
    """`count` threads that call `run` (which does not raise); `wake_fd` is an eventfd, written when a job is done."""

    def __init__(self, count: int, run: Callable[[Job], None], wake_fd: int) -> None:
        self.running = 0
        self._run = run
        self._wake_fd = wake_fd
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Job] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"run-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def start(self, job: Job) -> None:
        """Have it run by whoever is free. Not more than there are threads, at a time."""
        self.running += 1
        self._jobs.put(job)

    def done(self) -> Iterator[Job]:
        """Those that have been run since."""
        while True:
            try:
                job = self._done.get_nowait()
            except Empty:
                return
            self.running -= 1
            yield job

    def close(self) -> None:
        """Without waiting for runs under way."""
        for _ in self._threads:
            self._jobs.put(None)

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            self._run(job)
            self._done.put(job)
            os.eventfd_write(self._wake_fd, 1)
