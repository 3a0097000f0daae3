"""The command `modelpool chaos`: hurts one model of a running pool while it asks all of them from outside.

It asks for the harm at the pool's control socket, and the models by gRPC like any client, through the `Probes` seam:
the client's code is not the supervisor's to import. Prints the blast radius; exit code 1 when a model that was not
hurt has answered an error.
"""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from . import chaos_report, runtime_dir
from .chaos_report import Hurt, Report, Seen
from .control_client import ControlClient
from .wire.client_messages import HurtModel, HurtReply, StatusReply, StatusRequest
from .wire.states import Harm
from .wire.status import Code, FailedPrecondition, NotFound, PoolError, Status, StatusError

HARMED_EXIT_CODE = 1
_POLL_S = 0.02
_POISON_WITHIN_S = 30.0
# The order goes to a worker's control thread, by another way than requests, which may overtake it.
_TAKEN_WITHIN_S = 5.0
# A size that no other request of the model has, or hardly ever.
_POISON_BYTES = range(2_000, 60_000)


class Window(Protocol):
    """What a model's clients saw in a stretch of time."""

    @property
    def calls(self) -> int: ...
    @property
    def errors(self) -> Mapping[str, int]: ...
    @property
    def p50_s(self) -> float: ...
    @property
    def p99_s(self) -> float: ...


class Probes(Protocol):
    """`modelpool.frontend.client.probes.Probes`."""

    def add(self, model: str) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def padded(self, model: str, size_bytes: int) -> bytes: ...
    def refusal(self, request: bytes, timeout_s: float) -> tuple[str, str]: ...
    def window(self, model: str, from_s: float, to_s: float) -> Window: ...
    def texts(self, model: str, from_s: float) -> list[str]: ...


Connect = Callable[[str, int, str | None], Probes]
"""Probes of a target, with so many clients per model, and a file of root certificates where it speaks TLS."""


def run(argv: Sequence[str], base: Path, connect: Connect) -> int:
    """Hurt, measure and print; the exit code. argparse ends the process for a wrong command line."""
    arguments = _parser().parse_args(argv)
    harm, model = next((each, name) for each in Harm if (name := getattr(arguments, each, None)))
    try:
        with ControlClient(runtime_dir.find_pool(base, arguments.runtime_dir, arguments.port)) as control:
            victim = _Victim(control, model, harm)
            victim.require_chaos()
            document = victim.status()["supervisor"]
            probes = connect(_target(document), arguments.clients, arguments.tls_root_certificates)
            report = _measure(victim, probes, arguments)
    except PoolError as error:
        print(f"modelpool chaos: {error.message}", file=sys.stderr)
        return HARMED_EXIT_CODE
    print(json.dumps(asdict(report), indent=1) if arguments.json else chaos_report.render(report))
    return HARMED_EXIT_CODE if report.others_harmed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelpool chaos",
        description="Hurt one model of a running pool on purpose, and measure what all models' clients see of it. "
        "The pool must have been started with --allow_chaos.",
        allow_abbrev=False,
    )
    harms = parser.add_mutually_exclusive_group(required=True)
    harms.add_argument("--kill", metavar="MODEL", help="SIGKILL its worker, again and again")
    harms.add_argument("--stop", metavar="MODEL", help="SIGSTOP its worker, once: it hangs")
    harms.add_argument("--oom", metavar="MODEL", help="its worker takes memory until it is at its limit, once")
    harms.add_argument("--leak", metavar="MODEL", help="its worker leaks --leak_mb_per_s until it is replaced, once")
    harms.add_argument("--poison", metavar="MODEL", help="send a request of which each of its workers dies")
    parser.add_argument("--duration_s", type=_positive, default=30.0, help="for how long it is hurt (30)")
    parser.add_argument("--every_s", type=_positive, default=3.0, help="least time between two kills (3)")
    parser.add_argument("--baseline_s", type=_positive, default=5.0, help="for how long it is measured before (5)")
    parser.add_argument("--recover_s", type=_positive, default=60.0, help="longest wait for it to come back (60)")
    parser.add_argument("--leak_mb_per_s", type=int, default=20, help="of --leak (20)")
    parser.add_argument("--clients", type=int, default=2, help="closed loops of calls per model (2)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--port", type=int, help="of the pool")
    parser.add_argument("--runtime_dir", default="", metavar="FOLDER", help="of the pool")
    parser.add_argument("--tls_root_certificates", metavar="FILE", help="PEM file; the pool speaks TLS")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _target(supervisor: Mapping[str, Any]) -> str:
    """Where the pool's gRPC is. Raises FailedPrecondition when it has none."""
    if supervisor["grpc_port"]:
        return f"localhost:{supervisor['grpc_port']}"
    if supervisor["grpc_socket_path"]:
        return f"unix:{supervisor['grpc_socket_path']}"
    raise FailedPrecondition("the pool serves no gRPC (--port=0 without --grpc_socket_path): nothing can be measured")


