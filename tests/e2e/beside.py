"""Work beside a test, in threads: clients that ask without pause, and looks at what happens meanwhile."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beside(*work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Each of `work` runs in a thread of its own while the block does, and returns soon after its event is set."""
    stop = threading.Event()
    threads = [threading.Thread(target=each, args=(stop,)) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
