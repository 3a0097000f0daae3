"""Files in protobuf's text format: read and parsed, with errors that say where.

Knows no message in particular. Used in the supervisor, at the start and when a polled file is read again. After TF
Serving's `model_servers/server.cc:ParseProtoTextFile`.
"""

import re
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from .wire.status import InvalidArgument, NotFound

_LOCATION = re.compile(r"^[0-9]+:[0-9]+ : ")

M = TypeVar("M", bound=Message)


class TextProtoError(InvalidArgument):
    """A text that is not the message expected."""


def read(path: str, message: M, flag: str) -> M:
    """`message` with what the file at `path` says; `flag` named it.

    Raises NotFound or InvalidArgument when it cannot be read, TextProtoError when it cannot be parsed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"--{flag}: {path}; {error.strerror}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--{flag}: cannot read '{path}': {error}") from error
    return parse(text, message, path)


def parse(text: str, message: M, path: str) -> M:
    """`message` with what `text` says; `path` is only for the error. Raises TextProtoError with line and column."""
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        where = _where(error, message.DESCRIPTOR.full_name)
        raise TextProtoError(f"Invalid protobuf file: '{path}'. {where}") from error
    return message


def _where(error: text_format.ParseError, name: str) -> str:
    """Where and what, in the words of protobuf's C++ parser, which operators' tools look for."""
    text = f"Error parsing text-format {name}: "
    if error.GetLine() is not None:
        text += f"{error.GetLine()}:{error.GetColumn()}: "
    return text + _LOCATION.sub("", str(error))
