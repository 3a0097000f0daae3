"""The command `modelpool`: `serve` runs a pool, `status` shows one. The only reader of the environment.

The commands of the client are found by name, so that no process of a pool imports the client.
"""

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

from . import (
    chaos_command,
    command_line,
    config,
    crashes_command,
    plan_command,
    pool_config,
    ports,
    profile_command,
    restart_command,
    runtime_dir,
    status_command,
    warmup_command,
)
from .command_options import UsageError
from .devices import DeviceError, Inventory
from .flags import Flags
from .model_config import ModelConfig
from .nvml import RealNvml
from .pool import Pool
from .pool_config import PoolFile
from .service_manager import ServiceSocket
from .wire import log as wire_log
from .wire.log import fields
from .wire.status import PoolError

log = logging.getLogger(__name__)

USAGE_EXIT_CODE = 2
# TF Serving ends with -1 when the start fails.
START_FAILED_EXIT_CODE = 255

_USAGE = """\
usage: modelpool serve [flags]     serve SavedModels; `modelpool serve --help` lists the flags
       modelpool status [--json]   show a running pool
       modelpool plan CONFIG       show where everything would go, and what does not fit
       modelpool warmup record     write a model's warmup file from live traffic
       modelpool profile MODEL     trace a model's worker, for TensorBoard
       modelpool chaos             hurt a model on purpose, and measure the others
       modelpool crashes           list the deaths of workers, or show one
       modelpool restart MODEL     start a model's workers afresh
       modelpool predict MODEL     ask a model of any server, and print its outputs
       modelpool metadata MODEL    print what a model takes and gives
       modelpool reload FILE       replace a server's models by those of a config file
       modelpool version           print the versions
"""


