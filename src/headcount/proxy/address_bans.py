"""Which addresses the balancer refuses: as the bucket BAN says, or, while the core is away, as it said last."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from headcount.devices.bans import banned_address
from headcount.messages.records import Ban
from headcount.messaging.connection import Connection
from headcount.messaging.kv_watch import watch
from headcount.messaging.streams import BAN_BUCKET
from headcount.runtime.tasks import cancel_all


class AddressBans:
    """Addresses and until when (Unix seconds) each is refused."""

    def __init__(self) -> None:
        """Nobody, at first."""
        self._until: dict[str, float] = {}

    def recall(self, path: Path) -> None:
        """Take what a file of an earlier run says; one that can't be read says nothing."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._until = msgspec.json.decode(path.read_bytes(), type=dict[str, float]) | self._until

    def kept(self) -> bytes:
        """What `recall` takes."""
        return msgspec.json.encode(dict(sorted(self._until.items())))

    def at(self, now_s: float) -> frozenset[str]:
        """Who is refused now."""
        self._until = {address: until for address, until in self._until.items() if until > now_s}
        return frozenset(self._until)

    def all(self, found: dict[str, bytes]) -> None:
        """Take everything that the bucket has."""
        self._until = {}
        for key, value in found.items():
            self.changed(key, value)

    def changed(self, key: str, value: bytes | None) -> None:
        """Take one ban as it is now; None: it was lifted or is over."""
        address = plain(banned_address(key) or "")
        if address is None:
            return
        self._until.pop(address, None)
        if value is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                ban = msgspec.json.decode(value, type=Ban)
                # who only guesses is told apart by the gate, not by the address
                if not ban.guesses:
                    self._until[address] = ban.until


def plain(text: str) -> str | None:
    """An address as HAProxy is told it: IPv4 written as IPv6 is IPv4. None: it is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return None if "%" in text else str(address)


@contextlib.asynccontextmanager
async def following(connection: Connection, bans: AddressBans) -> AsyncIterator[None]:
    """Keep `bans` as the core has them; it may be away, at the start as well."""
    work = watch(connection, BAN_BUCKET, "address.*", on_all=bans.all, on_change=bans.changed)
    task = asyncio.create_task(work, name="bans")
    try:
        yield
    finally:
        await cancel_all({task})
