"""Who has been heard of: one slot per device, its state as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headcount.counting.fixes import B1, F8, I4, I8, U1, U8
from headcount.counting.index import NOTHING, Index
from headcount.wire import KINDS

NOBODY = NOTHING

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
    "label": (np.uint64, 0),
}

#: What a snapshot has of them; who restores it computes the rest anew.
SAVED = tuple(name for name in COLUMNS if name not in {"moved", "label"})


class Roster:
    """The state of every device, as columns over slots (about 70 bytes, and the id beside them).

    A key is `b"person.alice"`: kind and id together are who a device is. Messages call a device by a
    name, `prefix` and then the key, so that nothing need be cut off where a name is known already.

    Devices are told apart by the 64-bit hashes of their names alone; comparing the names too would
    cost more than everything else here. Of a million devices two have the same hash, and are counted
    as one, with a probability of 3 in 100 million. Nobody can bring that about: Python's hash has a
    key that is drawn for each process.
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
    label: U8  # whatever the engine's user wants to remember of a device; 0 = nothing

    def __init__(self) -> None:
        """An empty roster."""
        self._prefix = b""
        self._index = Index()
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
        return len(self._index)

    @property
    def prefix(self) -> bytes:
        """What stands before the key in a name."""
        return self._prefix

    @prefix.setter
    def prefix(self, prefix: bytes) -> None:
        self._prefix = prefix
        slots = self.taken()
        self._index = Index()
        self._index.add(_hashes([prefix + self.key(slot) for slot in slots.tolist()]), slots)

    def slots(self, names: list[bytes], admit: Callable[[bytes], bool]) -> I4:
        """The slot of each name, int32 [n]; unknown ones get one where `admit` allows their key, else NOBODY.

        Slots stay good until `forget`.
        """
        hashes = _hashes(names)
        slots = self._index.find(hashes)
        unknown = np.flatnonzero(slots == NOBODY)
        if len(unknown):
            met: dict[bytes, int] = {}
            for row in unknown.tolist():
                name = names[row]
                slot = met.get(name)
                if slot is None:
                    slot = met[name] = self._enter(name, admit)
                slots[row] = slot
            entered = [name for name, slot in met.items() if slot != NOBODY]
            self._index.add(_hashes(entered), np.array([met[name] for name in entered], dtype=np.int32))
        return slots

    def find(self, key: bytes) -> int:
        """The slot of a key, NOBODY if unknown."""
        slot = int(self._index.find(_hashes([self._prefix + key]))[0])
        return slot if slot != NOBODY and self._keys[slot] == key else NOBODY

    def key(self, slot: int) -> bytes:
        """Whose slot this is."""
        key = self._keys[slot]
        if key is None:
            raise KeyError(slot)
        return key

    def forget(self, slots: Iterable[int]) -> None:
        """Make these devices unheard of; their slots will be given to others."""
        gone = [slot for slot in slots if self._keys[slot] is not None]
        if not gone:
            return
        self._index.remove(np.array(gone, dtype=np.int32))
        for slot in gone:
            self._keys[slot] = None
            self._free.append(slot)
            self._clear(slot)

    def taken(self) -> I4:
        """The slots that have a device, in order."""
        return np.array([slot for slot, key in enumerate(self._keys) if key is not None], dtype=np.int32)

    def _enter(self, name: bytes, admit: Callable[[bytes], bool]) -> int:
        """A slot for a name that is new; the caller adds it to the index."""
        key = name[len(self._prefix) :]
        kind = key.partition(b".")[0].decode(errors="replace")
        if not name.startswith(self._prefix) or kind not in KINDS or not admit(key):
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
        roster._index.add(_hashes(keys), np.arange(n, dtype=np.int32))
        for name in SAVED:
            dtype = COLUMNS[name][0]
            column: NDArray[Any] = np.frombuffer(columns.get(name, b""), dtype=dtype)
            if len(column) != n:
                raise msgspec.ValidationError(f"column {name} has {len(column)} rows instead of {n}")
            getattr(roster, name)[:n] = column
        return roster


def _hashes(names: list[bytes]) -> I8:
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))
