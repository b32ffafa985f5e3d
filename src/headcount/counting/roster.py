"""Who has been heard of: one slot per device, its state as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headcount.counting.fixes import B1, F8, I4, U1
from headcount.wire import KINDS

NOBODY = -1

#: The columns of a roster, and what a slot holds before its device's first used fix.
COLUMNS: dict[str, tuple[type, float]] = {
    "kind": (np.uint8, 0),
    "last_t_s": (np.float64, np.nan),
    "position_t_s": (np.float64, np.nan),
    "x_m": (np.float64, np.nan),
    "y_m": (np.float64, np.nan),
    "acc_m": (np.float64, 0.0),
    "expires_s": (np.float64, np.inf),
    "zones": (np.int32, 0),
    "implausible_run": (np.uint8, 0),
    "offline": (np.bool_, False),
    "verdict": (np.uint8, 255),
    "moved": (np.bool_, False),
}

#: What a snapshot has of them; who restores it computes low and high anew.
SAVED = tuple(name for name in COLUMNS if name != "moved")


class Roster:
    """The state of every device, as columns over slots (about 60 bytes, and the id beside them).

    A key is `b"person.alice"`: kind and id together are who a device is.
    """

    kind: U1  # index into KINDS
    last_t_s: F8  # event time of the last used fix, NaN = none
    position_t_s: F8  # event time of the last used position, NaN = none
    x_m: F8  # last used position in the site's plane
    y_m: F8
    acc_m: F8  # its accuracy, 0 = unknown
    expires_s: F8  # present while now <= expires_s (rule 3); inf for devices in no zone
    zones: I4  # number of its set of zones (ZoneSets)
    implausible_run: U1
    offline: B1  # its last word was a last will
    verdict: U1  # of its last fix, 255 = none
    moved: B1  # position or zones changed since low and high were computed

    def __init__(self) -> None:
        """An empty roster."""
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes | None] = []
        self._free: list[int] = []
        self._room = 0
        self._grow(256)

    def __len__(self) -> int:
        """How many slots have been given out, free ones included: the length of what to look at."""
        return len(self._keys)

    @property
    def devices(self) -> int:
        """How many devices are known."""
        return len(self._slots)

    def slots(self, keys: list[bytes], admit: Callable[[bytes], bool]) -> I4:
        """The slot of each key, int32 [n]; unknown keys get one where `admit` says so, else NOBODY.

        Slots stay good until `forget`.
        """
        found = list(map(self._slots.get, keys))
        if None not in found:
            return np.array(found, dtype=np.int32)
        slots = [
            self._slot(key, admit) if slot is None else slot for key, slot in zip(keys, found, strict=True)
        ]
        return np.array(slots, dtype=np.int32)

    def find(self, key: bytes) -> int:
        """The slot of a key, NOBODY if unknown."""
        return self._slots.get(key, NOBODY)

    def key(self, slot: int) -> bytes:
        """Whose slot this is."""
        key = self._keys[slot]
        if key is None:
            raise KeyError(slot)
        return key

    def forget(self, slots: Iterable[int]) -> None:
        """Make these devices unheard of; their slots will be given to others."""
        for slot in slots:
            key = self._keys[slot]
            if key is not None:
                del self._slots[key]
                self._keys[slot] = None
                self._free.append(slot)
                self._clear(slot)

    def taken(self) -> I4:
        """The slots that have a device."""
        return np.array(sorted(self._slots.values()), dtype=np.int32)

    def _slot(self, key: bytes, admit: Callable[[bytes], bool]) -> int:
        slot = self._slots.get(key)
        if slot is not None:
            return slot
        kind = key.partition(b".")[0].decode(errors="replace")
        if kind not in KINDS or not admit(key):
            return NOBODY
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            if slot == self._room:
                self._grow(self._room + max(256, self._room // 8))
            self._keys.append(key)
        self.kind[slot] = KINDS.index(kind)
        self._slots[key] = slot
        return slot

    def _clear(self, slot: int) -> None:
        for name, (_, empty) in COLUMNS.items():
            getattr(self, name)[slot] = empty

    def _grow(self, room: int) -> None:
        for name, (dtype, empty) in COLUMNS.items():
            column: NDArray[Any] = np.full(room, empty, dtype=dtype)
            if self._room:
                column[: self._room] = getattr(self, name)
            setattr(self, name, column)
        self._room = room

    def dump(self) -> tuple[list[bytes], dict[str, bytes]]:
        """Keys and columns of the known devices, in the order of their slots."""
        slots = self.taken()
        keys = [self.key(slot) for slot in slots.tolist()]
        return keys, {name: getattr(self, name)[slots].tobytes() for name in SAVED}

    @classmethod
    def load(cls, keys: list[bytes], columns: dict[str, bytes]) -> Roster:
        """The roster that `dump` described.

        Raises:
            msgspec.ValidationError: if the columns don't fit the keys.
        """
        roster = cls()
        n = len(keys)
        roster._grow(max(256, n))
        roster._keys = list(keys)
        roster._slots = {key: slot for slot, key in enumerate(keys)}
        for name in SAVED:
            dtype = COLUMNS[name][0]
            column: NDArray[Any] = np.frombuffer(columns.get(name, b""), dtype=dtype)
            if len(column) != n:
                raise msgspec.ValidationError(f"column {name} has {len(column)} rows instead of {n}")
            getattr(roster, name)[:n] = column
        return roster
