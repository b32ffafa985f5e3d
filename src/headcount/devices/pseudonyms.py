"""Daily pseudonyms: they replace device ids in everything that outlives the log."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # devices that need single pseudonyms do without numpy
    from headcount.counting.fix_columns import U8

#: Eight bytes, written as 16 hexadecimal digits.
PSEUDONYM_BYTES = 8
KEY_BYTES = 32


class Pseudonyms:
    """Keyed hashes of site, kind and id of a device, with a random key for each day (UTC).

    A device has the same pseudonym for a day, so that its events can be joined, and another one the next day.
    Devices of one id on two sites have different ones. The same key gives the same pseudonyms, so a replay of
    the log does, too; once the key is destroyed, no pseudonym can be linked to a device.
    """

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        """Use keys by day (days since 1970); keys added later are used, too."""
        self._keys = keys

    def on(self, site: str) -> SitePseudonyms:
        """The pseudonyms of the devices of a site."""
        return SitePseudonyms(self._keys, site)


class SitePseudonyms:
    """The pseudonyms of a site's devices, by their keys (`b"person.alice"`)."""

    def __init__(self, keys: Mapping[int, bytes], site: str) -> None:
        """See `Pseudonyms`."""
        self._keys = keys
        self._prefix = f"{site}.".encode()
        self._random: dict[int, bytes] = {}

    def knows(self, day: int) -> bool:
        """Whether the key of a day is known; without it, pseudonyms are random and private to this object."""
        return day in self._keys

    def of(self, key: bytes, day: int) -> str:
        """The pseudonym of a device on a day: 16 characters."""
        return self._bytes([key], day).hex()

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices on a day, as numbers.

        The column's memory, `tobytes()`, holds their bytes one after the other on any machine.
        """
        import numpy as np  # noqa: PLC0415  # only processes that use it pay for it

        return np.frombuffer(self._bytes(keys, day), dtype=np.uint64)

    def _bytes(self, keys: list[bytes], day: int) -> bytes:
        secret = self._keys.get(day) or self._random.setdefault(day, secrets.token_bytes(KEY_BYTES))
        blake2b, prefix = hashlib.blake2b, self._prefix
        return b"".join(
            [blake2b(prefix + key, key=secret, digest_size=PSEUDONYM_BYTES).digest() for key in keys]
        )


def event_id(device: str, zone: str, change: str, t_s: float, reason: str, seq: int) -> str:
    """The id of an event: the same in every replay of the log, and not linkable to the device.

    Args:
        device: the pseudonym in the event.
        zone: the zone's id.
        change: enter or exit.
        t_s: Unix seconds.
        reason: of the change. A device whose hold expires at some instant, that comes back with older fixes
            and moves out at the same instant, exits twice.
        seq: sequence of the message that caused the event, 0 for an expired hold. A device that is forgotten
            and sends the same fix again enters twice.
    """
    text = b"%s|%s|%s|%r|%s|%d" % (device.encode(), zone.encode(), change.encode(), t_s, reason.encode(), seq)
    return hashlib.blake2b(text, digest_size=12).hexdigest()
