"""Which device a name of another format means. The name itself gets no further than this.

    a registered handle as OwnTracks user    that device
    an alias in the registry                 the device that has it
    any other name                           a handle that is derived from it

A derived handle is a keyed hash: the same name has the same one for as long as the deployment has its
secret, nobody without the secret can go from one to the other, and it never is a registered device's.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Protocol

from headcount.messages.records import Device
from headcount.messages.topics import HANDLE, Kind

#: Characters of a handle, see `wire.HANDLE_PATTERN`; 13 bytes in base 32 have enough.
_HANDLE_CHARS, _HANDLE_BYTES = 20, 13


class RegisteredDevices(Protocol):
    """What is asked of the registry's copy in memory."""

    def get(self, id_: str) -> Device | None:
        """The device with this id."""

    def by_alias(self, alias: str) -> str | None:
        """The id of the device that has this alias."""


class InactiveDeviceError(Exception):
    """The name means a device that isn't to be counted now; the text is its status, a word for a metric."""


class AliasResolver:
    """From names of other formats to devices."""

    def __init__(self, secret: str, registered: RegisteredDevices) -> None:
        """Derive handles by the deployment's secret; ask `registered` first."""
        self._key = hashlib.blake2b(b"foreign names", key=secret.encode()[:64], digest_size=32).digest()
        self._registered = registered

    def owntracks(self, user: str, device: str, kind: Kind) -> tuple[Kind, str]:
        """Kind and id of the device behind `owntracks/{user}/{device}`; `kind` where it isn't registered.

        Raises:
            Absent: it is registered, and not active.
        """
        named = self._registered.get(user) if HANDLE.fullmatch(user) else None
        return self._known(named) if named else self._of("owntracks", f"{user}/{device}", kind)

    def iotp(self, name: str, kind: Kind) -> tuple[Kind, str]:
        """Kind and id of the device with this `id` in its payload; `kind` where it isn't registered.

        Raises:
            Absent: it is registered, and not active.
        """
        return self._of("iotp", name, kind)

    def _of(self, format_: str, name: str, kind: Kind) -> tuple[Kind, str]:
        id_ = self._registered.by_alias(f"{format_}/{name}")
        device = None if id_ is None else self._registered.get(id_)
        return self._known(device) if device else (kind, self._derived(format_, name))

    def _known(self, device: Device) -> tuple[Kind, str]:
        if device.status != "active":
            raise InactiveDeviceError(device.status)
        return device.kind, device.id

    def _derived(self, format_: str, name: str) -> str:
        text = f"{format_}\0{name}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(text, key=self._key, digest_size=_HANDLE_BYTES).digest()
        return base64.b32encode(digest).decode().lower()[:_HANDLE_CHARS]
