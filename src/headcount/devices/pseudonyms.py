"""Names for devices in everything that outlives the log: they say nothing, and change every day."""

from __future__ import annotations

import hashlib

import numpy as np

from headcount.counting.fixes import U8

DAY_S = 86_400
#: Eight bytes, told as 16 hexadecimal digits.
PSEUDONYM_BYTES = 8


class Pseudonyms:
    """Keyed hashes of device keys; the key is derived from a secret and the day (UTC).

    The same device has the same pseudonym within a day, so that its events can be put together,
    and another one the next day. A replay of the log gives the same pseudonyms.
    """

    def __init__(self, secret: bytes) -> None:
        """Derive day keys from this secret."""
        self._secret = secret
        self._day = -1
        self._key = b""

    def of(self, key: bytes, t_s: float) -> str:
        """The pseudonym of a device (`b"person.alice"`) at a time in Unix seconds: 16 characters."""
        return self._bytes(key, int(t_s // DAY_S)).hex()

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices on a day (its number since 1970), as numbers.

        The memory of the column, `tobytes()`, is their bytes one after the other on any machine.
        """
        return np.frombuffer(b"".join([self._bytes(key, day) for key in keys]), dtype=np.uint64)

    def event(self, key: bytes, zone: str, change: str, t_s: float, reason: str) -> str:
        """The id of an event: the same whenever the log is replayed, and no way back to the device.

        The reason is part of it: who fell silent at some moment, came back with older fixes and left
        by moving at that same moment has left twice.
        """
        text = b"%s|%s|%s|%r|%s" % (key, zone.encode(), change.encode(), t_s, reason.encode())
        return hashlib.blake2b(text, key=self._of_day(int(t_s // DAY_S)), digest_size=12).hexdigest()

    def _bytes(self, key: bytes, day: int) -> bytes:
        return hashlib.blake2b(key, key=self._of_day(day), digest_size=PSEUDONYM_BYTES).digest()

    def _of_day(self, day: int) -> bytes:
        if day != self._day:
            self._day = day
            self._key = hashlib.blake2b(b"pseudonym %d" % day, key=self._secret[:64], digest_size=32).digest()
        return self._key
