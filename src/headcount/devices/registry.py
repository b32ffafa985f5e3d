"""The registry: who may send, under which id, and which person or car that is.

It is the only place where names of people are. A device's id is a handle, random and given here.
Everything is written by compare-and-set, and what is replaced or removed is overwritten on disk, so any
number of commands, APIs and loops may work on it at the same time.

A name of another format (an alias) leads to one device at most. Its key is a keyed digest, so the key
says nothing. An alias counts where the device names it, too: whatever ends half-way leaves at worst a
key that leads nowhere, and that is taken over.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headcount.devices import credentials
from headcount.devices.device_filter import DEFAULT_PAGE_SIZE, DevicePage, page
from headcount.errors import AliasTakenError, DeviceError, UnknownDeviceError
from headcount.messages.records import (
    ALIAS_KEY,
    DEVICE_KEY,
    LINK_KEY,
    AliasOf,
    Device,
    DeviceStatus,
    Link,
    Seen,
)
from headcount.messages.topics import HANDLE, ID, KINDS, Kind
from headcount.messaging.kv import Bucket, Entry

MAX_LABEL_CHARS = 100
MAX_GROUPS, MAX_ALIASES = 20, 10
#: Of an alias, a firmware's or an app's name.
MAX_TEXT_CHARS = 128
#: Of somebody who is overtaken again and again; then an error.
_ATTEMPTS = 20
#: An alias that leads nowhere is being given to a device, or somebody was killed while he did that.
UNFINISHED_CLAIM_S = 60.0
#: A used link outlives what it replaced, should that ever be left behind.
_USED_LINK_EXTRA_S = 2 * 3600
#: What may be changed; the rest follows from it, or never changes.
CHANGEABLE = ("label", "groups", "aliases", "gateway", "firmware", "app", "certificate", "status", "resume")


def new_handle() -> str:
    """A device's id: 100 random bits as 20 characters of base 32."""
    return base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]


def alias_key(secret: str) -> bytes:
    """The key of the aliases' digests, derived from the deployment's secret."""
    return hashlib.blake2b(b"device aliases", key=secret.encode()[:64], digest_size=32).digest()