def _measure(victim: "_Victim", probes: Probes, arguments: argparse.Namespace) -> Report:
    """The whole run: ask everybody, then hurt, then let the last death be recovered from."""
    names = [model["name"] for model in victim.status()["models"]]
    unprobed = {name: reason for name in names if (reason := probes.add(name))}
    if len(unprobed) == len(names):
        raise FailedPrecondition(f"no model can be asked, so nobody is hurt: {unprobed[victim.model]}")
    report = Report(victim.model, victim.harm.value, arguments.clients, unprobed=unprobed)
    if victim.harm is Harm.POISON and victim.model in unprobed:
        raise FailedPrecondition(f"no poison can be made for {victim.model}: {unprobed[victim.model]}")
    restarts = victim.restarts()
    probes.start()
    began_s = time.monotonic()
    try:
        time.sleep(arguments.baseline_s)
        hurt_s = time.monotonic()
        if victim.harm is Harm.POISON:
            report.poison = victim.poison(probes)
            time.sleep(max(0.0, arguments.duration_s - (time.monotonic() - hurt_s)))
        else:
            report.hurts = victim.hurt_again_and_again(arguments)
        ended_s = time.monotonic()
    finally:
        probes.stop()
    report.restarts = victim.restarts() - restarts
    for name in names:
        if name not in unprobed:
            before, during = probes.window(name, began_s, hurt_s), probes.window(name, hurt_s, ended_s)
            report.models.append(
                chaos_report.of_model(
                    name, name == victim.model, _seen(before), _seen(during), probes.texts(name, hurt_s)
                )
            )
    return report


def _seen(window: Window) -> Seen:
    return Seen(window.calls, dict(window.errors), window.p50_s * 1e3, window.p99_s * 1e3)


@dataclass(slots=True)
class _Victim:
    """The model that is hurt, by way of the pool's control socket."""

    control: ControlClient
    model: str
    harm: Harm
    _began_s: float = field(default_factory=time.monotonic)

    def status(self) -> Any:
        """The status document."""
        return json.loads(self.control.ask(StatusRequest, StatusReply).body)

    def require_chaos(self) -> None:
        """Raises FailedPrecondition for a pool that does not allow it, NotFound when it has no such model."""
        status = self.status()
        if not status["supervisor"].get("allow_chaos"):
            raise FailedPrecondition("this pool was not started with --allow_chaos: nobody in it is hurt")
        names = [model["name"] for model in status["models"]]
        if self.model not in names:
            raise NotFound(f"no model {self.model}: expected one of {', '.join(names)}")

    def hurt_again_and_again(self, arguments: argparse.Namespace) -> list[Hurt]:
        """Until the time is over; each time only when it is back. A model that does not come back ends it."""
        ends_s = time.monotonic() + arguments.duration_s
        hurts: list[Hurt] = []
        while time.monotonic() < ends_s:
            next_s = time.monotonic() + arguments.every_s
            hurts.append(self._hurt_once(arguments.recover_s, arguments.leak_mb_per_s))
            if hurts[-1].available_after_s is None:
                break
            if self.harm is not Harm.KILL:
                next_s = ends_s
            time.sleep(max(0.0, min(next_s, ends_s) - time.monotonic()))
        return hurts

    def poison(self, probes: Probes) -> dict[str, str]:
        """Send one request of which workers die, and say how it was answered. Again while no worker has the order."""
        size_bytes = secrets.choice(_POISON_BYTES)
        request = probes.padded(self.model, size_bytes)
        self._order(Harm.POISON, size_bytes)
        try:
            until_s = time.monotonic() + _TAKEN_WITHIN_S
            code, text = probes.refusal(request, _POISON_WITHIN_S)
            while code == Code.OK.name and time.monotonic() < until_s:
                code, text = probes.refusal(request, _POISON_WITHIN_S)
        finally:
            self._order(Harm.CURE, 0)
        return {"code": code, "message": text}

    def restarts(self) -> int:
        return sum(worker["restarts"] for worker in self._workers())

    def _hurt_once(self, recover_s: float, leak_mb_per_s: int) -> Hurt:
        hurt_s = time.monotonic()
        hurt = self._order(self.harm, leak_mb_per_s if self.harm is Harm.LEAK else 0).incarnation
        while time.monotonic() - hurt_s < recover_s:
            workers = self._workers()
            fresh = [worker for worker in workers if (worker["incarnation"] or 0) > hurt]
            if fresh and all(worker["state"] == "ready" and worker["incarnation"] != hurt for worker in workers):
                took_s = time.monotonic() - hurt_s
                return Hurt(hurt_s - self._began_s, took_s, fresh[0]["load_s"], fresh[0]["warmup_s"])
            time.sleep(_POLL_S)
        return Hurt(hurt_s - self._began_s, None, None, None)

    def _order(self, harm: Harm, amount: int) -> HurtReply:
        reply = self.control.ask(partial(_order, model=self.model, harm=harm, amount=amount), HurtReply)
        if reply.code is not Code.OK:
            raise StatusError(Status(reply.code, reply.message))
        return reply

    def _workers(self) -> list[Any]:
        """Of the newest version that has any."""
        model = next(model for model in self.status()["models"] if model["name"] == self.model)
        return next((version["workers"] for version in model["versions"] if version["workers"]), [])


def _order(token: int, *, model: str, harm: Harm, amount: int) -> HurtModel:
    return HurtModel(token, model, None, harm, amount)
