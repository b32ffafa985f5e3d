"""Names for devices in everything that outlives the log: they say nothing, and change every day."""

from __future__ import annotations

import hashlib

from headcount.counting.fixes import F8

DAY_S = 86_400


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
        self._known: dict[bytes, str] = {}

    def of(self, key: bytes, t_s: float) -> str:
        """The pseudonym of a device (`b"person.alice"`) at a time in Unix seconds: 16 characters."""
        day = int(t_s // DAY_S)
        if day != self._day:
            self._day = day
            self._key = hashlib.blake2b(b"pseudonym %d" % day, key=self._secret[:64], digest_size=32).digest()
            self._known = {}
        known = self._known.get(key)
        if known is None:
            known = hashlib.blake2b(key, key=self._key, digest_size=8).hexdigest()
            self._known[key] = known
        return known

    def many(self, keys: list[bytes], t_s: F8) -> list[str]:
        """The pseudonyms of n devices at n times that don't decrease."""
        if not keys:
            return []
        if t_s[0] // DAY_S == t_s[-1] // DAY_S:
            self.of(keys[0], float(t_s[0]))
            found = list(map(self._known.get, keys))
            if None not in found:
                return [name for name in found if name is not None]
        return [self.of(key, t) for key, t in zip(keys, t_s.tolist(), strict=True)]

    def event(self, key: bytes, zone: str, change: str, t_s: float, reason: str) -> str:
        """The id of an event: the same whenever the log is replayed, and no way back to the device.

        The reason is part of it: who fell silent at some moment, came back with older fixes and left
        by moving at that same moment has left twice.
        """
        self.of(key, t_s)
        text = b"%s|%s|%s|%r|%s" % (key, zone.encode(), change.encode(), t_s, reason.encode())
        return hashlib.blake2b(text, key=self._key, digest_size=12).hexdigest()