class Registry:
    """All devices of a deployment, in the bucket DEVICE.

    Every call raises LogError if the log doesn't answer.
    """

    def __init__(self, bucket: Bucket, secret: str, seen: Bucket | None = None) -> None:
        """Work on the bucket DEVICE of a deployment with this secret; `seen` is the bucket SEEN."""
        self._bucket = bucket
        self._seen = seen
        self._key = alias_key(secret)
        self.unfinished_s = UNFINISHED_CLAIM_S

    # --- reading -------------------------------------------------------------------------------
    async def get(self, id_: str) -> Device | None:
        """The device with this id."""
        return (await self._entry(id_))[0]

    async def all(self) -> dict[str, Device]:
        """Every device by its id, in their order. Whoever asks often has a `Directory`."""
        entries = await self._bucket.newest(DEVICE_KEY.format(id="*"))
        devices = (decode_device(entries[key].value) for key in sorted(entries))
        return {device.id: device for device in devices}

    async def list(
        self,
        site: str,
        *,
        kind: Kind | None = None,
        status: DeviceStatus | None = None,
        group: str | None = None,
        text: str | None = None,
        after: str = "",
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> DevicePage:
        """The devices of a site in the order of their ids, those after `after`; see `pages.page`."""
        devices = await self.all()
        chosen = page(
            devices.values(),
            site,
            kind=kind,
            status=status,
            group=group,
            text=text,
            after=after,
            limit=limit,
        )
        return chosen.with_seen(await self.seen())

    async def seen(self) -> dict[str, Seen]:
        """When devices were last connected, by id."""
        if self._seen is None:
            return {}
        entries = await self._seen.newest()
        return {id_: msgspec.json.decode(entry.value, type=Seen) for id_, entry in entries.items()}

    async def by_alias(self, alias: str) -> str | None:
        """The id of the device that a name of another format (`owntracks/alice/phone`) leads to."""
        found = await self._alias(alias)
        if found is None or not found[0]:
            return None
        device = await self.get(found[0])
        return device.id if device is not None and alias in device.aliases else None

    def digest(self, alias: str) -> str:
        """The digest that stands for an alias in its key."""
        return hashlib.blake2b(alias.encode(), key=self._key, digest_size=16).hexdigest()

    # --- writing -------------------------------------------------------------------------------
    async def add(self, site: str, kind: Kind, **fields: Any) -> tuple[Device, str]:
        """Register a device; its secret is told here and never again.

        Args:
            site: the site's id.
            kind: what it is.
            fields: any of `CHANGEABLE`, as `Device` has them.

        Raises:
            AliasTakenError: an alias is another device's.
            DeviceError: a field isn't usable.
        """
        now_s = time.time()
        secret = credentials.new_secret()
        device = Device(id=new_handle(), site=site, kind=kind, created=now_s, changed=now_s)
        device = apply_changes(device, fields)
        device.secret = credentials.hash_secret(secret)
        await self._claim(device, device.aliases)
        if await self._bucket.replace(DEVICE_KEY.format(id=device.id), encode_device(device), 0) is None:
            raise DeviceError(device.id, "is a device already", "Try again")  # as likely as 1 in 10^24
        return device, secret

    async def change(self, id_: str, **fields: Any) -> Device:
        """Change some of `CHANGEABLE`; aliases and groups are replaced as a whole.

        Raises:
            UnknownDeviceError: there is no such device.
            AliasTakenError: an alias is another device's.
            DeviceError: a field isn't usable.
        """
        device = await self._update(id_, lambda device: apply_changes(device, fields))
        if device.status == "disabled":
            await self.end_links(id_)
        return device

    async def rotate(self, id_: str) -> tuple[Device, str]:
        """A new secret in place of the old one, which is refused from now on, as are signed tokens and links.

        Raises:
            UnknownDeviceError: there is no such device.
        """
        secret = credentials.new_secret()
        hash_, now_s = credentials.hash_secret(secret), time.time()
        device = await self._update(id_, lambda device: _replace(device, secret=hash_, valid_from=now_s))
        await self.end_links(id_)
        return device, secret

    async def disable(self, id_: str) -> Device:
        """Let it in no more; its connection is cut, and links to it end."""
        return await self.change(id_, status="disabled", resume=None)

    async def enable(self, id_: str) -> Device:
        """Let it in again, whether it was disabled or paused."""
        return await self.change(id_, status="active", resume=None)

    async def pause(self, id_: str, until: float | None = None) -> Device:
        """Count it no more until it is enabled, or until a moment (Unix seconds)."""
        return await self.change(id_, status="paused", resume=until)

    async def remove(self, id_: str) -> Device:
        """Let it in no more, and have everything about it erased: names at once, the rest by the erasure."""

        def removed(device: Device) -> Device:
            return _replace(
                device, status="erasing", secret="", certificate="", label="", groups=[], resume=None
            )

        device = await self._update(id_, removed, also_erasing=True)
        await self.end_links(id_)
        return device

    async def forget(self, id_: str) -> None:
        """Overwrite a device, its aliases and links on disk; the last step of erasing it."""
        await self.end_links(id_)
        device, _ = await self._entry(id_)
        for alias in device.aliases if device is not None else ():
            await self._release(alias, id_)
        await self._bucket.erase(DEVICE_KEY.format(id=id_))

    async def end_links(self, id_: str) -> int:
        """End all links of a device that nobody has used; how many those were."""
        entries = await self._bucket.newest(LINK_KEY.format(digest="*"))
        ended = 0
        for key, entry in entries.items():
            link = msgspec.json.decode(entry.value, type=Link)
            if link.device == id_ and await use_up_link(self._bucket, key, link, entry.revision):
                ended += link.left > 0
        return ended

    # --- inside --------------------------------------------------------------------------------
    async def _entry(self, id_: str) -> tuple[Device | None, int]:
        if ID.fullmatch(id_) is None:  # keys may hold wildcards
            return None, 0
        key = DEVICE_KEY.format(id=id_)
        entry = (await self._bucket.newest(key)).get(key)
        return (None, 0) if entry is None else (decode_device(entry.value), entry.revision)

    async def _update(
        self, id_: str, changed: Callable[[Device], Device], *, also_erasing: bool = False
    ) -> Device:
        key = DEVICE_KEY.format(id=id_)
        for attempt in range(_ATTEMPTS):
            device, revision = await self._entry(id_)
            if device is None:
                raise unknown_device(id_)
            if device.status == "erasing" and not also_erasing:
                if attempt:  # who watches has heard what was refused: say once more what is true
                    await self._bucket.rewrite(key, encode_device(device), revision)
                raise unknown_device(id_)
            after = changed(device)
            if after == device:
                return device
            after.changed = time.time()
            await self._claim(after, [alias for alias in after.aliases if alias not in device.aliases])
            if await self._bucket.rewrite(key, encode_device(after), revision):
                for alias in device.aliases:
                    if alias not in after.aliases:
                        await self._release(alias, id_)
                return after
            await asyncio.sleep(random.uniform(0, 0.01 * (attempt + 1)))  # noqa: S311  # no secret
        raise DeviceError(id_, "is being changed by somebody else all the time", "Try again")

    async def _alias(self, alias: str) -> tuple[str, Entry] | None:
        key = ALIAS_KEY.format(digest=self.digest(alias))
        entry = (await self._bucket.newest(key)).get(key)
        return None if entry is None else (msgspec.json.decode(entry.value, type=AliasOf).device, entry)

    async def _claim(self, device: Device, aliases: Sequence[str]) -> None:
        """Make aliases lead to a device that is about to be written, or none of them."""
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
        value = msgspec.json.encode(AliasOf(id_))
        key = ALIAS_KEY.format(digest=self.digest(alias))
        for _ in range(_ATTEMPTS):
            found = await self._alias(alias)
            if found is not None and found[0] == id_:
                return
            if found is not None and await self._taken(alias, *found):
                raise AliasTakenError(f"alias {alias!r}", "leads to another device", "Remove it there first")
            if await self._bucket.rewrite(key, value, found[1].revision if found else 0):
                return
        raise DeviceError(f"alias {alias!r}", "is being given away by others all the time", "Try again")

    async def _taken(self, alias: str, owner: str, entry: Entry) -> bool:
        if not owner:
            return False
        device = await self.get(owner)
        if device is not None and alias in device.aliases:
            return True
        return await self._bucket.now_s() - entry.stored_s < self.unfinished_s

    async def _release(self, alias: str, id_: str) -> None:
        """Erase an alias that leads to a device; those who watch are told first."""
        found = await self._alias(alias)
        if found is None or found[0] not in {id_, ""}:
            return
        key = ALIAS_KEY.format(digest=self.digest(alias))
        if await self._bucket.rewrite(key, msgspec.json.encode(AliasOf("")), found[1].revision):
            await self._bucket.erase(key)


async def use_up_link(bucket: Bucket, key: str, link: Link, revision: int) -> bool:
    """Use a link up and overwrite it; False: it has been used since."""
    used = msgspec.structs.replace(link, left=0)
    left_s = max(1, int(link.expires - time.time()) + _USED_LINK_EXTRA_S)
    if await bucket.rewrite(key, msgspec.json.encode(used), revision, ttl_s=left_s) is None:
        return False
    await bucket.erase(key)
    return True


def decode_device(value: bytes) -> Device:
    """A device as it is kept."""
    return msgspec.json.decode(value, type=Device)


def encode_device(device: Device) -> bytes:
    """The same, to be kept."""
    return msgspec.json.encode(device)


def unknown_device(id_: str) -> UnknownDeviceError:
    """There is no such device."""
    return UnknownDeviceError(
        f"device {id_[:64]!r}", "isn't registered", "`headcount device list` has all of them"
    )


def _replace(device: Device, **fields: Any) -> Device:
    return msgspec.structs.replace(device, **fields)


def apply_changes(device: Device, fields: dict[str, Any]) -> Device:
    """The device with other values of some of `CHANGEABLE`.

    Raises:
        DeviceError: one of them isn't usable.
    """
    for name in fields:
        if name not in CHANGEABLE:
            raise DeviceError(f"field {name!r}", "can't be changed", f"There are {', '.join(CHANGEABLE)}")
    if fields.get("status") == "erasing":
        raise DeviceError("status", "isn't set to `erasing`", "Remove the device instead")
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    try:  # with types checked as from outside
        device = msgspec.convert(msgspec.to_builtins(device) | fields, Device)
    except msgspec.ValidationError as error:
        raise DeviceError(f"device {device.id}", str(error), "See docs/guides/devices.md") from error
    validate_device(device)
    return device


def validate_device(device: Device) -> None:
    """Refuse what can't be a device.

    Raises:
        DeviceError: with the field, and what it may be.
    """
    if device.kind not in KINDS or ID.fullmatch(device.site) is None or HANDLE.fullmatch(device.id) is None:
        raise DeviceError(f"device {device.id[:64]!r}", "has no site, kind or id", "Name them")
    _check_text("label", device.label, MAX_LABEL_CHARS)
    for name in ("firmware", "app"):
        _check_text(name, getattr(device, name), MAX_TEXT_CHARS)
    for name, most in (("groups", MAX_GROUPS), ("aliases", MAX_ALIASES)):
        _check_list(name, getattr(device, name), most)
    if any(ID.fullmatch(group) is None for group in device.groups):
        raise DeviceError("groups", "use 1 to 64 of A-Z a-z 0-9 _ - for each", "Choose other names")
    if device.certificate and not _is_sha256(device.certificate):
        raise DeviceError("certificate", "is no SHA-256 in 64 hexadecimal digits", "Use `headcount ca`")


def _check_list(name: str, values: Sequence[str], most: int) -> None:
    if len(values) > most:
        raise DeviceError(name, f"are {len(values)}, but {most} are the most", "Use fewer")
    if len(set(values)) < len(values):
        raise DeviceError(name, "has one twice", "Name each once")
    for value in values:
        if not value:
            raise DeviceError(name, "has an empty one", "Leave it out")
        _check_text(name, value, MAX_TEXT_CHARS)


def _check_text(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise DeviceError(name, f"is {len(text)} characters long, but {most} are the most", "Shorten it")
    if not text.isprintable():
        raise DeviceError(
            name, "holds characters that can't be printed", "Use letters, digits, signs, spaces"
        )
    if text != text.strip():
        raise DeviceError(name, "begins or ends with a space", "Remove it")


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
