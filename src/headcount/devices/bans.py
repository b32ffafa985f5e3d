"""Bans: devices and addresses that may not connect for a while."""

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
from headcount.messaging.kv import KvBucket

#: Keys in the bucket BAN; an address has colons and dots, so its text is in hex.
DEVICE_BAN = "device.{id}"
ADDRESS_BAN = "address.{hex}"
#: The longest ban; the shortest is a second.
MAX_BAN_S = 366 * 86_400.0
MAX_REASON_CHARS = 200
#: The marker of a lifted ban exists this long, for watchers that were disconnected.
_TOMBSTONE_S = 60
_ADDRESS_KEY = re.compile(r"address\.((?:[0-9a-f]{2})+)")


@dataclass(frozen=True, slots=True)
class ActiveBan:
    """A banned device or address, until when, and why."""

    device: str | None
    address: str | None
    until: float  # Unix seconds
    reason: str


class BanList:
    """The bans in the bucket BAN; every call raises LogError if NATS does not answer."""

    def __init__(self, bucket: KvBucket) -> None:
        self._bucket = bucket

    async def add(self, who: str, for_s: float, reason: str, *, guesses: bool = False) -> ActiveBan:
        """Ban a device (by id) or an address for a time; replaces an earlier ban.

        Args:
            who: device id or IP address.
            for_s: duration in seconds.
            reason: for the operator.
            guesses: ban only unauthenticated connections from the address.

        Raises:
            DeviceError: `who` is neither, or the duration or reason is not valid.
        """
        key = ban_key(who)
        if not 1 <= for_s <= MAX_BAN_S:
            raise DeviceError("duration", f"{for_s:g} s is not within 1 to {MAX_BAN_S:.0f} s", "Change it")
        if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
            raise DeviceError("reason", f"more than {MAX_REASON_CHARS} printable characters", "Shorten it")
        ban = Ban(time.time() + for_s, reason, guesses)
        await self._bucket.put(key, msgspec.json.encode(ban), ttl_s=math.ceil(for_s))
        return active_ban(key, ban)

    async def lift(self, who: str) -> bool:
        """Lift a ban; False: there was none.

        Raises:
            DeviceError: `who` is neither a device id nor an address.
        """
        key = ban_key(who)
        exists = await self._bucket.get(key) is not None
        if exists:
            await self._bucket.delete(key, ttl_s=_TOMBSTONE_S)
        return exists

    async def all(self) -> list[ActiveBan]:
        """The active bans, those that end last at the end."""
        now_s, found = time.time(), []
        for key, entry in (await self._bucket.newest()).items():
            ban = msgspec.json.decode(entry.value, type=Ban)
            if ban.until > now_s:
                found.append(active_ban(key, ban))
        return sorted(found, key=lambda one: one.until)


def ban_key(who: str) -> str:
    """The key of the ban of a device or an address.

    Raises:
        DeviceError: `who` is neither.
    """
    try:
        return ADDRESS_BAN.format(hex=str(ipaddress.ip_address(who)).encode().hex())
    except ValueError:
        pass
    if ID.fullmatch(who) is None:
        raise DeviceError(repr(who[:64]), "is not a device id or an IP address", "Use one of these")
    return DEVICE_BAN.format(id=who)


def active_ban(key: str, ban: Ban) -> ActiveBan:
    """Combine a ban and its key."""
    address = banned_address(key)
    return ActiveBan(None if address else key.partition(".")[2], address, ban.until, ban.reason)


def banned_address(key: str) -> str | None:
    """The address in a key; None: it is the key of a device."""
    match = _ADDRESS_KEY.fullmatch(key)
    return bytes.fromhex(match[1]).decode(errors="replace") if match else None
