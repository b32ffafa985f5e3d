"""Who is kept out for a while: devices by id, and whoever comes from an address."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from dataclasses import dataclass

import msgspec

from headcount.errors import DeviceError
from headcount.messages.records import Ban
from headcount.messages.topics import ID
from headcount.messaging.kv import Bucket

#: Keys in the bucket BAN; an address has colons and dots, so its text is told in hex.
DEVICE_BAN = "device.{id}"
ADDRESS_BAN = "address.{hex}"
#: Nobody is kept out for longer, nor for less than a second.
MAX_BAN_S = 366 * 86_400.0
MAX_REASON_CHARS = 200
#: The mark of a ban that was lifted stays so long, for those who were away.
_TOMBSTONE_S = 60
_ADDRESS_KEY = re.compile(r"address\.((?:[0-9a-f]{2})+)")


@dataclass(frozen=True, slots=True)
class ActiveBan:
    """Who is kept out, until when and why."""

    device: str | None
    address: str | None
    until: float  # Unix seconds
    reason: str


class BanList:
    """The bucket BAN; every call raises LogError if the log doesn't answer."""

    def __init__(self, bucket: Bucket) -> None:
        """Work on this bucket."""
        self._bucket = bucket

    async def add(self, who: str, for_s: float, reason: str, *, guesses: bool = False) -> ActiveBan:
        """Keep a device (its id) or an address out for a time, in place of what was set before.

        With `guesses` only those from an address who prove nothing.

        Raises:
            DeviceError: it is neither, or the time or reason can't be used.
        """
        key = ban_key(who)
        if not 1 <= for_s <= MAX_BAN_S:
            raise DeviceError("a ban", f"lasts 1 to {MAX_BAN_S:.0f} s, not {for_s:g}", "Name another time")
        if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
            raise DeviceError("a ban's reason", f"has up to {MAX_REASON_CHARS} characters", "Use fewer")
        ban = Ban(time.time() + for_s, reason, guesses)
        await self._bucket.put(key, msgspec.json.encode(ban), ttl_s=math.ceil(for_s))
        return active_ban(key, ban)

    async def lift(self, who: str) -> bool:
        """Let somebody in again; False: they weren't kept out.

        Raises:
            DeviceError: it is neither a device's id nor an address.
        """
        key = ban_key(who)
        there = key in await self._bucket.newest(key)
        if there:
            await self._bucket.delete(key, ttl_s=_TOMBSTONE_S)
        return there

    async def all(self) -> list[ActiveBan]:
        """Who is kept out now, those who are longest last."""
        now_s, found = time.time(), []
        for key, entry in (await self._bucket.newest()).items():
            ban = msgspec.json.decode(entry.value, type=Ban)
            if ban.until > now_s:
                found.append(active_ban(key, ban))
        return sorted(found, key=lambda one: one.until)


def ban_key(who: str) -> str:
    """The key of a device's or an address's ban.

    Raises:
        DeviceError: it is neither.
    """
    try:
        return ADDRESS_BAN.format(hex=str(ipaddress.ip_address(who)).encode().hex())
    except ValueError:
        pass
    if ID.fullmatch(who) is None:
        raise DeviceError(repr(who[:64]), "is neither a device's id nor an address", "Name one of both")
    return DEVICE_BAN.format(id=who)


def active_ban(key: str, ban: Ban) -> ActiveBan:
    """A ban with what its key says."""
    address = banned_address(key)
    return ActiveBan(None if address else key.partition(".")[2], address, ban.until, ban.reason)


def banned_address(key: str) -> str | None:
    """The address that a key is about; None: it is about a device."""
    match = _ADDRESS_KEY.fullmatch(key)
    return bytes.fromhex(match[1]).decode(errors="replace") if match else None
