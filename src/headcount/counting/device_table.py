"""The known devices: one slot for each, its state as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1, F8, I4, I8, U1, U8
from headcount.counting.hash_index import NO_SLOT, HashIndex
from headcount.messages.times import DAY_S
from headcount.messages.topics import KINDS

#: No day: nothing was received or no pseudonym was computed.
NEVER = -1
#: The key of a restored slot until a message of its device is received.
NO_KEY = b""
#: Number of days, newest first, whose pseudonyms are compared to recognise the devices of restored slots.
RECOGNITION_DAYS = 4

_KIND_NUMBERS = {kind.encode(): number for number, kind in enumerate(KINDS)}

#: The columns of a device table, and what a slot holds before its device's first used fix.
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
    "implausible_t_s": (np.float64, np.nan),
    "offline_s": (np.float64, np.inf),
    "verdict": (np.uint8, 255),
    "moved": (np.bool_, False),
    "used_s": (np.float64, np.nan),
    "label": (np.uint64, 0),
    "label_day": (np.int32, NEVER),
}

#: The columns of a snapshot; the others are computed again after a restore.
SAVED = tuple(name for name in COLUMNS if name not in {"moved", "used_s"})


class PseudonymSource(Protocol):
    """A source of daily pseudonyms; `devices/pseudonyms.py` implements it."""

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices (keys such as `b"person.alice"`) on a day (its number since 1970)."""

    def knows(self, day: int) -> bool:
        """Whether the day's key is known; without it, pseudonyms are random and private to this object."""


