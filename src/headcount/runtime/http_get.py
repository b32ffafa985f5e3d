"""A GET request to one of our own servers, with nothing that a supervisor would have to import for it."""

from __future__ import annotations

import asyncio
import contextlib
from ssl import SSLContext

from headcount.settings.formats import joined

#: Bytes of an answer that are read.
MAX_BYTES = 64 << 10


async def get(
    host: str, port: int, path: str, *, tls: SSLContext | None = None, within_s: float = 2.0
) -> tuple[int, str]:
    """Status and body of a path.

    Raises:
        OSError, TimeoutError: there is no answer, or one that is not HTTP.
    """
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {joined((host, port))}\r\n\r\n".encode())
            content = await reader.read(MAX_BYTES)
            while len(content) < MAX_BYTES and (more := await reader.read(MAX_BYTES - len(content))):
                content += more
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head, _, body = content.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ConnectionResetError(f"{host}:{port} does not speak HTTP")
    return int(words[1]), body.decode(errors="replace")
