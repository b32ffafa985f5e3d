"""One-time links and claim codes: each hands over a device's credentials once.

A link is for a registered device; a claim code registers a new device of a kind, and is short enough to type.
Only a keyed digest of either is stored. It is used up by compare-and-set before the credentials are returned,
so of any number of concurrent requests one succeeds; the device gets a new secret then, so that a second
person notices. Unused links are overwritten on disk when they expire, by a task of the role `devices`; if
that does not run, the server removes them an hour later.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from headcount.devices.device_fields import apply_changes
from headcount.devices.owntracks_commands import OWNTRACKS
from headcount.devices.provisioning import RedeemedLink
from headcount.devices.registry import Registry, unknown_device, use_up_link
from headcount.errors import DeviceError, LinkRefusedError, LogError
from headcount.messages.records import DEFAULT_PHONE, LINK_KEY, Device, OneTimeLink, PhoneOptions
from headcount.messages.topics import Kind
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)

#: Short, because proxies log the address of the settings that OwnTracks requests, which holds the code.
LINK_LIFETIME_S = 3600
CLAIM_CODE_LIFETIME_S = 14 * 24 * 3600
MAX_LIFETIME_S = 90 * 24 * 3600
MIN_LIFETIME_S = 60
#: Claim codes of one request.
MAX_CLAIM_CODES = 10_000
_BATCH = 100
#: Interval at which expired links are erased, and the time the server keeps them for that.
POLL_INTERVAL_S, EXPIRED_GRACE_S = 600.0, 3600
#: 160 random bits of a link, 80 of a code: with a million open codes and a thousand guesses a second, a
#: guess succeeds in 38 million years.
_LINK_BYTES, _CLAIM_BYTES = 20, 10
_CODE = re.compile(r"[a-z2-7]{16}|[a-z2-7]{32}")
#: A longer text is not a code in any spelling.
MAX_CODE_CHARS = 64
#: Corrections of common typing mistakes: base 32 has no 0, 1 and 8.
_MISREAD = str.maketrans({"0": "o", "1": "l", "8": "b", "-": None, " ": None})


class OneTimeLinks:
    """Links and claim codes of a deployment; every call raises LogError if NATS does not answer."""

    def __init__(self, bucket: KvBucket, registry: Registry, secret: str) -> None:
        self._bucket = bucket
        self._registry = registry
        self._key = hashlib.blake2b(b"device links", key=secret.encode()[:64], digest_size=32).digest()

    async def create_link(
        self, id_: str, within_s: int = LINK_LIFETIME_S, phone: PhoneOptions = DEFAULT_PHONE
    ) -> tuple[str, Device]:
        """Create a code that gives this device new credentials once, within a time.

        Returns:
            The code and the device.

        Raises:
            DeviceError: the device does not exist or is disabled, or the time is out of range.
        """
        device = await self._registry.get(id_)
        if device is None or device.status == "erasing":
            raise unknown_device(id_)
        if device.status == "disabled":
            raise DeviceError(f"device {id_}", "is disabled", "Enable it first")
        code = _random_code(_LINK_BYTES)
        link = OneTimeLink(
            site=device.site, kind=device.kind, device=id_, expires=_expiry(within_s), phone=phone
        )
        await self._write(code, link, within_s)
        return code, device

    async def create_claim_codes(
        self,
        site: str,
        kind: Kind,
        count: int,
        groups: Sequence[str] = (),
        within_s: int = CLAIM_CODE_LIFETIME_S,
        phone: PhoneOptions = DEFAULT_PHONE,
    ) -> list[str]:
        """Create codes, each of which registers one new device of a kind in some groups.

        Raises:
            DeviceError: the groups, the number or the time is not valid.
        """
        if not 1 <= count <= MAX_CLAIM_CODES:
            raise DeviceError(f"{count} codes", f"must be 1 to {MAX_CLAIM_CODES}", "Change the number")
        link = OneTimeLink(site=site, kind=kind, groups=list(groups), expires=_expiry(within_s), phone=phone)
        apply_changes(Device(id="a" * 20, site=site, kind=kind), {"groups": list(groups)})
        codes = [_random_code(_CLAIM_BYTES) for _ in range(count)]
        for start in range(0, count, _BATCH):
            await asyncio.gather(
                *(self._write(code, link, within_s) for code in codes[start : start + _BATCH])
            )
        return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in codes]

    async def redeem(
        self, text: str, is_counted: Callable[[str], Awaitable[bool]] | None = None
    ) -> RedeemedLink:
        """Use up a code; `is_counted` returns whether the deployment counts a site.

        The device gets a new secret, and a new key if its messages are or shall be encrypted.

        Raises:
            LinkRefusedError: the code was never created, is used, or has expired, or its site is removed; the
                error does not distinguish these.
        """
        code = text.strip().lower().translate(_MISREAD) if len(text) <= MAX_CODE_CHARS else ""
        if _CODE.fullmatch(code) is None:
            raise _refused()
        key = LINK_KEY.format(digest=self._digest(code))
        link = await self._use(key)
        if is_counted is not None and not await is_counted(link.site):
            raise _refused()
        device, secret = await self._new_secret(link)
        if link.phone.commands:
            device = await self._registry.change(device.id, app=OWNTRACKS)
        key = ""
        if link.phone.encrypt or device.payload_key:
            device, key = await self._registry.create_payload_key(device.id)
        return RedeemedLink(device, secret, key, link.phone)

    async def _new_secret(self, link: OneTimeLink) -> tuple[Device, str]:
        if not link.device:
            return await self._registry.add(link.site, link.kind, groups=link.groups)
        device = await self._registry.get(link.device)
        if device is None or device.status in {"disabled", "erasing"}:
            raise _refused()
        return await self._registry.rotate(link.device)

    async def erase_expired(self) -> int:
        """Overwrite expired links on disk; returns their number."""
        entries = await self._bucket.newest(LINK_KEY.format(digest="*"))
        now_s, erased = time.time(), 0
        for key, entry in entries.items():
            if msgspec.json.decode(entry.value, type=OneTimeLink).expires <= now_s:
                await self._bucket.erase(key)
                erased += 1
        return erased

    async def run(self, stop: asyncio.Event) -> None:
        """Erase expired links periodically until `stop` is set."""
        while not stop.is_set():
            try:
                await self.erase_expired()
            except LogError as error:
                _log.info("cannot erase expired links: %s; trying again", error)
            await wait_any(stop, timeout_s=POLL_INTERVAL_S)

    async def _use(self, key: str) -> OneTimeLink:
        entry = await self._bucket.get(key)
        if entry is None:
            raise _refused()
        link = msgspec.json.decode(entry.value, type=OneTimeLink)
        if link.left < 1 or link.expires <= time.time():
            raise _refused()
        if not await use_up_link(self._bucket, key, link, entry.revision):  # another request was faster
            raise _refused()
        return link

    async def _write(self, code: str, link: OneTimeLink, within_s: int) -> None:
        await self._bucket.put(
            LINK_KEY.format(digest=self._digest(code)),
            msgspec.json.encode(link),
            ttl_s=within_s + EXPIRED_GRACE_S,
        )

    def _digest(self, code: str) -> str:
        return hashlib.blake2b(code.encode(), key=self._key, digest_size=20).hexdigest()


def open_one_time_links(connection: Connection, secret: str) -> OneTimeLinks:
    """The one-time links of a deployment, over one connection."""
    bucket = KvBucket(connection, DEVICE_BUCKET)
    return OneTimeLinks(bucket, Registry(bucket, secret), secret)


def _random_code(n: int) -> str:
    return base64.b32encode(secrets.token_bytes(n)).decode().lower()


def _expiry(within_s: int) -> float:
    if not MIN_LIFETIME_S <= within_s <= MAX_LIFETIME_S:
        raise DeviceError(
            f"{within_s} s", f"must be {MIN_LIFETIME_S} s to {MAX_LIFETIME_S} s", "Change the time"
        )
    return time.time() + within_s


def _refused() -> LinkRefusedError:
    return LinkRefusedError("this link or code", "is unknown, used or expired", "Request a new one")