class DeviceTable:
    """The state of every device, as columns over slots (about 90 bytes, and the id beside them).

    A key, such as `b"person.alice"`, identifies a device by kind and id. Messages name a device by
    `prefix` followed by the key, so a known name is found without cutting anything off.

    Devices are distinguished by the 64-bit hashes of their names alone; comparing the names too would
    cost more than everything else here. Among a million devices, the probability that two have the
    same hash and are counted as one is 3 in 100 million. Clients can't provoke that: Python draws the
    key of its hash function at random for each process.

    A dump holds no keys, only each device's pseudonym of the day on which its last used fix was
    received. A loaded slot is nameless until a message of its device is received: an unknown key is
    compared with the nameless slots by its pseudonyms of the days that occur among them.
    """

    kind: U1  # index into KINDS
    last_t_s: F8  # event time of the last used fix, NaN = none
    position_t_s: F8  # event time of the last used position, NaN = none
    x_m: F8  # last used position in the site's plane
    y_m: F8
    acc_m: F8  # its accuracy, 0 = unknown
    expires_s: F8  # present while now <= expires_s (rule 3); inf for devices in no zone
    zones: I4  # number of its set of zones (MembershipSets)
    implausible_run: U1
    implausible_t_s: F8  # event time of the last implausible fix, NaN = none
    offline_s: F8  # when its last will was received, inf = online
    verdict: U1  # of its last fix, 255 = none
    moved: B1  # position or zones changed since low and high were computed
    used_s: F8  # when its last used fix was received; exact only to the day in a loaded slot
    label: U8  # its pseudonym of the day `label_day`
    label_day: I4  # NEVER = not computed yet

    def __init__(self, names: PseudonymSource | None = None) -> None:
        """Start empty; without `names` the table can't be dumped and has no pseudonyms."""
        self._names = names
        self.generation = 0  # slots stay valid while it is the same
        self.nameless = 0  # number of devices known by a daily pseudonym only
        self._by_label: dict[int, HashIndex] = {}
        self._prefix = b""
        self._index = HashIndex()
        self._keys: list[bytes | None] = []
        self._free: list[int] = []
        self._room = 0
        self._grow(256)

    def __len__(self) -> int:
        """The number of slots, free ones included: the used length of the columns."""
        return len(self._keys)

    @property
    def devices(self) -> int:
        """The number of known devices."""
        return len(self._index) + self.nameless

    @property
    def prefix(self) -> bytes:
        """The part of a name before the key."""
        return self._prefix

    @prefix.setter
    def prefix(self, prefix: bytes) -> None:
        self._prefix = prefix
        slots = self._named()
        self._index = HashIndex()
        self._index.add(_hashes([prefix + self.key(slot) for slot in slots.tolist()]), slots)

    def slots(self, names: list[bytes], admit: Callable[[bytes], bool]) -> I4:
        """The slot of each name, int32 [n]; an unknown name gets one if `admit` accepts its key, else NO_SLOT.

        Slots stay valid until `forget`.
        """
        hashes = _hashes(names)
        slots = self._index.find(hashes)
        unknown = np.flatnonzero(slots == NO_SLOT)
        if len(unknown):
            rows = unknown.tolist()
            if len(self._keys) + len(rows) // 4 > self._room:  # a name may occur in several rows
                self._grow(len(self._keys) + len(rows) // 4)
            met = self._recognised([names[row] for row in rows]) if self.nameless else {}
            for row in rows:
                name = names[row]
                slot = met.get(name)
                if slot is None:
                    slot = met[name] = self._enter(name, admit)
                slots[row] = slot
            entered = [name for name, slot in met.items() if slot != NO_SLOT]
            self._index.add(_hashes(entered), np.array([met[name] for name in entered], dtype=np.int32))
        return slots

    def find(self, key: bytes) -> int:
        """The slot of a key, NO_SLOT if unknown; a nameless slot that is found stays nameless."""
        slot = int(self._index.find(_hashes([self._prefix + key]))[0])
        if slot != NO_SLOT:
            return slot if self._keys[slot] == key else NO_SLOT
        return int(self._by_names([key])[0]) if self.nameless else NO_SLOT

    def key(self, slot: int) -> bytes:
        """The key of a slot's device, NO_KEY for a nameless slot."""
        key = self._keys[slot]
        if key is None:
            raise KeyError(slot)
        return key

    def forget(self, slots: Iterable[int]) -> None:
        """Remove devices; their slots are reused."""
        gone = [slot for slot in slots if self._keys[slot] is not None]
        self.generation += bool(gone)
        named = [slot for slot in gone if self._keys[slot] != NO_KEY]
        if named:
            self._index.remove(np.array(named, dtype=np.int32))
        self._recognise(len(gone) - len(named))
        for slot in gone:
            self._keys[slot] = None
            self._free.append(slot)
            for name, (_, empty) in COLUMNS.items():
                getattr(self, name)[slot] = empty

    # --- daily pseudonyms -----------------------------------------------------------------------------
    def names(self, slots: I4, day: int) -> U8:
        """Each device's pseudonym of a day, uint64 [n]; a nameless slot keeps the one that it has."""
        found = self.label[slots]
        other = self.label_day[slots] != day
        if other.any():
            self._name(np.unique(slots[other]), day)
            found = self.label[slots]
        return found

    def called(self, kind: int, labels: Mapping[int, int]) -> I4:
        """The slots of a kind whose device has one of these pseudonyms: day → pseudonym."""
        taken = self.taken()
        taken = taken[self.kind[taken] == kind]
        known = [day for day in labels if self._names is not None and self._names.knows(day)]
        other = ~np.isin(self.label_day[taken], list(labels))
        if other.any() and known:
            self._name(taken[other], max(known))
        found = np.zeros(len(taken), dtype=np.bool_)
        for day, label in labels.items():
            found |= (self.label_day[taken] == day) & (self.label[taken] == np.uint64(label))
        called: I4 = taken[found]
        return called

    def _name(self, slots: I4, day: int) -> None:
        """Compute the pseudonyms of some slots, each once; nameless slots keep theirs."""
        if self._names is None:
            raise ValueError("the device table has no source of pseudonyms")
        keys = [self.key(slot) for slot in slots.tolist()]
        if self.nameless:
            slots, keys = slots[[key != NO_KEY for key in keys]], [key for key in keys if key != NO_KEY]
        self.label[slots] = self._names.many(keys, day)
        self.label_day[slots] = day

    def _recognised(self, names: list[bytes]) -> dict[bytes, int]:
        """Set the keys of nameless slots whose devices sent messages; returns name → slot."""
        start = len(self._prefix)
        new = [name for name in dict.fromkeys(names) if name.startswith(self._prefix)]
        if not new:
            return {}
        slots = self._by_names([name[start:] for name in new]).tolist()
        found = {name: slot for name, slot in zip(new, slots, strict=True) if slot != NO_SLOT}
        for name, slot in found.items():
            self._keys[slot] = name[start:]
        self._recognise(len(found))
        return found

    def _by_names(self, keys: list[bytes]) -> I4:
        """The nameless slot of each key, int32 [n], else NO_SLOT."""
        found = np.full(len(keys), NO_SLOT, dtype=np.int32)
        names = self._names
        for day, index in self._by_label.items():
            if names is None or not names.knows(day):
                continue
            labels = names.many(keys, day)
            slots = index.find(labels.view(np.int64))
            for row in np.flatnonzero(slots != NO_SLOT).tolist():
                slot = int(slots[row])
                # the slot may have been reused
                if self._keys[slot] == NO_KEY and self.label[slot] == labels[row]:
                    found[row] = slot
        return found

    def _recognise(self, slots: int) -> None:
        """Count `slots` fewer nameless slots."""
        self.nameless -= slots
        if not self.nameless:
            self._by_label = {}

    def taken(self) -> I4:
        """The slots that have a device, in order."""
        return np.array([slot for slot, key in enumerate(self._keys) if key is not None], dtype=np.int32)

    def _named(self) -> I4:
        return np.array([slot for slot, key in enumerate(self._keys) if key], dtype=np.int32)

    def _enter(self, name: bytes, admit: Callable[[bytes], bool]) -> int:
        """A slot for a new name; the caller adds it to the index."""
        key = name[len(self._prefix) :]
        kind = _KIND_NUMBERS.get(key.partition(b".")[0])
        if kind is None or not name.startswith(self._prefix) or not admit(key):
            return NO_SLOT
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            if slot == self._room:
                self._grow(self._room + max(256, self._room // 8))
            self._keys.append(key)
        self.kind[slot] = kind
        return slot

    def _grow(self, room: int) -> None:
        for name, (dtype, empty) in COLUMNS.items():
            column: NDArray[Any] = np.full(room, empty, dtype=dtype)
            if self._room:
                column[: self._room] = getattr(self, name)
            setattr(self, name, column)
        self._room = room

    def dump(self) -> tuple[int, dict[str, bytes]]:
        """The number of devices with a used fix, and their columns in the order of their slots."""
        slots = self.taken()
        slots = slots[~np.isnan(self.used_s[slots])]
        day = days(self.used_s[slots])
        other = self.label_day[slots] != day
        for each in np.unique(day[other]).tolist():
            self._name(slots[other & (day == each)], each)
        return len(slots), {name: getattr(self, name)[slots].tobytes() for name in SAVED}

    @classmethod
    def load(cls, n: int, columns: dict[str, bytes], names: PseudonymSource | None = None) -> DeviceTable:
        """The table that `dump` returned, with all slots nameless.

        Raises:
            msgspec.ValidationError: if the columns don't have n rows.
        """
        table = cls(names)
        for name in SAVED:
            data, dtype = columns.get(name, b""), np.dtype(COLUMNS[name][0])
            if len(data) != n * dtype.itemsize:
                raise msgspec.ValidationError(f"column {name} has {len(data)} bytes for {n} rows")
            column: NDArray[Any] = np.frombuffer(data, dtype=dtype)
            if n > table._room:
                table._grow(n)
            getattr(table, name)[:n] = column
        table._keys = [NO_KEY] * n
        table.nameless = n
        day = table.label_day[:n]
        table.used_s[:n] = day * float(DAY_S)
        for each in np.unique(day)[-RECOGNITION_DAYS:].tolist():
            slots = np.flatnonzero(day == each).astype(np.int32)
            table._by_label[each] = HashIndex()
            table._by_label[each].add(table.label[slots].view(np.int64), slots)
        return table


def _hashes(names: list[bytes]) -> I8:
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def days(t_s: F8) -> I4:
    """The day of each instant, int32 [n]; NEVER for NaN."""
    found: I4 = np.nan_to_num(t_s // DAY_S, nan=NEVER).astype(np.int32)
    return found
