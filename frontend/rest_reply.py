"""What a REST call is answered with: status, body, headers. Pure; the texts around errors are TF Serving's.

model_servers/http_server.cc and http_rest_api_handler.cc.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from modelpool.supervisor.wire.status import Code

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain"
PROTOBUF = b"application/x-protobuf"

# http_rest_api_handler.cc, AddCORSHeaders.
_CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is HTTP's, `code` what the metrics count; `retry_after_ms`: when to ask again, 0: nothing is said."""

    status: int
    body: bytes
    content_type: bytes = JSON
    code: Code = Code.OK
    retry_after_ms: int = 0

    def headers(self, cors: bool) -> Sequence[tuple[bytes, bytes]]:
        """The reply's headers; `cors`: with those that let pages of other origins read it."""
        own: tuple[tuple[bytes, bytes], ...]
        own = ((b"content-type", self.content_type), (b"content-length", b"%d" % len(self.body)))
        if self.retry_after_ms:
            own += ((b"retry-after", b"%d" % -(-self.retry_after_ms // 1000)),)
        return (*own, *_CORS_HEADERS) if cors else own


def error(status: int, message: str, code: Code, retry_after_ms: int = 0) -> Reply:
    """An error's JSON body (json_tensor.cc MakeJsonFromStatus)."""
    text = json.dumps({"error": message}, ensure_ascii=False, indent=4)
    return Reply(status, text.encode("utf-8", "replace"), code=code, retry_after_ms=retry_after_ms)


def not_found(path: bytes) -> Reply:
    """Outside of /v1/ TF Serving's HTTP library answers for itself, in HTML."""
    shown = escape(path.decode("utf-8", "replace"))
    page = (
        "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n"
        f"<P>The requested URL {shown} was not found on this server.</P>\n</BODY></HTML>\n"
    )
    return Reply(404, page.encode(), HTML)
