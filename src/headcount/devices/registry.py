"""The device registry: which devices exist, and which person or vehicle each one is.

This is the only place that stores people's names. A device's id is a random handle, generated here.
Everything is written by compare-and-set, and replaced or removed values are overwritten on disk, so any
number of commands, APIs and background tasks may work on the registry at the same time.

An alias, a name in another format, leads to at most one device. Its key is a keyed digest, so that the key
reveals nothing. An alias is valid only if the device lists it, too: an interrupted change leaves at worst a
key that leads nowhere, which the next claim takes over.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from headcount.decoders.payload_keys import PayloadKeys
from headcount.devices import credentials
from headcount.devices.device_fields import apply_changes
from headcount.devices.device_filter import DeviceFilter, DevicePage
from headcount.errors import AliasTakenError, DeviceError, UnknownDeviceError
from headcount.messages.records import ALIAS_KEY, DEVICE_KEY, LINK_KEY, Alias, Device, LastSeen, OneTimeLink
from headcount.messages.topics import ID, Kind
from headcount.messaging.kv import KvBucket, KvEntry

#: Attempts to write a key that others change at the same time.
_ATTEMPTS = 20
#: A younger alias without a device may belong to a device that is about to be written.
UNFINISHED_CLAIM_S = 60.0
#: A used link outlives what it replaced, in case that is ever left behind.
_USED_LINK_EXTRA_S = 2 * 3600


def new_handle() -> str:
    """A device's id: 100 random bits as 20 characters of base 32."""
    return base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]


