"""One-time links and claim codes: whoever shows one gets a device's credentials, once.

A link is for a device that is registered; a claim code makes a new one of a kind, and is short enough to be
typed. Of either only a keyed digest is kept. It is used up by compare-and-set before anything is told, so of
any number of people who show the same one at the same moment one gets credentials; what it leads to gets a
new secret then, so who comes second notices. What nobody used in time is overwritten on disk by a loop of the
role `devices`; should that not run, the server removes it an hour later.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Sequence

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext

from headcount.devices.registry import Registry, apply_changes, unknown_device, use_up_link
from headcount.errors import DeviceError, LinkRefusedError, LogError
from headcount.messages.records import LINK_KEY, Device, Link
from headcount.messages.topics import Kind
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import DEVICE_BUCKET

_log = logging.getLogger(__name__)

LINK_LIFETIME_S = 24 * 3600
CLAIM_CODE_LIFETIME_S = 14 * 24 * 3600
MAX_LIFETIME_S = 90 * 24 * 3600
MIN_LIFETIME_S = 60
#: Claim codes made at once.
MAX_CLAIM_CODES = 10_000
_BATCH = 100
#: How often those that are over are looked for, and how long the server leaves them for that.
POLL_INTERVAL_S, EXPIRED_GRACE_S = 600.0, 3600
#: 160 random bits of a link, 80 of a code: with a million codes open and a thousand guesses a second, one
#: is found in 38 million years.
_LINK_BYTES, _CLAIM_BYTES = 20, 10
_CODE = re.compile(r"[a-z2-7]{16}|[a-z2-7]{32}")
#: Longer texts are no codes, however they are written.
MAX_CODE_CHARS = 64
#: What people take for each other when they type: base 32 has no 0, 1 and 8.
_MISREAD = str.maketrans({"0": "o", "1": "l", "8": "b", "-": None, " ": None})


class OneTimeLinks:
    """Links and claim codes of a deployment; every call raises LogError if the log doesn't answer."""

    def __init__(self, bucket: Bucket, registry: Registry, secret: str) -> None:
        """Work on the bucket DEVICE of a deployment with this secret."""
        self._bucket = bucket
        self._registry = registry
        self._key = hashlib.blake2b(b"device links", key=secret.encode()[:64], digest_size=32).digest()

    async def link(self, id_: str, within_s: int = LINK_LIFETIME_S) -> tuple[str, Device]:
        """A code that gives this device new credentials, once, within a time; and the device.

        Raises:
            DeviceError: there is no such device, it is disabled, or the time is out of range.
        """
        device = await self._registry.get(id_)
        if device is None or device.status == "erasing":
            raise unknown_device(id_)
        if device.status == "disabled":
            raise DeviceError(f"device {id_}", "is disabled", "Enable it first")
        code = _random_code(_LINK_BYTES)
        await self._write(
            code, Link(site=device.site, kind=device.kind, device=id_, expires=_expiry(within_s)), within_s
        )
        return code, device

    async def claims(
        self,
        site: str,
        kind: Kind,
        count: int,
        groups: Sequence[str] = (),
        within_s: int = CLAIM_CODE_LIFETIME_S,
    ) -> list[str]:
        """So many codes, each of which makes one new device of a kind and in some groups, once.

        Raises:
            DeviceError: the groups, the number or the time are out of range.
        """
        if not 1 <= count <= MAX_CLAIM_CODES:
            raise DeviceError(
                f"{count} codes", f"1 to {MAX_CLAIM_CODES} can be made at once", "Ask for fewer"
            )
        link = Link(site=site, kind=kind, groups=list(groups), expires=_expiry(within_s))
        apply_changes(Device(id="a" * 20, site=site, kind=kind), {"groups": list(groups)})
        codes = [_random_code(_CLAIM_BYTES) for _ in range(count)]
        for start in range(0, count, _BATCH):
            await asyncio.gather(
                *(self._write(code, link, within_s) for code in codes[start : start + _BATCH])
            )
        return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in codes]

    async def redeem(self, text: str) -> tuple[Device, str]:
        """Use up a code: the device, and its new secret.

        Raises:
            LinkRefusedError: it was never made, was used, or is over; which of these isn't told.
        """
        code = text.strip().lower().translate(_MISREAD) if len(text) <= MAX_CODE_CHARS else ""
        if _CODE.fullmatch(code) is None:
            raise _refused()
        key = LINK_KEY.format(digest=self._digest(code))
        link = await self._use(key)
        if not link.device:
            return await self._registry.add(link.site, link.kind, groups=link.groups)
        device = await self._registry.get(link.device)
        if device is None or device.status in {"disabled", "erasing"}:
            raise _refused()
        return await self._registry.rotate(link.device)

    async def erase_over(self) -> int:
        """Overwrite on disk the links that nobody used in time; how many those were."""
        entries = await self._bucket.newest(LINK_KEY.format(digest="*"))
        now_s, erased = time.time(), 0
        for key, entry in entries.items():
            if msgspec.json.decode(entry.value, type=Link).expires <= now_s:
                await self._bucket.erase(key)
                erased += 1
        return erased

    async def keep(self, stop: asyncio.Event) -> None:
        """Do so again and again until told to stop."""
        while not stop.is_set():
            try:
                await self.erase_over()
            except LogError as error:
                _log.info("links that are over: %s; trying again", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_INTERVAL_S)

    async def _use(self, key: str) -> Link:
        entry = (await self._bucket.newest(key)).get(key)
        if entry is None:
            raise _refused()
        link = msgspec.json.decode(entry.value, type=Link)
        if link.left < 1 or link.expires <= time.time():
            raise _refused()
        if not await use_up_link(self._bucket, key, link, entry.revision):  # somebody was faster
            raise _refused()
        return link

    async def _write(self, code: str, link: Link, within_s: int) -> None:
        await self._bucket.put(
            LINK_KEY.format(digest=self._digest(code)),
            msgspec.json.encode(link),
            ttl_s=within_s + EXPIRED_GRACE_S,
        )

    def _digest(self, code: str) -> str:
        return hashlib.blake2b(code.encode(), key=self._key, digest_size=20).hexdigest()


def open_one_time_links(client: Client, log: JetStreamContext, secret: str) -> OneTimeLinks:
    """The links of a deployment, over one connection."""
    bucket = Bucket(client, log, DEVICE_BUCKET)
    return OneTimeLinks(bucket, Registry(bucket, secret), secret)


def _random_code(n: int) -> str:
    return base64.b32encode(secrets.token_bytes(n)).decode().lower()


def _expiry(within_s: int) -> float:
    if not MIN_LIFETIME_S <= within_s <= MAX_LIFETIME_S:
        raise DeviceError(
            f"{within_s} s", f"a link lasts {MIN_LIFETIME_S} s to {MAX_LIFETIME_S} s", "Choose a time between"
        )
    return time.time() + within_s


def _refused() -> LinkRefusedError:
    return LinkRefusedError("this link or code", "is unknown, used or over", "Ask for a new one")
