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
# protobuf quotes the whole line in front of what is wrong with it; of a long text so much is kept at both ends.
_END_CHARS = 300

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
    """`message` with what `text` says; `path` is only for the error. Raises TextProtoError with line and column,
    of a text that is nested too deeply for Python without.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        where = _where(error, message.DESCRIPTOR.full_name)
        raise TextProtoError(f"Invalid protobuf file: '{path}'. {where}") from error
    except RecursionError as error:
        what = f"Error parsing text-format {message.DESCRIPTOR.full_name}: messages are nested too deeply"
        raise TextProtoError(f"Invalid protobuf file: '{path}'. {what}") from error
    return message


def _where(error: text_format.ParseError, name: str) -> str:
    """Where and what, in the words of protobuf's C++ parser, which operators' tools look for."""
    text = f"Error parsing text-format {name}: "
    if error.GetLine() is not None:
        text += f"{error.GetLine()}:{error.GetColumn()}: "
    return text + _shortened(_LOCATION.sub("", str(error)))


def _shortened(text: str) -> str:
    return text if len(text) <= 3 * _END_CHARS else f"{text[:_END_CHARS]} ... {text[-_END_CHARS:]}"
