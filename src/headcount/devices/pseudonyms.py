"""Names for devices in everything that outlives the log: they say nothing, and change every day."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

import numpy as np

from headcount.counting.fix_batch import U8

#: Eight bytes, told as 16 hexadecimal digits.
PSEUDONYM_BYTES = 8
KEY_BYTES = 32


class Pseudonyms:
    """Keyed hashes of device keys (`b"person.alice"`), with a random key for each day (UTC).

    The same device has the same pseudonym within a day, so that its events can be put together,
    and another one the next day. Whoever has the day's key gives the same names, so a replay of the
    log does; once it is destroyed nobody can say any more whose name it was.
    """

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        """Use these keys of days (their numbers since 1970); what is added later is used too."""
        self._keys = keys
        self._random: dict[int, bytes] = {}

    def knows(self, day: int) -> bool:
        """Whether that day's key is there. Without it names are random: no others know them."""
        return day in self._keys

    def of(self, key: bytes, day: int) -> str:
        """The pseudonym of a device on a day: 16 characters."""
        return self._bytes([key], day).hex()

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices on a day, as numbers.

        The memory of the column, `tobytes()`, is their bytes one after the other on any machine.
        """
        return np.frombuffer(self._bytes(keys, day), dtype=np.uint64)

    def _bytes(self, keys: list[bytes], day: int) -> bytes:
        secret = self._keys.get(day) or self._random.setdefault(day, secrets.token_bytes(KEY_BYTES))
        return b"".join(
            [hashlib.blake2b(key, key=secret, digest_size=PSEUDONYM_BYTES).digest() for key in keys]
        )


def event_id(device: str, zone: str, change: str, t_s: float, reason: str, seq: int) -> str:
    """The id of an event: the same whenever the log is replayed, and no way back to the device.

    Args:
        device: its pseudonym, as the event has it.
        zone: which one.
        change: enter or exit.
        t_s: Unix seconds.
        reason: who fell silent at some moment, came back with older fixes and left by moving at that
            same moment has left twice.
        seq: sequence of the message that led to it, 0 for silence: who was forgotten and comes with the
            same fix once more has entered twice.
    """
    text = b"%s|%s|%s|%r|%s|%d" % (device.encode(), zone.encode(), change.encode(), t_s, reason.encode(), seq)
    return hashlib.blake2b(text, digest_size=12).hexdigest()