def main() -> None:
    """Run the command of this process, and end with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command; the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "serve": serve,
        "status": partial(_ask_pool, "status", status_command.run),
        "warmup": partial(_ask_pool, "warmup", warmup_command.run),
        "profile": partial(_ask_pool, "profile", profile_command.run),
        "chaos": partial(_ask_pool, "chaos", _chaos),
        "plan": _plan,
        "crashes": partial(_ask_pool, "crashes", _crashes),
        "restart": partial(_ask_pool, "restart", restart_command.run),
        "predict": partial(_ask_server, "predict"),
        "metadata": partial(_ask_server, "metadata"),
        "reload": partial(_ask_server, "reload"),
        "version": version,
    }
    if not argv or argv[0] in {"--help", "-h", "help"}:
        print(_USAGE, end="")
        return 0 if argv else USAGE_EXIT_CODE
    if argv[0] == "--version":
        return version(())
    if argv[0].startswith("-"):
        # The flags of tensorflow_model_server work without a command, as in its Docker image.
        return serve(argv)
    command = commands.get(argv[0])
    if command is None:
        expected = ", ".join(sorted(commands))
        print(f"modelpool: unknown command {argv[0]!r}: expected one of {expected}\n{_USAGE}", end="", file=sys.stderr)
        return USAGE_EXIT_CODE
    return command(argv[1:])


def version(_: Sequence[str]) -> int:
    """The two lines of `tensorflow_model_server --version` (model_servers/main.cc), with our version in the first."""
    print(f"TensorFlow ModelServer: modelpool {metadata.version('modelpool')}")
    print(f"TensorFlow Library: {metadata.version('tensorflow')}")
    return 0


def _ask_pool(name: str, command: Callable[[Sequence[str], Path], int], argv: Sequence[str]) -> int:
    """Run a command that asks a running pool."""
    try:
        return command(argv, runtime_dir.base_dir(os.environ.get("XDG_RUNTIME_DIR")))
    except UsageError as error:
        print(f"modelpool {name}: {error.message}", file=sys.stderr)
        return USAGE_EXIT_CODE


def _crashes(argv: Sequence[str], base: Path) -> int:
    return crashes_command.run(argv, base, runtime_dir.default_crash_dir(_default_cache_dir()))


def _chaos(argv: Sequence[str], base: Path) -> int:
    """It asks the pool and, by the client, its models."""
    probes = importlib.import_module("modelpool.frontend.client.probes")
    return chaos_command.run(argv, base, probes.Probes)


def _plan(argv: Sequence[str]) -> int:
    try:
        base = runtime_dir.base_dir(os.environ.get("XDG_RUNTIME_DIR"))
        return plan_command.run(argv, RealNvml(), _default_cache_dir(), base)
    except UsageError as error:
        print(f"modelpool plan: {error.message}", file=sys.stderr)
        return USAGE_EXIT_CODE


def _default_cache_dir() -> Path:
    return runtime_dir.default_cache_dir(os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~"))


def _ask_server(name: str, argv: Sequence[str]) -> int:
    """Run a command of the client, which asks any server over gRPC."""
    command: Callable[[Sequence[str]], int] = importlib.import_module(f"modelpool.frontend.client.{name}_command").run
    return command(argv)


def serve(argv: Sequence[str]) -> int:
    """Run a pool until a signal. 0 after an orderly end, 2 for a wrong command line, 255 when the start fails."""
    try:
        given = command_line.parse(argv)
        inert = command_line.inert_flags(argv)
    except UsageError as error:
        print(f"modelpool serve: {error.message}\n`modelpool serve --help` lists the flags.", file=sys.stderr)
        return USAGE_EXIT_CODE
    if given.help:
        print(command_line.usage(), end="")
        return 0
    if given.version:
        return version(())
    wire_log.configure("supervisor", given.log_level)
    for flag in inert:
        log.warning("flag accepted without effect %s", fields(flag=flag.name, why=flag.reason))
    if given.rest_api_port and given.rest_api_port == given.port:
        log.error("REST not served: its port is gRPC's %s", fields(rest_api_port=given.rest_api_port, port=given.port))
    try:
        return _serve(given)
    except PoolError as error:
        # Both, as in TF Serving, whose operators' tools look for either.
        log.error("start failed %s", fields(error=error.status))
        print(f"Failed to start server. Error: {error.status.code.name}: {error.message}", flush=True)
        return START_FAILED_EXIT_CODE


def _serve(given: Flags) -> int:
    base = runtime_dir.base_dir(os.environ.get("XDG_RUNTIME_DIR"))
    path = Path(given.runtime_dir) if given.runtime_dir else None
    settings = config.from_flags(
        given,
        path.absolute() if path else runtime_dir.default_path(base, given.port, given.rest_api_port),
        _default_cache_dir(),
        len(os.sched_getaffinity(0)),
    )
    settings = replace(settings, service=ServiceSocket.from_environment(os.environ, os.getpid()))
    models = settings.read_models()
    pool_file = pool_config.read(settings.pool_config_file)
    reservation = ports.reserve(settings.grpc_port, settings.rest_port, settings.grpc_socket_path)
    try:
        directory = runtime_dir.RuntimeDir(settings.runtime_dir)
        try:
            asyncio.run(_run_pool(settings, models, pool_file))
        finally:
            directory.remove()
    finally:
        reservation.close()
    return 0


async def _run_pool(settings: config.PoolConfig, models: Sequence[ModelConfig], pool_file: PoolFile) -> None:
    nvml = RealNvml()
    await Pool(settings, models, pool_file, nvml, _inventory(nvml)).run()


def _inventory(nvml: RealNvml) -> Inventory:
    try:
        found = Inventory.of(nvml.look())
    except DeviceError as error:
        log.error("GPUs not used %s", fields(why=error.message))
        return Inventory()
    log.info("devices %s", fields(devices=",".join(device.id for device in found.devices)))
    for id_, why in found.silent.items():
        log.error("GPU cannot be used %s", fields(device=id_, why=why))
    return found
