"""The configuration in force and where it comes from: files, their polls, reload requests, and each model's source.

Runs in the supervisor's event loop; looks at files in threads, so that a file system that hangs stops nobody else.
Tells the manager what is wanted and knows nothing of processes.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from . import labels, looks, pool_config, reload
from .config import PoolConfig
from .daemon_thread import call_in_thread
from .io_status import describe
from .looks import Patience
from .manager import Manager
from .model import ModelSettings
from .model_config import ModelConfig
from .model_policy import ModelPolicy
from .placement import DevicePolicy
from .polled_file import PolledFile
from .pool_config import PoolFile
from .reload import Settled
from .source import Poll, Source, SourceOptions
from .wire.log import fields
from .wire.status import OK, Code, PoolError, Status, Unavailable, truncated
from .wire.worker_spec import RequestLog

log = logging.getLogger(__name__)

# How soon to look again at a version that is still being copied.
_COPYING_POLL_S = 0.5
# How long the start waits for the first version of a model to be copied, or for a base path to answer at all. It is
# taken when it is whole, also after that.
_FIRST_VERSION_S = 60.0
_MIB = 1 << 20

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seams:
    """What the configuration needs of the pool: `advance` after each change, `background` for a task of the pool,
    `until` to wait for a condition for at most so many seconds.
    """

    advance: Callable[[], None]
    background: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
    until: Callable[[Callable[[], bool], float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Watch:
    """A source that is looked at: the base path and the cache that it was made for, and who looks."""

    place: tuple[str, str]
    source: Source
    task: "asyncio.Task[None]"
    changed: asyncio.Event


class Configuration:
    """The models in force with their policies, kept up to date."""

    def __init__(
        self, config: PoolConfig, models: Sequence[ModelConfig], pool_file: PoolFile, manager: Manager, seams: Seams
    ) -> None:
        self._config = config
        self._models = tuple(models)
        self._pool_file = pool_file
        self._models_file = PolledFile(config.models_text, config.parse_models)
        self._pool_settings = PolledFile(partial(pool_config.text_of, config.pool_config_file), pool_config.parse)
        self._manager = manager
        self._seams = seams
        self._sources: dict[str, _Watch] = {}
        self._reloading = asyncio.Lock()
        self._stopped = False
        self.errors: dict[str, Status] = {}
        """What is wrong with a file that was changed since, by flag; the last good one is in force."""

    def start(self) -> None:
        """Take the start configuration over. Labels may name versions that are yet to be loaded."""
        self._apply(self._models, self._pool_file)
        if self._config.model_config_poll_s > 0:
            self._seams.background(self._poll_files(), "configuration files")

    def stop(self) -> None:
        """Take nothing over any more."""
        self._stopped = True
        for watch in self._sources.values():
            watch.task.cancel()

    def policy(self, model: str) -> ModelPolicy:
        return self._pool_file.policy(model)

    def request_log(self, name: str) -> RequestLog | None:
        """How the requests of a model are to be logged; not at all once it is not configured any more."""
        logging_config = next((model.logging for model in self._models if model.name == name), None)
        if logging_config is None:
            return None
        policy = self.policy(name)
        return RequestLog(
            logging_config.sampling_rate,
            logging_config.filename_prefix,
            max_file_bytes=int(policy.request_log_max_file_mb * _MIB),
            max_files=policy.request_log_max_files,
        )

    async def reload(self, request: bytes) -> Status:
        """HandleReloadConfigRequest: take the models of a serialized ReloadConfigRequest over; how that ended.

        Waits for the newly named models, each until it answers or its first attempt has failed, and not without end.
        """
        async with self._reloading:
            try:
                wanted = reload.parse_reload(request, self._models)
                self._check_labels(wanted)
                new = reload.newly_named(self._models, wanted)
                log.info("reload requested %s", fields(models=len(wanted), new=len(new)))
                self._apply(wanted, self._pool_file)
            except PoolError as error:
                return error.status
            timeout_s = self._config.reload_timeout_s
            await self._seams.until(lambda: all(self._outcome(name) is not None for name in new), timeout_s)
            return reload.outcome({name: self._settled(name, timeout_s) for name in new})

    # -- taking over -----------------------------------------------------------------------------------------

    def _apply(self, models: Sequence[ModelConfig], pool_file: PoolFile) -> None:
        if self._stopped:
            raise Unavailable("The server is shutting down")
        self._models, self._pool_file = tuple(models), pool_file
        self._manager.configure({model.name: self._settings(model) for model in models})
        for name in set(self._sources) - {model.name for model in models}:
            self._leave(name, self._sources.pop(name))
        for model in models:
            self._watch(model)
        self._seams.advance()

    def _watch(self, model: ModelConfig) -> None:
        """Have the model's source looked at. The same place keeps its source, which knows what was complete before."""
        options = self._source_options(model.name)
        place = (model.base_path, options.cache_dir)
        watch = self._sources.get(model.name)
        if watch is not None and watch.place == place:
            watch.source.reconfigure(model, options)
            watch.changed.set()
            if not watch.task.done():
                return
            source = watch.source
        else:
            if watch is not None:
                self._leave(model.name, watch)
            source = Source(model, options)
        changed = asyncio.Event()
        task = self._seams.background(self._poll_source(source, model.name, changed), f"source {model.name}")
        self._sources[model.name] = _Watch(place, source, task, changed)

    def _leave(self, name: str, watch: _Watch) -> None:
        """The model is gone, or lies elsewhere. Its local copies go with the last worker that was started from them."""
        watch.task.cancel()
        if watch.source.copies:
            self._seams.background(self._empty_cache(name, watch.source), f"cache {name}")

    async def _empty_cache(self, name: str, source: Source) -> None:
        """Once nothing runs from it. Where the model came back, another source has it, and this one lets go of it."""
        folder = source.copies

        def is_looked_at() -> bool:
            return any(watch.source.copies == folder for watch in self._sources.values())

        def is_needed() -> bool:
            model = self._manager.models.get(name)
            return model is not None and any(path.startswith(f"{folder}/") for path in model.needed_paths())

        await self._seams.until(lambda: is_looked_at() or not is_needed(), math.inf)
        if not is_looked_at():
            await looks.empty(source)

    def _settings(self, model: ModelConfig) -> ModelSettings:
        policy = self._pool_file.policy(model.name)
        return ModelSettings(
            dict(model.labels),
            policy.transition_policy,
            policy.rollback,
            policy.required,
            device_policy(policy),
            policy.request_rules(),
            max_restarts=policy.max_restarts,
            restart_period_s=policy.restart_period_s,
            run_timeout_s=policy.run_timeout_s,
            of_loads=policy.of_loads(),
        )

    def _source_options(self, name: str) -> SourceOptions:
        policy = self._pool_file.policy(name)
        return SourceOptions(
            settle_s=policy.settle_s,
            complete_marker=policy.complete_marker,
            cache_dir=self._pool_file.source.cache_dir or str(self._config.default_cache_dir),
            fail_if_zero_versions_at_startup=policy.fail_if_zero_versions_at_startup,
            servable_versions_always_present=policy.servable_versions_always_present,
        )

    def _check_labels(self, wanted: Sequence[ModelConfig]) -> None:
        """Raises FailedPrecondition when a label may not point where it does."""
        available = {name: model.available_versions(self._acked()) for name, model in self._manager.models.items()}
        labels.check(
            _labels(self._models), _labels(wanted), available, self._config.allow_labels_for_unavailable_versions
        )

    # -- files -----------------------------------------------------------------------------------------------

    async def _poll_files(self) -> None:
        """Re-read the files; one that cannot be taken is told in log and status, and the last good one stays."""
        while not self._stopped:
            await asyncio.sleep(self._config.model_config_poll_s)
            await self._poll_models()
            await self._poll_pool_file()

    async def _poll_models(self) -> None:
        if not self._config.model_config_file:
            return
        before = self._models
        found = await self._read("model_config_file", self._models_file.read, before)
        async with self._reloading:
            if self._stopped or found is None or self._models is not before:
                return  # or a reload came in between: the next look decides
            try:
                if found != before:
                    self._check_labels(found)
            except PoolError as error:
                self._refuse("model_config_file", error.status)
                return
            self._accept("model_config_file")
            if found != before:
                log.info("model configuration changed %s", fields(models=len(found)))
                self._apply(found, self._pool_file)

    async def _poll_pool_file(self) -> None:
        if not self._config.pool_config_file:
            return
        found = await self._read("pool_config_file", self._pool_settings.read, self._config.pool_config_file)
        async with self._reloading:
            if self._stopped or found is None:
                return
            self._accept("pool_config_file")
            if found != self._pool_file:
                log.info("pool configuration changed %s", fields(file=self._config.pool_config_file))
                self._apply(self._models, found)

    async def _read(self, flag: str, read: Callable[[A], T], argument: A) -> T | None:
        """What is in a file now; None for one that cannot be used. While it hangs, reloads go on.

        Whatever the file makes its parser do, what is served goes on.
        """
        try:
            return await call_in_thread(read, argument, name=flag)
        except PoolError as error:
            self._refuse(flag, error.status)
        except Exception as error:  # noqa: BLE001 - told as any other
            self._refuse(flag, Status(Code.INTERNAL, describe(error)))
        return None

    def _refuse(self, flag: str, status: Status) -> None:
        error = Status(status.code, truncated(status.message))
        if self.errors.get(flag) != error:
            log.error("configuration refused, the last good one stays %s", fields(flag=flag, error=error))
        self.errors[flag] = error

    def _accept(self, flag: str) -> None:
        if self.errors.pop(flag, None) is not None:
            log.info("configuration is good again %s", fields(flag=flag))

    # -- sources ---------------------------------------------------------------------------------------------

    async def _poll_source(self, source: Source, name: str, changed: asyncio.Event) -> None:
        """Look for versions of one model, again and again. `changed`: its configuration was, so look once more."""
        period_s = self._config.source_poll_s
        patience = Patience(_FIRST_VERSION_S, self._config.load_timeout_s)
        started_s = time.monotonic()
        said: tuple[str, ...] = ()
        while period_s >= 0:
            changed.clear()
            model = self._manager.models[name]
            source.watch(model.failed_versions())
            poll = await looks.look(source, model.needed_versions(), patience, partial(self._overdue, name))
            notes = (*poll.warnings, *((str(poll.error),) if poll.error is not None else ()))
            for note in notes:
                if note not in said:
                    log.warning("source %s", fields(model=name, note=note))
            said = notes
            self._manager.models[name].source_notes = poll.warnings
            self._found(name, poll, time.monotonic() - started_s)
            if period_s == 0 and not poll.incomplete and not changed.is_set():
                return
            await asyncio.sleep(min(period_s or _COPYING_POLL_S, _COPYING_POLL_S) if poll.incomplete else period_s)

    def _overdue(self, name: str, status: Status) -> None:
        log.warning("source %s", fields(model=name, note=status))
        self._manager.source_failed(name, status)
        self._seams.advance()

    def _found(self, name: str, poll: Poll, waited_s: float) -> None:
        if poll.error is not None:
            self._manager.source_failed(name, poll.error)
        elif poll.versions or not poll.incomplete:
            self._manager.aspire(name, poll.versions, poll.available, poll.fingerprints)
        elif waited_s > _FIRST_VERSION_S and not self._manager.models[name].polled:
            self._manager.source_failed(name, Status(Code.UNAVAILABLE, "; ".join(poll.warnings)))
        # else: all that is there is still on its way, and until some of it is whole, what is served stays
        self._seams.advance()

    # -- how a reload ended ----------------------------------------------------------------------------------

    def _acked(self) -> int:
        return self._manager.board.acked_epoch

    def _outcome(self, name: str) -> Status | None:
        model = self._manager.models[name]
        return model.outcome(self._acked()) if model.configured else OK

    def _settled(self, name: str, timeout_s: float) -> Settled:
        model = self._manager.models[name]
        newest = max((s.id.version for s in model.servables.values() if s.aspired), default=None)
        status = self._outcome(name)
        if status is None:
            status = reload.overdue(timeout_s)
        return Settled(None if status.code is Code.OK else newest, status)


def device_policy(policy: ModelPolicy) -> DevicePolicy:
    """What the pool's file says of a model's place."""
    return DevicePolicy(policy.devices, policy.replicas, policy.gpu_memory_mb * _MIB, policy.placement)


def _labels(models: Sequence[ModelConfig]) -> Mapping[str, Mapping[str, int]]:
    return {model.name: model.labels for model in models}
