"""Orders and questions to the Envoy around us, by its admin socket in the pool's directory. In the event loop."""

import asyncio
from pathlib import Path

from . import envoy_config

_TIMEOUT_S = 2.0


class EnvoyAdmin:
    """`path`: the socket. Methods raise OSError or TimeoutError when Envoy does not answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def stop_listening(self) -> None:
        """Close the listening sockets, and have each connection end with its last answer."""
        await self._ask("POST", "/drain_listeners")
        await self.send_clients_away()

    async def send_clients_away(self) -> None:
        """Have each connection end with its next answer."""
        await self._ask("POST", "/healthcheck/fail")

    async def is_quiet(self) -> bool:
        """Every request has been answered, and every answer has left this process."""
        page = await self._ask("GET", "/stats")
        return all(line.endswith(": 0") for line in page.splitlines() if _counts(line))

    async def _ask(self, method: str, path: str) -> str:
        """The body of the answer. Raises OSError also for an answer that is no success."""
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            try:
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise OSError(f"{method} {path}: expected 200, got {head[:40]!r}")
                if b"transfer-encoding: chunked" in head.lower():
                    return (await _chunks(reader)).decode("utf-8", "replace")
                return (await reader.read()).decode("utf-8", "replace")
            except asyncio.IncompleteReadError as error:
                raise OSError(f"{method} {path}: the answer is cut short") from error
            finally:
                writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return body


def _counts(line: str) -> bool:
    """Whether a line of the statistics is a gauge of our listeners (the admin socket has its own)."""
    names = {
        f"http.{listener}.{gauge}"
        for listener in (envoy_config.GRPC_STATS, envoy_config.REST_STATS)
        for gauge in (envoy_config.RUNNING, envoy_config.UNSENT)
    }
    return line.partition(": ")[0] in names
