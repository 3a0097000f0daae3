"""uvicorn's HTTP/1.1, with offers to change the protocol declined as RFC 9110 has it: the request is served as it is.

A client may offer with any request to go on by another protocol. That of Java offers HTTP/2 (`Upgrade: h2c`) with the
first request of each connection, unless told otherwise. The parser ends there, and uvicorn would answer without the
body and drop what comes next. Here such a request is read once more, without the offer. In the event loop.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OF_AN_OFFER = (b"upgrade", b"http2-settings", b"connection")


class Http1Protocol(HttpToolsProtocol):
    """A connection. The parser calls `on_...` in the order of the bytes."""

    _offered = False

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        rest = memoryview(data)  # a client may make any number of offers at once: nothing is copied for one
        try:
            while rest:
                rest = self._left_of(rest)
        except httptools.HttpParserError:
            text = "Invalid HTTP request received."
            self.logger.warning(text)
            self.send_400_response(text)

    def on_headers_complete(self) -> None:
        self._offered = self.parser.should_upgrade()
        if not self._offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offered:
            super().on_message_complete()

    def _left_of(self, data: memoryview) -> memoryview:
        """What the parser has not taken: what comes after an offer, now declined. Raises HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline()
            return data[upgrade.args[0] :]
        return data[:0]

    def _decline(self) -> None:
        """Read the head once more. Raises HttpParserError."""
        method = self.parser.get_method()
        if method == b"CONNECT":  # not an offer: whatever follows is of another protocol
            raise httptools.HttpParserError("no tunnels")
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in _OF_AN_OFFER]
        if not self.parser.should_keep_alive():
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join((*lines, b"", b"")))
