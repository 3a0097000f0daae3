"""Traces this worker with TensorFlow's profiler when the supervisor orders it, while requests go on.

One trace at a time, each in a thread of its own; the control thread starts and ends them. Files appear whole: they are
written beside their place and renamed. Knows neither sockets nor TensorFlow.
TF Serving: TensorFlow's profiler/rpc/profiler_service_impl.cc and client/save_profile.cc, SaveXSpace.
"""

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import (
    OK,
    Code,
    FailedPrecondition,
    PoolError,
    Status,
    StatusError,
    truncated,
)
from modelpool.supervisor.wire.worker_messages import Profile, Profiled

log = logging.getLogger(__name__)


class RunningTrace(Protocol):
    """`trace.Trace`."""

    def finish(self) -> Path: ...


class Profiler:
    """`begin` starts a trace that writes below a directory; `is_empty` says so of a finished one."""

    def __init__(
        self,
        say: Callable[[Profiled], None],
        begin: Callable[[str], RunningTrace],
        is_empty: Callable[[Path], bool],
    ) -> None:
        self._say = say
        self._begin = begin
        self._is_empty = is_empty
        self._thread: threading.Thread | None = None
        self._session = ""
        self._over = threading.Event()

    def start(self, order: Profile) -> None:
        """Start tracing, or say why not. The control thread."""
        if self._thread is not None and self._thread.is_alive():
            busy = FailedPrecondition("A profile of this worker is being taken already")
            self._answer(order, busy.status)
            return
        self._session = order.session
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(order, self._over), name="profiler", daemon=True)
        self._thread.start()

    def end(self, session: str) -> None:
        """End the trace of this session now, if it runs. The control thread."""
        if session == self._session:
            self._over.set()

    def close(self, timeout_s: float) -> None:
        """End what runs, and let it be written within the time."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, order: Profile, over: threading.Event) -> None:
        log.info("profile started %s", fields(session=order.session, duration_s=order.duration_s))
        try:
            file, empty = self._trace(order, over)
        except PoolError as error:
            self._answer(order, error.status)
        except Exception as error:  # the root of this thread
            log.exception("profile failed %s", fields(session=order.session))
            self._answer(order, Status(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            self._answer(order, OK, str(file), empty)

    def _trace(self, order: Profile, over: threading.Event) -> tuple[Path, bool]:
        file = Path(order.root, order.session, f"{order.host}.xplane.pb")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = tempfile.mkdtemp(prefix=".unfinished-", dir=order.root)
            try:
                trace = self._begin(unfinished)
                over.wait(order.duration_s)
                traced = trace.finish()
                empty = self._is_empty(traced)
                traced.replace(file)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise StatusError(Status(Code.INTERNAL, f"cannot write the profile: {error}")) from error
        return file, empty

    def _answer(self, order: Profile, status: Status, file: str = "", empty: bool = False) -> None:
        log.info("profile ended %s", fields(session=order.session, file=file, status=status))
        self._say(Profiled(order.token, status.code, truncated(status.message), file, empty))
