"""What the client's commands share: their flags, and how they end.

Runs in the process of a command, `modelpool predict` and the like. Exit codes: 0; 1 when the server refuses, with code
and text on stderr; 2 for a wrong command line.
"""

import argparse
import sys
from collections.abc import Callable

from .blocking import Client
from .errors import CallError, InputError
from .tls import Tls

REFUSED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """With the flags that say which server."""
    made = argparse.ArgumentParser(
        prog=f"modelpool {name}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--server", default="localhost:8500", metavar="HOST:PORT", help="or unix:/path/of/socket")
    made.add_argument("--timeout_s", type=float, default=30.0, metavar="SECONDS", help="limit of the whole command")
    made.add_argument("--tls", action="store_true", help="encrypt, and trust the roots that gRPC brings")
    made.add_argument("--tls_root_certificates", metavar="FILE", help="PEM file; encrypt, and trust these roots")
    made.add_argument("--tls_key", metavar="FILE", help="PEM file of the client's own key")
    made.add_argument("--tls_certificate", metavar="FILE", help="PEM file of the client's own certificate")
    return made


def model_parser(name: str, description: str) -> argparse.ArgumentParser:
    """With a model and its version, and `--json`."""
    made = parser(name, description)
    made.add_argument("model", metavar="MODEL")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="this version and no other")
    which.add_argument("--label", help="the version with this label")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def ask(arguments: argparse.Namespace, name: str, question: Callable[[Client], str]) -> int:
    """Print what the question makes of a client; the exit code."""
    try:
        with Client(arguments.server, timeout_s=arguments.timeout_s, tls=_tls(arguments)) as client:
            text = question(client)
    except InputError as error:
        print(f"modelpool {name}: {error.message}", file=sys.stderr)
        return USAGE_EXIT_CODE
    except CallError as error:
        print(f"modelpool {name}: {error.code.name}: {error.message}", file=sys.stderr)
        return REFUSED_EXIT_CODE
    print(text, end="")
    return 0


def _tls(arguments: argparse.Namespace) -> Tls | None:
    files = (arguments.tls_root_certificates, arguments.tls_key, arguments.tls_certificate)
    return Tls(*files) if arguments.tls or any(files) else None
