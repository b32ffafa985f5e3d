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
#: The partition of a slot without a device.
FREE = -1
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
    "partition": (np.int32, FREE),
}

#: The columns that are read and written for single devices only: one memory access reaches all those of a device.
SIDE_BY_SIDE = ("position_t_s", "x_m", "y_m", "acc_m", "implausible_t_s", "used_s", "offline_s")

#: The columns of a snapshot; the others are computed again after a restore.
SAVED = tuple(name for name in COLUMNS if name not in {"moved", "used_s", "partition"})


class PseudonymSource(Protocol):
    """A source of daily pseudonyms; `devices/pseudonyms.py` implements it."""

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices (keys such as `b"person.alice"`) on a day (its number since 1970)."""

    def knows(self, day: int) -> bool:
        """Whether the day's key is known; without it, pseudonyms are random and private to this object."""


class DeviceTable:
    """The state of every device of some partitions, as columns over slots (about 94 bytes, and the id beside it).

    A key, such as `b"person.alice"`, identifies a device by kind and id. Messages name a device by the prefix of
    its partition followed by the key, so a known name is found without cutting anything off.

    Devices are distinguished by the 64-bit hashes of their names alone; comparing the names too would
    cost more than everything else here. Among a million devices, the probability that two have the
    same hash and are counted as one is 3 in 100 million. Clients can't provoke that: Python draws the
    key of its hash function at random for each process.

    A dump of a partition holds no keys, only each device's pseudonym of the day on which its last used fix was
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
    partition: I4  # of the log; FREE = the slot has no device

    def __init__(self, names: PseudonymSource | None = None) -> None:
        """Start empty; without `names` the table can't be dumped and has no pseudonyms."""
        self._names = names
        self.generation = 0  # slots stay valid while it is the same
        #: partition → number of devices known by a daily pseudonym only; 0 is left out
        self._nameless: dict[int, int] = {}
        self._by_label: dict[tuple[int, int], HashIndex] = {}  # of these, by partition and day
        self._prefixes: dict[int, bytes] = {0: b""}
        self._index = HashIndex()
        self._keys: list[bytes | None] = []
        self._free: list[int] = []
        self._room = 0
        self._grow(256)

    def __len__(self) -> int:
        """The number of slots, free ones included: the used length of the columns."""
        return len(self._keys)

    @property
    def nameless(self) -> int:
        """The number of devices known by a daily pseudonym only."""
        return sum(self._nameless.values())

    @property
    def devices(self) -> int:
        """The number of known devices."""
        return len(self._index) + self.nameless

    @property
    def partitions(self) -> list[int]:
        """The partitions that may have devices."""
        return list(self._prefixes)

    def set_prefix(self, partition: int, prefix: bytes) -> None:
        """Set the part of a name before the key, for a partition without devices that have names."""
        self._prefixes[partition] = prefix

    def slots(self, names: list[bytes], admit: Callable[[bytes], bool], partition: int | I4 = 0) -> I4:
        """The slot of each name, int32 [n]; an unknown name gets one if `admit` accepts it, else NO_SLOT.

        Slots stay valid until `forget`.
        """
        hashes = _hashes(names)
        slots = self._index.find(hashes)
        unknown = np.flatnonzero(slots == NO_SLOT)
        if len(unknown):
            of = np.broadcast_to(partition, len(names))[unknown]
            for each in np.unique(of).tolist():
                self._name_slots(names, unknown[of == each].tolist(), each, admit, slots)
        return slots

    def _name_slots(
        self, names: list[bytes], rows: list[int], partition: int, admit: Callable[[bytes], bool], slots: I4
    ) -> None:
        """Set the slots of rows with unknown names of a partition."""
        if len(self._keys) + len(rows) // 4 > self._room:  # a name may occur in several rows
            self._grow(len(self._keys) + len(rows) // 4)
        met = self._recognised([names[row] for row in rows], partition) if partition in self._nameless else {}
        for row in rows:
            name = names[row]
            slot = met.get(name)
            if slot is None:
                slot = met[name] = self._enter(name, partition, admit)
            slots[row] = slot
        entered = [name for name, slot in met.items() if slot != NO_SLOT]
        self._index.add(_hashes(entered), np.array([met[name] for name in entered], dtype=np.int32))

    def find(self, key: bytes, partition: int = 0) -> int:
        """The slot of a key, NO_SLOT if unknown; a nameless slot that is found stays nameless."""
        slot = int(self._index.find(_hashes([self._prefix(partition) + key]))[0])
        if slot != NO_SLOT:
            return slot if self._keys[slot] == key else NO_SLOT
        return int(self._by_names([key], partition)[0]) if partition in self._nameless else NO_SLOT

    def _prefix(self, partition: int) -> bytes:
        return self._prefixes[partition]

    def key(self, slot: int) -> bytes:
        """The key of a slot's device, NO_KEY for a nameless slot."""
        key = self._keys[slot]
        if key is None:
            raise KeyError(slot)
        return key

    def forget(self, slots: Iterable[int]) -> None:
        """Remove devices; their slots are reused."""
        gone = np.array([slot for slot in slots if self._keys[slot] is not None], dtype=np.int32)
        self.generation += bool(len(gone))
        named = np.array([self._keys[slot] != NO_KEY for slot in gone.tolist()], dtype=np.bool_)
        if named.any():
            self._index.remove(gone[named])
        for partition, count in zip(
            *np.unique(self.partition[gone[~named]], return_counts=True), strict=True
        ):
            self._recognise(int(partition), int(count))
        for slot in gone.tolist():
            self._keys[slot] = None
        self._free += gone.tolist()
        for name, (_, empty) in COLUMNS.items():
            getattr(self, name)[gone] = empty

    # --- daily pseudonyms -----------------------------------------------------------------------------
    def names(self, slots: I4, day: int) -> U8:
        """Each device's pseudonym of a day, uint64 [n]; a nameless slot keeps the one that it has."""
        found = self.label[slots]
        other = self.label_day[slots] != day
        if other.any():
            self._name(np.unique(slots[other]), day)
            found = self.label[slots]
        return found

    def called(self, kind: int, labels: Mapping[int, int], partition: int = 0) -> I4:
        """The slots of a kind whose device has one of these pseudonyms: day → pseudonym."""
        taken = self.taken(partition)
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

    def _recognised(self, names: list[bytes], partition: int) -> dict[bytes, int]:
        """Set the keys of nameless slots whose devices sent messages; returns name → slot."""
        prefix = self._prefix(partition)
        start = len(prefix)
        new = [name for name in dict.fromkeys(names) if name.startswith(prefix)]
        if not new:
            return {}
        slots = self._by_names([name[start:] for name in new], partition).tolist()
        found = {name: slot for name, slot in zip(new, slots, strict=True) if slot != NO_SLOT}
        for name, slot in found.items():
            self._keys[slot] = name[start:]
        self._recognise(partition, len(found))
        return found

    def _by_names(self, keys: list[bytes], partition: int) -> I4:
        """The nameless slot of each key, int32 [n], else NO_SLOT."""
        found = np.full(len(keys), NO_SLOT, dtype=np.int32)
        names = self._names
        for (of, day), index in self._by_label.items():
            if of != partition or names is None or not names.knows(day):
                continue
            labels = names.many(keys, day)
            slots = index.find(labels.view(np.int64))
            for row in np.flatnonzero(slots != NO_SLOT).tolist():
                slot = int(slots[row])
                # the slot may have been reused
                is_nameless = self._keys[slot] == NO_KEY and self.partition[slot] == partition
                if is_nameless and self.label[slot] == labels[row]:
                    found[row] = slot
        return found

    def _recognise(self, partition: int, slots: int) -> None:
        """Count `slots` fewer nameless slots of a partition."""
        left = self._nameless.pop(partition, 0) - slots
        if left:
            self._nameless[partition] = left
            return
        for key in [key for key in self._by_label if key[0] == partition]:
            del self._by_label[key]

    def taken(self, partition: int | None = None) -> I4:
        """The slots that have a device, of one partition or of all, in order."""
        of = self.partition[: len(self)]
        return np.flatnonzero(of != FREE if partition is None else of == partition).astype(np.int32)

    def _enter(self, name: bytes, partition: int, admit: Callable[[bytes], bool]) -> int:
        """A slot for a new name; the caller adds it to the index."""
        prefix = self._prefix(partition)
        key = name[len(prefix) :]
        kind = _KIND_NUMBERS.get(key.partition(b".")[0])
        if kind is None or not name.startswith(prefix) or not admit(name):
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
        self.partition[slot] = partition
        return slot

    def _grow(self, room: int) -> None:
        rows: F8 = np.empty((room, len(SIDE_BY_SIDE)))
        for name, (dtype, empty) in COLUMNS.items():
            together = name in SIDE_BY_SIDE
            column: NDArray[Any] = rows[:, SIDE_BY_SIDE.index(name)] if together else np.empty(room, dtype)
            column[self._room :] = empty
            if self._room:
                column[: self._room] = getattr(self, name)
            setattr(self, name, column)
        self._room = room

    def dump(self, partition: int = 0) -> tuple[int, dict[str, bytes]]:
        """The number of devices of a partition with a used fix, and their columns in the order of their slots."""
        slots = self.taken(partition)
        slots = slots[~np.isnan(self.used_s[slots])]
        day = days(self.used_s[slots])
        other = self.label_day[slots] != day
        for each in np.unique(day[other]).tolist():
            self._name(slots[other & (day == each)], each)
        return len(slots), {name: getattr(self, name)[slots].tobytes() for name in SAVED}

    def load(self, n: int, columns: dict[str, bytes], partition: int = 0) -> None:
        """Add the devices that `dump` returned, all nameless, to a partition that has none.

        Raises:
            msgspec.ValidationError: if the columns don't have n rows; nothing is added then.
        """
        loaded: dict[str, NDArray[Any]] = {}
        for name in SAVED:
            data, dtype = columns.get(name, b""), np.dtype(COLUMNS[name][0])
            if len(data) != n * dtype.itemsize:
                raise msgspec.ValidationError(f"column {name} has {len(data)} bytes for {n} rows")
            loaded[name] = np.frombuffer(data, dtype=dtype)
        slots = self._new_slots([NO_KEY] * n)
        for name, column in loaded.items():
            getattr(self, name)[slots] = column
        self.moved[slots] = True
        day = self.label_day[slots]
        self.used_s[slots] = day * float(DAY_S)
        self.partition[slots] = partition
        self._set_nameless(partition, slots)

    def move(self, other: DeviceTable, partition: int) -> None:
        """Move the devices of a partition to another table that has none of it; `zones` go as they are."""
        slots = self.taken(partition)
        keys = [self.key(slot) for slot in slots.tolist()]
        new = other._new_slots(keys)
        for name in COLUMNS:
            getattr(other, name)[new] = getattr(self, name)[slots]
        other.moved[new] = True
        other.set_prefix(partition, self._prefix(partition))
        named = np.array([key != NO_KEY for key in keys], dtype=np.bool_)
        names = [self._prefix(partition) + key for key in keys if key != NO_KEY]
        other._index.add(_hashes(names), new[named])
        other._set_nameless(partition, new[~named])

    def _new_slots(self, keys: list[bytes]) -> I4:
        """Slots for devices that aren't in the index yet."""
        reused, start = self._free[: -len(keys) - 1 : -1], len(self)
        del self._free[len(self._free) - len(reused) :]
        end = start + len(keys) - len(reused)
        if end > self._room:
            self._grow(end)
        for slot, key in zip(reused, keys, strict=False):
            self._keys[slot] = key
        self._keys += keys[len(reused) :]
        return np.array([*reused, *range(start, end)], dtype=np.int32)

    def _set_nameless(self, partition: int, slots: I4) -> None:
        """Recognise the devices of these slots by their pseudonyms."""
        if not len(slots):
            return
        self._nameless[partition] = len(slots)
        day = self.label_day[slots]
        for each in np.unique(day)[-RECOGNITION_DAYS:].tolist():
            of_day = slots[day == each]
            self._by_label[partition, each] = HashIndex()
            self._by_label[partition, each].add(self.label[of_day].view(np.int64), of_day)


def _hashes(names: list[bytes]) -> I8:
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def days(t_s: F8) -> I4:
    """The day of each instant, int32 [n]; NEVER for NaN."""
    found: I4 = np.nan_to_num(t_s // DAY_S, nan=NEVER).astype(np.int32)
    return found
