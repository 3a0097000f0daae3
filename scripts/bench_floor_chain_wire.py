"""What travels between the two ends of the barest chain, each message in one frame: a number, then the payload.

A request's payload is its body as it came, an answer's the body that is to be sent.
"""

import struct

NUMBER = struct.Struct("<Q")
# By PUSH and PULL, which have no more to do for a message than to queue it: no identity goes with it.
REQUESTS, ANSWERS = "requests", "answers"
# The file with the body of each answer, in the folder in which the sockets are.
BODY = "body"


def endpoint(folder: str, name: str) -> str:
    return f"ipc://{folder}/{name}"
