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

from headcount.decoders import owntracks
from headcount.decoders.canonical import Outcome, Sender, canonical
from headcount.decoders.payload_keys import PayloadKeys
from headcount.decoding import Decoded, DecodedFix, DecodedStatus, Ignored, Message
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


class AliasResolver:
    """Resolves names of other formats to devices."""

    def __init__(self, secret: str, registered: RegisteredDevices, site: str) -> None:
        """Look names up in `registered` first; others are on `site`, with handles from the deployment's secret."""
        self._site = site
        self._key = hashlib.blake2b(b"foreign names", key=secret.encode()[:64], digest_size=32).digest()
        self._registered = registered
        self._payload_keys = PayloadKeys(secret)

    def decrypted(self, format_: str, payload: bytes, message: Message) -> bytes:
        """The payload of a message, decrypted if the device has a key; only OwnTracks encrypts.

        Raises:
            DecodeError: see `PayloadKeys.decrypt`.
        """
        name = owntracks.name_of(message.topic) if format_ == "owntracks" else ""
        device = self._registered_as(format_, name) if name else None
        return payload if device is None else self._payload_keys.decrypt(payload, device.payload_key)

    def outcome(self, format_: str, decoded: Decoded) -> Outcome:
        """The message of the device that a result names; ignored if the device is not active."""
        if not isinstance(decoded, DecodedFix | DecodedStatus):
            return decoded
        device = self._registered_as(format_, decoded.name)
        if device is None:
            return canonical(self.derived(format_, decoded.name, decoded.kind), decoded)
        if device.status != "active":
            return Ignored(device.status)
        return canonical(Sender(device.site, device.kind, device.id), decoded)

    def derived(self, format_: str, name: str, kind: Kind) -> Sender:
        """The sender that stands for an unregistered name."""
        text = f"{format_}\0{name}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(text, key=self._key, digest_size=_HANDLE_BYTES).digest()
        return Sender(self._site, kind, base64.b32encode(digest).decode().lower()[:_HANDLE_CHARS])

    def _registered_as(self, format_: str, name: str) -> Device | None:
        if format_ == "owntracks":  # the broker lets a device publish on the topics of its own handle alone
            user = name.partition("/")[0]
            if HANDLE.fullmatch(user) and (device := self._registered.get(user)):
                return device
        id_ = self._registered.by_alias(f"{format_}/{name}")
        return None if id_ is None else self._registered.get(id_)
