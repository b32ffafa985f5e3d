"""HAProxy's runtime API over its Unix socket: states of servers, and changes.

Each command uses its own connection, which HAProxy closes after the response. Responses are texts, so anything
but a known success is an error.
"""

from __future__ import annotations

import asyncio
import csv
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headcount.errors import ProxyError
from headcount.proxy.proxy_config import BANNED_FILE, SOCKET_FILE

_TIMEOUT_S = 5.0
#: Maximum size of a response: the states of 20 000 servers.
_MAX_BYTES = 8 << 20
#: sun_path has 108 bytes, including the terminating zero (unix(7)).
_MAX_PATH_BYTES = 107
#: A line of `show sess`: session, address (IPv6 without brackets) and frontend.
_SESSION = re.compile(r"(0x[0-9a-f]+): proto=tcpv[46] src=(\S+):\d+ fe=(\S+)")
#: 200 000 sessions of some 300 bytes each.
_MAX_SESSIONS_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class HaproxyServerStatus:
    """The state of a server: `UP`, `DOWN`, `MAINT`, `DRAIN` or `no check`; its open sessions and weight."""

    status: str
    sessions: int
    weight: int

    @property
    def down(self) -> bool:
        """Whether its health checks fail; `UP 1/2` is not down yet."""
        return self.status.startswith("DOWN")


#: Backend → server → status.
ServerStatuses = dict[str, dict[str, HaproxyServerStatus]]


class HaproxyRuntime:
    """The runtime API of the HAProxy in `folder`.

    Every call raises ProxyError if HAProxy does not answer, or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def statuses(self) -> ServerStatuses:
        """The state of all servers by backend."""
        text = await self.query("show stat -1 4 -1")
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        standing: ServerStatuses = {}
        for row in rows:
            status = HaproxyServerStatus(row["status"], int(row["scur"] or 0), int(row["weight"] or 0))
            standing.setdefault(row["pxname"], {})[row["svname"]] = status
        return standing

    async def pid(self) -> int:
        """The id of the process that answers."""
        lines = (await self.query("show info")).splitlines()
        return int(next((line.split(":")[1] for line in lines if line.startswith("Pid:")), "0"))

    async def servers_state(self) -> str:
        """The content of a server state file, for a reload."""
        return await self.query("show servers state")

    async def banned(self) -> frozenset[str]:
        """The addresses that HAProxy refuses now."""
        lines = (await self.query(f"show acl {BANNED_FILE}")).splitlines()
        return frozenset(line.split()[1] for line in lines if line.startswith("0x"))

    async def sessions_of(self, addresses: Collection[str]) -> list[str]:
        """The ids of the open sessions of these addresses."""
        found = _SESSION.findall(await self.query("show sess", max_bytes=_MAX_SESSIONS_BYTES))
        return [session for session, address, _ in found if address.removeprefix("::ffff:") in addresses]

    async def execute(self, command: str) -> None:
        """Execute a command that changes something."""
        response = (await self.query(command)).strip()
        if response and response not in {"New server registered.", "Server deleted."}:
            raise ProxyError(f"HAProxy refused {command!r}: {response}")

    async def query(self, command: str, max_bytes: int = _MAX_BYTES) -> str:
        """The response to one command, up to `max_bytes`."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                with _short_path(self._folder / SOCKET_FILE) as path:
                    reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_BYTES)
                try:
                    writer.write(command.encode() + b"\n")
                    response = bytearray()
                    while len(response) < max_bytes and (chunk := await reader.read(_CHUNK_BYTES)):
                        response += chunk
                    return response.decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise ProxyError(f"HAProxy in {self._folder} did not answer {command!r}: {error!r}") from error


@contextmanager
def _short_path(socket: Path) -> Iterator[str]:
    """A path of the socket that is short enough to connect to."""
    if len(os.fsencode(socket)) <= _MAX_PATH_BYTES or sys.platform != "linux":
        yield str(socket)
        return
    folder = os.open(socket.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)
