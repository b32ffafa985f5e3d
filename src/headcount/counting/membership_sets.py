"""Sets of zones as small integers, so that a device's memberships are one number in a column.

The zones themselves are bits: 64 in each word, n sets in an array of n rows. So the zones of many devices are
compared in a few operations, whatever their number.
"""

from __future__ import annotations

import weakref
from itertools import repeat
from typing import Protocol

import numpy as np

from headcount.counting.fix_columns import B1, F8, I4, I8, U8
from headcount.counting.site import Site

EMPTY = 0
WORD_BITS = 64
#: Numbers of unused sets are not looked for before there are this many sets.
MIN_COLLECTED = 8192
#: Nor before there are this many times as many as were in use the last time.
GROWTH = 2


class SetHolder(Protocol):
    """Has a column of set numbers, which stay valid."""

    zones: I4


class MembershipSets:
    """The sets of zones that devices are members of; set 0 is the empty one.

    Numbers that no device uses any longer are given to other sets, see `collect`: memory grows with the sets in
    use, not with those that occurred. `bits` and `hold_s` are tables over the numbers.
    """

    def __init__(self, site: Site) -> None:
        self._zone_hold_s = np.array([zone.hold_s for zone in site.zones], dtype=np.float64)
        self.words = -(-len(site.zones) // WORD_BITS)
        #: uint64 [sets, words]; rows beyond len(self) are room to grow.
        self.bits: U8 = np.zeros((64, self.words), dtype=np.uint64)
        #: float64 [sets, 2 kinds]: how long a member of the set stays present without a fix (rule 3).
        self.hold_s: F8 = np.full((64, 2), -np.inf)
        self._numbers: dict[bytes, int] = {bytes(8 * self.words): EMPTY}
        self._len = 1
        self._free: list[int] = []
        self._pinned = 1
        self._collect_at = MIN_COLLECTED
        self._holders: weakref.WeakSet[SetHolder] = weakref.WeakSet()

    def __len__(self) -> int:
        """One more than the highest number."""
        return self._len

    def __getitem__(self, number: int) -> list[int]:
        """The zones (indices) of a set, in order."""
        zones: list[int] = pairs(self.bits[number : number + 1])[1].tolist()
        return zones

    def numbers(self, bits: U8) -> I4:
        """The numbers of n sets, given as bits [n, words]."""
        keys: list[bytes] = np.ascontiguousarray(bits).view(f"V{8 * self.words}").ravel().tolist()
        found = np.fromiter(map(self._numbers.get, keys, repeat(-1)), dtype=np.int32, count=len(keys))
        unknown = np.flatnonzero(found < 0).tolist()
        if unknown:
            first = {keys[row]: row for row in unknown}
            new = self._new_numbers(len(first))
            self._numbers.update(zip(first, new.tolist(), strict=True))
            rows = bits[list(first.values())]
            self.bits[new] = rows
            row, zone = pairs(rows)
            hold_s = np.full((len(rows), 2), -np.inf)
            np.maximum.at(hold_s, row, self._zone_hold_s[zone])
            self.hold_s[new] = hold_s
            found[unknown] = [self._numbers[keys[row]] for row in unknown]
        return found

    def _new_numbers(self, n: int) -> I4:
        reused = [self._free.pop() for _ in range(min(n, len(self._free)))]
        end = self._len + n - len(reused)
        if end > len(self.bits):
            room = max(2 * len(self.bits), end) - len(self.bits)
            self.bits = np.vstack([self.bits, np.zeros((room, self.words), dtype=np.uint64)])
            self.hold_s = np.vstack([self.hold_s, np.full((room, 2), -np.inf)])
        numbers = np.array([*reused, *range(self._len, end)], dtype=np.int32)
        self._len = end
        return numbers

    def has(self, sets: I4, zone: I8) -> B1:
        """Whether each set has a zone: bool [n]."""
        word = self.bits[sets, zone // WORD_BITS]
        found: B1 = (word >> (zone % WORD_BITS).astype(np.uint64) & np.uint64(1)).astype(np.bool_)
        return found

    def on_site(self, sets: I4) -> B1:
        """Whether each set has the zone 0: bool [n]."""
        found: B1 = (self.bits[sets, 0] & np.uint64(1)).astype(np.bool_)
        return found

    def members(self, sets: I4 | I8) -> tuple[I8, I8]:
        """Pairs of (row, zone) for each zone of each row's set, in order."""
        return pairs(self.bits[sets])

    def without(self, sets: I4, row: I8, zone: I8) -> I4:
        """The sets with some zones removed, as pairs of (row, zone)."""
        return self.numbers(self.bits[sets] & ~self.from_pairs(row, zone, len(sets)))

    def from_pairs(self, row: I8, zone: I8, n: int) -> U8:
        """The bits [n, words] of pairs of (row, zone)."""
        bits = np.zeros((n, self.words), dtype=np.uint64)
        self.add_pairs(bits, row, zone)
        return bits

    def add_pairs(self, bits: U8, row: I8, zone: I8) -> None:
        """Add zones to sets, as pairs of (row, zone)."""
        mask = np.uint64(1) << (zone % WORD_BITS).astype(np.uint64)
        np.bitwise_or.at(bits, (row, zone // WORD_BITS), mask)

    def used(self, sets: I4) -> tuple[I8, I8]:
        """The distinct ones of n sets, and each one's index among them [n]."""
        seen = np.zeros(self._len, dtype=np.bool_)
        seen[sets] = True
        distinct = np.flatnonzero(seen)
        index = np.empty(self._len, dtype=np.int64)
        index[distinct] = np.arange(len(distinct))
        return distinct, index[sets]

    def changes(self, old: I4, new: I4) -> tuple[I8, I8, B1]:
        """The zones in which n pairs of sets differ: row, zone, and whether `new` has it. Those left come first."""
        old_bits, new_bits = self.bits[old], self.bits[new]
        row, zone = pairs(np.hstack([old_bits & ~new_bits, new_bits & ~old_bits]))
        zones = self.words * WORD_BITS
        return row, zone % zones, zone >= zones

    # --- unused sets -----------------------------------------------------------------------------------
    def pin(self) -> None:
        """Never reuse the numbers of the sets that exist now."""
        self._pinned = self._len
        self._collect_at = max(self._collect_at, GROWTH * self._len)

    def track(self, holder: SetHolder) -> None:
        """Keep the sets in a column of numbers as long as its owner exists."""
        self._holders.add(holder)

    def untrack(self, holder: SetHolder) -> None:
        """No longer keep the sets in a column."""
        self._holders.discard(holder)

    def collect(self) -> None:
        """If there are many sets, free the numbers that are neither pinned nor in a tracked column."""
        if len(self._numbers) < self._collect_at:
            return
        is_used = np.zeros(self._len, dtype=np.bool_)
        is_used[: self._pinned] = True
        for holder in self._holders:
            is_used[holder.zones] = True
        self._numbers = {key: number for key, number in self._numbers.items() if is_used[number]}
        self._free = np.flatnonzero(~is_used)[::-1].tolist()
        self._collect_at = max(MIN_COLLECTED, GROWTH * len(self._numbers))


def pairs(bits: U8) -> tuple[I8, I8]:
    """The bits that are set, as (row, number of the bit); rows in order, and the bits of each."""
    # indices into one dimension are found several times as fast
    words = bits.ravel().nonzero()[0]
    octets = bits.take(words).astype("<u8", copy=False).view(np.uint8)
    found = np.unpackbits(octets, bitorder="little").view(np.bool_).nonzero()[0]
    number = found // WORD_BITS
    word = words[number]
    row = word // bits.shape[1]
    return row, (word - row * bits.shape[1] - number) * WORD_BITS + found
