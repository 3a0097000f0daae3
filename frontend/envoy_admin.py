"""Orders and questions to the Envoy around us, by a socket and a file in the pool's directory. In the event loop."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from . import envoy_config

# What the file says: nothing, or that all clients are to go.
STAY, GO = "0", "1"
_TIMEOUT_S = 2.0
_OF_LISTENERS = tuple(f"http.{name}." for name in envoy_config.LISTENERS)


class EnvoyAdmin:
    """`path`: the socket; `drain`: the file. Methods raise OSError or TimeoutError when Envoy does not answer."""

    def __init__(self, path: Path, drain: Path) -> None:
        self._path = path
        self._drain = drain

    async def stop_listening(self) -> None:
        """Close the listening sockets, and have each connection end: now if it is idle, else with its last answer."""
        await self._ask("POST", "/drain_listeners")
        await self.send_clients_away()
        # Envoy notices a file that is moved to where it looks, and nothing else.
        new = self._drain.with_suffix(".new")
        new.write_text(GO)
        new.replace(self._drain)

    async def send_clients_away(self) -> None:
        """Have each connection end with its next answer."""
        await self._ask("POST", "/healthcheck/fail")

    async def gauges(self) -> Mapping[str, int]:
        """Those of `envoy_config.GAUGES`, summed over our listeners (the admin socket is one more)."""
        page = await self._ask("GET", "/stats")
        sums = dict.fromkeys(envoy_config.GAUGES, 0)
        for line in page.splitlines():
            name, _, value = line.partition(": ")
            if name.startswith(_OF_LISTENERS):
                name = name.rpartition(".")[2]
            if name in sums:
                sums[name] += int(value)
        return sums

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
