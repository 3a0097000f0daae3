"""The command `modelpool reload`: replaces a server's model config by HandleReloadConfigRequest."""

import sys
from collections.abc import Sequence
from pathlib import Path

from . import command_line
from .blocking import Client


def run(argv: Sequence[str]) -> int:
    """The exit code; argparse ends the process for a wrong command line and for --help."""
    parser = command_line.parser("reload", "Replace the models of a server by those of a config file.")
    parser.add_argument("config_file", metavar="CONFIG_FILE", help="a ModelServerConfig in text format")
    # A reload answers when every new model does, which takes as long as loading takes.
    parser.set_defaults(timeout_s=600.0)
    arguments = parser.parse_args(argv)
    try:
        config = Path(arguments.config_file).read_text("utf-8")
    except (OSError, ValueError) as error:
        print(f"modelpool reload: {arguments.config_file}: {error}", file=sys.stderr)
        return command_line.USAGE_EXIT_CODE

    def question(client: Client) -> str:
        client.reload(config)
        return "the config is in force\n"

    return command_line.ask(arguments, "reload", question)
