"""Threads that run the model at the same time, for a worker with several executors.

They take jobs, run them and give them back; what is run, and what becomes of it, is decided by the main thread, which
alone calls the methods here.
"""

import os
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from modelpool.supervisor.wire import gathering

from .jobs import Job


class RunThreads:
    """Threads, made as they are needed, that call `run` (which does not raise).

    `wake_fd` is an eventfd, written when a job is done.
    """

    def __init__(self, run: Callable[[Job], None], wake_fd: int) -> None:
        self.running = 0
        self._run = run
        self._wake_fd = wake_fd
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Job] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, job: Job) -> None:
        """Have it run beside those that are being run."""
        self.running += 1
        if self.running > len(self._threads):
            name = f"run-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
            self._threads[-1].start()
        self._jobs.put(job)

    def done(self) -> Iterator[Job]:
        """Those that have been run since."""
        while self.running:
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
        gathering.stand_apart()
        while True:
            job = self._jobs.get()
            if job is None:
                return
            self._run(job)
            self._done.put(job)
            del job  # its results, and what it was asked in shared memory, are not kept while this thread waits
            os.eventfd_write(self._wake_fd, 1)
