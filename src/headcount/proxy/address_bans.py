"""Addresses that the balancer refuses, from the bucket BAN; while the core is unavailable, the last known ones."""

from __future__ import annotations

import contextlib
import ipaddress
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from headcount.devices.bans import banned_address
from headcount.messages.records import Ban, decode_or_none
from headcount.messaging.connection import Connection
from headcount.messaging.kv_watch import watch
from headcount.messaging.streams import BAN_BUCKET
from headcount.runtime.tasks import background


class AddressBans:
    """Banned addresses, each until a time (Unix seconds)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def load(self, path: Path) -> None:
        """Add the bans of an earlier run from a file, if it is valid."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._until = msgspec.json.decode(path.read_bytes(), type=dict[str, float]) | self._until

    def encoded(self) -> bytes:
        """The bans as a file for `load`."""
        return msgspec.json.encode(dict(sorted(self._until.items())))

    def active(self, now_s: float) -> frozenset[str]:
        """The addresses that are banned now."""
        self._until = {address: until for address, until in self._until.items() if until > now_s}
        return frozenset(self._until)

    def replace(self, found: dict[str, bytes]) -> None:
        """Replace all bans by the content of the bucket."""
        self._until = {}
        for key, value in found.items():
            self.update(key, value)

    def update(self, key: str, value: bytes | None) -> None:
        """Update one ban; None: it was lifted or has ended."""
        address = normalise_address(banned_address(key) or "")
        if address is None:
            return
        self._until.pop(address, None)
        ban = decode_or_none(value, Ban)
        # bans for guessing apply to unauthenticated clients only: the auth service enforces them
        if ban is not None and not ban.guesses:
            self._until[address] = ban.until


def normalise_address(text: str) -> str | None:
    """An address in HAProxy's notation, with mapped IPv4 as IPv4; None: it is not an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return None if "%" in text else str(address)


def watching_bans(connection: Connection, bans: AddressBans) -> AbstractAsyncContextManager[None]:
    """Update `bans` from the core, which may be unavailable, also at the start."""
    work = watch(connection, BAN_BUCKET, "address.*", on_all=bans.replace, on_change=bans.update)
    return background(work, "bans")
