"""Log lines as `message key=value key=value`, the same in every process, on standard error."""

import logging
import sys
from typing import Any


def fields(**values: Any) -> str:
    """`key=value` pairs in the given order; values with blanks are quoted."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in values.items())


def _quoted(text: str) -> str:
    return repr(text) if not text or any(char.isspace() for char in text) else text


def configure(process: str, level: str = "INFO") -> None:
    """Send this process's log to standard error; `process` says who speaks."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format=f"%(asctime)s.%(msecs)03d %(levelname).1s {process.replace('%', '%%')} %(name)s: %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        force=True,
    )
