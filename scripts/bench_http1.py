"""One HTTP/1.1 connection of the load generator, without I/O: posts one body, again and again, one at a time.

The same shape as `bench_http2.Http2`: bytes in, finished requests out. The answer is the body of a 200; it must have a
Content-Length, as TF Serving's and ours have.
"""

import re
from collections import deque

from bench_http2 import Finished, ProtocolError

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


class Http1:
    """One connection with at most one request. `out` holds what must be sent, in order."""

    max_streams = 1

    def __init__(self, authority: str, path: str, body: bytes) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
        self._asked = 0
        self._got: list[bytes] = []
        self._got_bytes = 0
        self._wanted_bytes = 0  # head and body; 0: the head is not complete yet
        self.out: deque[bytes | memoryview] = deque()
        self.open = 0

    def ask(self) -> int:
        """Begin a request; its number. There must be none."""
        self._asked += 1
        self.open = 1
        self.out.append(self._request)
        return self._asked

    def receive(self, data: bytes) -> list[Finished]:
        """Take what came from the server. Raises ProtocolError."""
        self._got.append(data)
        self._got_bytes += len(data)
        if not self._wanted_bytes:
            self._got = [b"".join(self._got)]
            self._wanted_bytes = self._find_length(self._got[0])
        if not self._wanted_bytes or self._got_bytes < self._wanted_bytes:
            return []
        answer = b"".join(self._got)
        if not self.open or self._got_bytes > self._wanted_bytes:
            raise ProtocolError("the server sent more than one answer to one request")
        self._got, self._got_bytes, self._wanted_bytes, self.open = [], 0, 0, 0
        ok = answer.startswith(b"HTTP/1.1 200 ")
        return [(self._asked, answer[answer.index(_HEAD_END) + len(_HEAD_END) :] if ok else None)]

    def _find_length(self, start: bytes) -> int:
        """How long the answer is with its head; 0 when the head is not complete."""
        end = start.find(_HEAD_END)
        if end < 0:
            if len(start) > _MAX_HEAD:
                raise ProtocolError("the head of the answer does not end")
            return 0
        found = _LENGTH.search(start, 0, end)
        if found is None:
            raise ProtocolError(f"an answer without Content-Length: {start[:200]!r}")
        return end + len(_HEAD_END) + int(found[1])
