"""HAProxy's runtime API, over its Unix socket: who is there, and servers that come and go.

One connection a command: HAProxy answers and closes. It answers in words, so what is no known good
answer is an error.
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
from headcount.proxy.haproxy_config import BANNED_FILE, SOCKET_FILE

_ANSWER_S = 5.0
#: The answer of a command is never longer: 20 000 servers' states.
_MOST_BYTES = 8 << 20
#: sun_path has 108 bytes, a zero among them (unix(7)).
_MOST_PATH = 107
#: A line of `show sess`: which session, from which address (IPv6 without brackets), at which frontend.
_SESSION = re.compile(r"(0x[0-9a-f]+): proto=tcpv[46] src=(\S+):\d+ fe=(\S+)")
#: 200 000 sessions of some 300 bytes each.
_MOST_SESSIONS = 64 << 20
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Status:
    """A server as HAProxy sees it now: `UP`, `DOWN`, `MAINT`, `DRAIN`, `no check`; its open sessions."""

    status: str
    sessions: int
    weight: int

    @property
    def down(self) -> bool:
        """Its health check fails. `UP 1/2` is going down and isn't yet."""
        return self.status.startswith("DOWN")


#: Backend → server → status.
Standing = dict[str, dict[str, Status]]


class Runtime:
    """The runtime API of the HAProxy that runs in `folder`.

    Every call raises ProxyError when HAProxy doesn't answer, or refuses.
    """

    def __init__(self, folder: Path) -> None:
        """Talk over the socket in this folder."""
        self._folder = folder

    async def standing(self) -> Standing:
        """All servers of all backends."""
        text = await self.ask("show stat -1 4 -1")
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        standing: Standing = {}
        for row in rows:
            status = Status(row["status"], int(row["scur"] or 0), int(row["weight"] or 0))
            standing.setdefault(row["pxname"], {})[row["svname"]] = status
        return standing

    async def pid(self) -> int:
        """The process that answers."""
        lines = (await self.ask("show info")).splitlines()
        return int(next((line.split(":")[1] for line in lines if line.startswith("Pid:")), "0"))

    async def servers_state(self) -> str:
        """What a reload takes over: the content of a server state file."""
        return await self.ask("show servers state")

    async def banned(self) -> frozenset[str]:
        """The addresses that it refuses now."""
        lines = (await self.ask(f"show acl {BANNED_FILE}")).splitlines()
        return frozenset(line.split()[1] for line in lines if line.startswith("0x"))

    async def sessions_of(self, addresses: Collection[str]) -> list[str]:
        """The open sessions of these addresses, by HAProxy's names for them."""
        found = _SESSION.findall(await self.ask("show sess", most=_MOST_SESSIONS))
        return [session for session, address, _ in found if address.removeprefix("::ffff:") in addresses]

    async def tell(self, command: str) -> None:
        """Have something done."""
        answer = (await self.ask(command)).strip()
        if answer and answer not in {"New server registered.", "Server deleted."}:
            raise ProxyError(f"HAProxy answers {command!r} with {answer!r}")

    async def ask(self, command: str, most: int = _MOST_BYTES) -> str:
        """The answer to one command, its first `most` bytes."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                with _reachable(self._folder / SOCKET_FILE) as path:
                    reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_BYTES)
                try:
                    writer.write(command.encode() + b"\n")
                    answer = bytearray()
                    while len(answer) < most and (piece := await reader.read(_PIECE)):
                        answer += piece
                    return answer.decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise ProxyError(f"HAProxy doesn't answer {command!r} in {self._folder}: {error!r}") from error


@contextmanager
def _reachable(socket: Path) -> Iterator[str]:
    """A path of the socket that is short enough to connect to."""
    if len(os.fsencode(socket)) <= _MOST_PATH or sys.platform != "linux":
        yield str(socket)
        return
    folder = os.open(socket.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)
