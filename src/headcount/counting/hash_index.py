"""Hashes → slots: a hash table of columns that looks up whole batches.

A dict of Python objects costs several cache misses a lookup and a hundred bytes a device; this one
costs about one, and 24 to 48 bytes.
"""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import I4, I8

NO_SLOT = -1


class HashIndex:
    """Open addressing with linear probing, at most half full.

    The hashes are those of `hash(bytes)`: 64 bits, of a function whose key Python draws at random
    for each process, so clients can't choose names that collide
    (the role `count` doesn't start where that key is fixed).
    """

    def __init__(self) -> None:
        self._size = 0
        self._make(256)

    def _make(self, room: int) -> None:
        self._mask = room - 1
        self._hash: I8 = np.zeros(room, dtype=np.int64)
        self._slot: I4 = np.full(room, NO_SLOT, dtype=np.int32)

    def __len__(self) -> int:
        return self._size

    def find(self, hashes: I8) -> I4:
        """The slot of each hash, int32 [n], NO_SLOT where it is unknown."""
        place = hashes & self._mask
        slots = self._slot.take(place)
        rows = np.flatnonzero(self._hash.take(place) != hashes)
        place = place[rows]
        while len(rows):
            # an empty place ends the search: known hashes come before it
            rows, place = rows[slots[rows] != NO_SLOT], place[slots[rows] != NO_SLOT]
            place = (place + 1) & self._mask
            slots[rows] = self._slot[place]
            other = self._hash[place] != hashes[rows]
            rows, place = rows[other], place[other]
        return slots

    def add(self, hashes: I8, slots: I4) -> None:
        """Add hashes that are not in the index, each once."""
        self._size += len(hashes)
        if 2 * self._size > len(self._slot):
            used = self._slot != NO_SLOT
            hashes = np.concatenate([self._hash[used], hashes])
            slots = np.concatenate([self._slot[used], slots])
            self._make(1 << (2 * self._size - 1).bit_length())
        place = hashes & self._mask
        while len(slots):
            free = self._slot[place] == NO_SLOT
            # where several want the same place, one gets it, and the others go on
            self._slot[place[free]] = slots[free]
            left = self._slot[place] != slots
            self._hash[place[~left]] = hashes[~left]
            hashes, slots, place = hashes[left], slots[left], (place[left] + 1) & self._mask

    def remove(self, slots: I4) -> None:
        """Remove the hashes of these slots."""
        gone = np.isin(self._slot, slots) & (self._slot != NO_SLOT)
        stay = ~gone & (self._slot != NO_SLOT)
        hashes, others = self._hash[stay], self._slot[stay]
        self._size = 0
        self._make(max(256, 1 << (2 * len(others) - 1).bit_length()))
        self.add(hashes, others)
