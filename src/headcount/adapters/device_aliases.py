"""Resolve names of other formats to devices; the names themselves go no further.

    a registered handle as OwnTracks user    that device
    an alias in the registry                 the device with the alias
    any other name                           a derived handle

A derived handle is a keyed hash: a name has the same one as long as the deployment has its secret, neither
can be computed from the other without the secret, and it is never the id of a registered device.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Protocol

from headcount.adapters.decoding import Sender
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE, Kind

#: Characters of a handle, see `topics.HANDLE_PATTERN`; 13 bytes in base 32 are enough.
_HANDLE_CHARS, _HANDLE_BYTES = 20, 13


class RegisteredDevices(Protocol):
    """The part of the registry's copy in memory that is used here."""

    def get(self, id_: str) -> Device | None:
        """The device with this id."""

    def by_alias(self, alias: str) -> str | None:
        """The id of the device with this alias."""


class InactiveDeviceError(Exception):
    """The device is not to be counted now; the text is its status, a label of a metric. Never leaves this package."""


class AliasResolver:
    """Resolves names of other formats to devices."""

    def __init__(self, secret: str, registered: RegisteredDevices, site: str) -> None:
        """Look names up in `registered` first; others are on `site`, with handles from the deployment's secret."""
        self._site = site
        self._key = hashlib.blake2b(b"foreign names", key=secret.encode()[:64], digest_size=32).digest()
        self._registered = registered

    def owntracks(self, user: str, device: str, kind: Kind) -> Sender:
        """The device of `owntracks/{user}/{device}`; `kind` applies to unregistered devices.

        Raises:
            InactiveDeviceError: the device is registered, but not active.
        """
        named = self._registered.get(user) if HANDLE.fullmatch(user) else None
        return self._known(named) if named else self._of("owntracks", f"{user}/{device}", kind)

    def iotp(self, name: str, kind: Kind) -> Sender:
        """The device with this `id` in its payload; `kind` applies to unregistered devices.

        Raises:
            InactiveDeviceError: the device is registered, but not active.
        """
        return self._of("iotp", name, kind)

    def _of(self, format_: str, name: str, kind: Kind) -> Sender:
        id_ = self._registered.by_alias(f"{format_}/{name}")
        device = None if id_ is None else self._registered.get(id_)
        return self._known(device) if device else Sender(self._site, kind, self._derived(format_, name))

    def _known(self, device: Device) -> Sender:
        if device.status != "active":
            raise InactiveDeviceError(device.status)
        return Sender(device.site, device.kind, device.id)

    def _derived(self, format_: str, name: str) -> str:
        text = f"{format_}\0{name}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(text, key=self._key, digest_size=_HANDLE_BYTES).digest()
        return base64.b32encode(digest).decode().lower()[:_HANDLE_CHARS]
