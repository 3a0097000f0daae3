"""The frontend inside of Envoy: imported by pyvoy in Envoy's main thread, once, before Envoy listens.

It starts the core's thread, in which a `Session` runs as in any frontend, and holds Envoy's main thread in this import
until the session wants the ports: Envoy binds them right after it. `grpc` and `rest` are the applications that Envoy's
configuration names. The process ends when the session does.
"""

import asyncio
import logging
import os
import threading

import uvloop

from modelpool.supervisor.wire import sockets
from modelpool.supervisor.wire.frontend_spec import FrontendSpec
from modelpool.supervisor.wire.log import configure

from .engine import AsgiApp
from .envoy import SPEC_FD
from .envoy_admin import EnvoyAdmin
from .envoy_engine import EnvoyEngine, Gate
from .envoy_loop import GuestPolicy
from .frontend_spec import read_spec
from .session import Session

log = logging.getLogger(__name__)

_STDIN_FD = 0


def _run(spec: FrontendSpec, gate: Gate) -> None:
    """The core's thread: the whole life of the frontend."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(spec, gate))
    except Exception:
        log.exception("frontend failed")
    finally:
        os._exit(1)


async def _serve(spec: FrontendSpec, gate: Gate) -> None:
    code = await Session(spec, _STDIN_FD, gate.make_engine).run()
    os._exit(code)  # Envoy's threads, and calls that have not ended in time, go with the process


def _start() -> tuple[AsgiApp, AsgiApp]:
    """Read the spec, start the core's thread, and wait until the ports are wanted."""
    spec = read_spec(SPEC_FD)
    os.close(SPEC_FD)
    configure(f"frontend:{spec.incarnation}", spec.log_level)
    folder = sockets.folder(spec.control_endpoint)
    sockets.envoy_config(folder, spec.incarnation).unlink(missing_ok=True)
    admin = EnvoyAdmin(sockets.envoy_admin(folder, spec.incarnation), sockets.envoy_drain(folder, spec.incarnation))
    gate = Gate(admin)
    threading.Thread(target=_run, args=(spec, gate), name="core", daemon=True).start()
    engine: EnvoyEngine = gate.wait()
    asyncio.set_event_loop_policy(GuestPolicy(engine.loop))
    return engine.grpc, engine.rest


grpc, rest = _start()