class Registry:
    """All devices of a deployment, in the bucket DEVICE.

    Every call raises LogError if NATS does not answer.
    """

    def __init__(self, bucket: KvBucket, secret: str, seen: KvBucket | None = None) -> None:
        """Use the bucket DEVICE of the deployment with this secret; `seen` is the bucket SEEN."""
        self._bucket = bucket
        self._seen = seen
        self._key = hashlib.blake2b(b"device aliases", key=secret.encode()[:64], digest_size=32).digest()
        self._payload_keys = PayloadKeys(secret)
        self.unfinished_claim_s = UNFINISHED_CLAIM_S

    # --- reading -------------------------------------------------------------------------------
    async def get(self, id_: str) -> Device | None:
        """The device with this id."""
        return (await self._entry(id_))[0]

    async def all(self) -> dict[str, Device]:
        """All devices by id, in order; for frequent queries use a `RegistryCache`."""
        entries = await self._bucket.newest(DEVICE_KEY.format(id="*"))
        devices = (_decode(entries[key]) for key in sorted(entries))
        return {device.id: device for device in devices}

    async def list(self, wanted: DeviceFilter) -> DevicePage:
        """A page of the devices that pass a filter."""
        return wanted.page((await self.all()).values(), await self.seen())

    async def seen(self) -> dict[str, LastSeen]:
        """When devices were last connected, by id."""
        if self._seen is None:
            return {}
        entries = await self._seen.newest()
        return {id_: msgspec.json.decode(entry.value, type=LastSeen) for id_, entry in entries.items()}

    async def by_alias(self, alias: str) -> str | None:
        """The id of the device with this alias (`owntracks/alice/phone`)."""
        found = await self._alias(alias)
        if found is None or not found[0]:
            return None
        device = await self.get(found[0])
        return device.id if device is not None and alias in device.aliases else None

    def digest(self, alias: str) -> str:
        """The digest that represents an alias in its key."""
        return hashlib.blake2b(alias.encode(), key=self._key, digest_size=16).hexdigest()

    # --- writing -------------------------------------------------------------------------------
    async def add(self, site: str, kind: Kind, **fields: Any) -> tuple[Device, str]:
        """Register a device.

        Args:
            site: the site's id.
            kind: person or vehicle.
            fields: any of `CHANGEABLE`.

        Returns:
            The device, and its secret, which is not stored and cannot be shown again.

        Raises:
            AliasTakenError: another device has the alias.
            DeviceError: a field is not valid.
        """
        now_s = time.time()
        secret = credentials.new_secret()
        device = apply_changes(
            Device(id=new_handle(), site=site, kind=kind, created=now_s, changed=now_s), fields
        )
        device.secret = credentials.hash_secret(secret)
        await self._claim(device, device.aliases)
        if await self._bucket.replace(_key(device.id), msgspec.json.encode(device), 0) is None:
            raise DeviceError(device.id, "is a device already", "Try again")  # probability 1 in 10^24
        return device, secret

    async def change(self, id_: str, **fields: Any) -> Device:
        """Change some of `CHANGEABLE`; aliases and groups are replaced as a whole.

        Raises:
            UnknownDeviceError: the device does not exist.
            AliasTakenError: another device has the alias.
            DeviceError: a field is not valid.
        """
        device = await self._update(id_, lambda device: apply_changes(device, fields))
        if device.status == "disabled":
            await self.revoke_links(id_)
        return device

    async def rotate(self, id_: str) -> tuple[Device, str]:
        """Replace the secret; the old one, the ingest key, signed tokens and links are rejected from now on.

        Raises:
            UnknownDeviceError: the device does not exist.
        """
        secret = credentials.new_secret()
        hash_, now_s = credentials.hash_secret(secret), time.time()
        device = await self._update(
            id_, lambda device: _replace(device, secret=hash_, ingest_key="", valid_from=now_s)
        )
        await self.revoke_links(id_)
        return device, secret

    async def create_ingest_key(self, id_: str) -> str:
        """Replace the ingest key; the old one is rejected from now on.

        Raises:
            UnknownDeviceError: the device does not exist.
        """
        secret = credentials.new_secret()
        hash_ = credentials.hash_secret(secret)
        await self._update(id_, lambda device: _replace(device, ingest_key=hash_))
        return credentials.ingest_key(id_, secret)

    async def remove_ingest_key(self, id_: str) -> None:
        """Reject the ingest key from now on.

        Raises:
            UnknownDeviceError: the device does not exist.
        """
        await self._update(id_, lambda device: _replace(device, ingest_key=""))

    async def create_payload_key(self, id_: str) -> tuple[Device, str]:
        """Replace the key of a device's messages; from now on, messages without it are rejected.

        Raises:
            UnknownDeviceError: the device does not exist.
        """
        key = credentials.new_secret()
        sealed = self._payload_keys.seal(key)
        return await self._update(id_, lambda device: _replace(device, payload_key=sealed)), key

    async def remove_payload_key(self, id_: str) -> Device:
        """Accept messages that are not encrypted, and those alone.

        Raises:
            UnknownDeviceError: the device does not exist.
        """
        return await self._update(id_, lambda device: _replace(device, payload_key=""))

    async def enable(self, id_: str) -> Device:
        """Accept and count a device that was disabled or paused."""
        return await self.change(id_, status="active", resume=None)

    async def pause(self, id_: str, until: float | None = None) -> Device:
        """Stop counting the device until it is enabled, or until an instant (Unix seconds)."""
        return await self.change(id_, status="paused", resume=until)

    async def remove(self, id_: str) -> Device:
        """Refuse the device and mark it for erasure; its names are removed immediately."""

        def removed(device: Device) -> Device:
            return _replace(
                device,
                status="erasing",
                secret="",
                ingest_key="",
                payload_key="",
                certificate="",
                label="",
                groups=[],
                resume=None,
            )

        device = await self._update(id_, removed, also_erasing=True)
        await self.revoke_links(id_)
        return device

    async def forget(self, id_: str) -> None:
        """Overwrite a device, its aliases and links on disk: the last step of an erasure."""
        await self.revoke_links(id_)
        device, _ = await self._entry(id_)
        for alias in device.aliases if device is not None else ():
            await self._release(alias, id_)
        await self._bucket.erase(_key(id_))

    async def revoke_links(self, id_: str) -> int:
        """Revoke all unused links of a device; returns their number."""
        entries = await self._bucket.newest(LINK_KEY.format(digest="*"))
        revoked = 0
        for key, entry in entries.items():
            link = msgspec.json.decode(entry.value, type=OneTimeLink)
            if link.device == id_ and await use_up_link(self._bucket, key, link, entry.revision):
                revoked += link.left > 0
        return revoked

    # --- inside --------------------------------------------------------------------------------
    async def _entry(self, id_: str) -> tuple[Device | None, int]:
        if ID.fullmatch(id_) is None:  # a key could contain wildcards
            return None, 0
        entry = await self._bucket.get(_key(id_))
        return (None, 0) if entry is None else (_decode(entry), entry.revision)

    async def _update(
        self, id_: str, changed: Callable[[Device], Device], *, also_erasing: bool = False
    ) -> Device:
        for attempt in range(_ATTEMPTS):
            device, revision = await self._entry(id_)
            if device is None:
                raise unknown_device(id_)
            if device.status == "erasing" and not also_erasing:
                if attempt:  # watchers received the rejected value: write the valid one again
                    await self._bucket.rewrite(_key(id_), msgspec.json.encode(device), revision)
                raise unknown_device(id_)
            after = changed(device)
            if after == device:
                return device
            after.changed = time.time()
            await self._claim(after, [alias for alias in after.aliases if alias not in device.aliases])
            if await self._bucket.rewrite(_key(id_), msgspec.json.encode(after), revision):
                for alias in device.aliases:
                    if alias not in after.aliases:
                        await self._release(alias, id_)
                return after
            await asyncio.sleep(random.uniform(0, 0.01 * (attempt + 1)))  # noqa: S311  # no secret
        raise DeviceError(id_, "is changed by others all the time", "Try again")

    async def _alias(self, alias: str) -> tuple[str, KvEntry] | None:
        entry = await self._bucket.get(ALIAS_KEY.format(digest=self.digest(alias)))
        return None if entry is None else (msgspec.json.decode(entry.value, type=Alias).device, entry)

    async def _claim(self, device: Device, aliases: Iterable[str]) -> None:
        """Make all of these aliases lead to a device that is about to be written, or none."""
        claimed: list[str] = []
        try:
            for alias in aliases:
                await self._claim_one(alias, device.id)
                claimed.append(alias)
        except DeviceError:
            for alias in claimed:
                await self._release(alias, device.id)
            raise

    async def _claim_one(self, alias: str, id_: str) -> None:
        value = msgspec.json.encode(Alias(id_))
        key = ALIAS_KEY.format(digest=self.digest(alias))
        for _ in range(_ATTEMPTS):
            found = await self._alias(alias)
            if found is not None and found[0] == id_:
                return
            if found is not None and await self._is_taken(alias, *found):
                raise alias_taken(alias)
            if await self._bucket.rewrite(key, value, found[1].revision if found else 0):
                return
        raise DeviceError(f"alias {alias!r}", "is changed by others all the time", "Try again")

    async def _is_taken(self, alias: str, owner: str, entry: KvEntry) -> bool:
        if not owner:
            return False
        device = await self.get(owner)
        if device is not None and alias in device.aliases:
            return True
        return await self._bucket.now_s() - entry.stored_s < self.unfinished_claim_s

    async def _release(self, alias: str, id_: str) -> None:
        """Erase an alias of a device; the empty value written first informs the watchers."""
        found = await self._alias(alias)
        if found is None or found[0] not in {id_, ""}:
            return
        key = ALIAS_KEY.format(digest=self.digest(alias))
        if await self._bucket.rewrite(key, msgspec.json.encode(Alias("")), found[1].revision):
            await self._bucket.erase(key)


async def use_up_link(bucket: KvBucket, key: str, link: OneTimeLink, revision: int) -> bool:
    """Use a link up and overwrite it; False: another request used it first."""
    used = msgspec.structs.replace(link, left=0)
    left_s = max(1, int(link.expires - time.time()) + _USED_LINK_EXTRA_S)
    if await bucket.rewrite(key, msgspec.json.encode(used), revision, ttl_s=left_s) is None:
        return False
    await bucket.erase(key)
    return True


def unknown_device(id_: str) -> UnknownDeviceError:
    """The error for a device that does not exist."""
    return UnknownDeviceError(
        f"device {id_[:64]!r}", "is not registered", "`headcount device list` shows all devices"
    )


def alias_taken(alias: str) -> AliasTakenError:
    """The error for an alias of another device."""
    return AliasTakenError(f"alias {alias!r}", "leads to another device", "Remove it there first")


def _key(id_: str) -> str:
    return DEVICE_KEY.format(id=id_)


def _decode(entry: KvEntry) -> Device:
    return msgspec.json.decode(entry.value, type=Device)


def _replace(device: Device, **fields: Any) -> Device:
    return msgspec.structs.replace(device, **fields)
