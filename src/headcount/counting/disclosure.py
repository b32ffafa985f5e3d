"""Public counts: no small count, no exact count, and nothing from which a small count follows.

With k, the smallest count that is published (reasons: docs/concepts/public-counts.md):

1. A count below the zone's threshold of the day, 0 included, is published as "<k". A keyed coin selects
   the threshold, for each day, zone and kind, from k and the next (k - 1) // 2 numbers: an attacker with
   devices of their own sees where a number appears, but not which count that is.
2. Any other count is published as one of the two multiples of k around it. A coin decides, weighted
   so that the mean is right; it is a keyed hash of day, site, zone, kind and count, so repeated
   requests get the same answer. (Statistical offices round at random to a base; that the same cell
   always gets the same error is the idea of the cell key method: Fraser and Wooton, "A proposed
   method for confidentialising tabular output to protect against differencing", 2005.)
3. Counts are published for multiples of GRID_S only, and for no instant in between.
4. Before numbers are published, they are attacked: bounds of everything unpublished are computed from
   the numbers and from the map (`relations`). Where the bounds leave a small count fewer than
   MIN_SMALLEST values, the number around it is rounded the other way; where that doesn't help
   either, it is withheld. The decision depends only on the new number and on what is already public.

Pure: the same key, instant and counts give the same answer, in any process, however often.
"""

from __future__ import annotations

import bisect
import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import I4
from headcount.counting.relations import I8, UNBOUNDED, CountRelations, relations
from headcount.counting.site import Site
from headcount.messages.times import DAY_S
from headcount.messages.topics import KINDS

#: Numbers are published for multiples of this, in Unix seconds.
GRID_S = 60.0
#: Number of values that a small count must still be able to have, given all that is public.
MIN_SMALLEST = 3
#: In place of a number: below k; withheld.
SUPPRESSED, WITHHELD = -1, -2
DAY_KEY_BYTES = 32

#: Whether each variable has too few values left.
Pins = NDArray[np.bool_]


def disclosure_key(secret: bytes) -> bytes:
    """The key of the coins, from the deployment's secret; 32 bytes."""
    return hashlib.blake2b(secret, person=b"public counts", digest_size=32).digest()


def spread(smallest: int) -> int:
    """The number of thresholds among which the coin selects."""
    return max(1, (smallest + 1) // 2)


def on_grid(at_s: float) -> bool:
    """Whether the numbers of this instant are published."""
    return round(at_s * 1000) % round(GRID_S * 1000) == 0


def grid_before(at_s: float) -> float:
    """The newest instant at or before this one whose numbers are published."""
    return math.floor(at_s / GRID_S) * GRID_S


def as_public(number: int, smallest: int) -> int | str | None:
    """A number of `Disclosure.publish` as it is written in JSON."""
    if number == SUPPRESSED:
        return f"<{smallest}"
    return None if number == WITHHELD else number


class Disclosure:
    """Exact counts of a site → public ones."""

    def __init__(self, site: Site, smallest: int, key: bytes) -> None:
        """Publish counts of `smallest` (k) or more; with 1, all counts unchanged. `key`: at most 64 bytes."""
        self.smallest = smallest
        self._site = site.id
        self._zones = tuple(zone.id for zone in site.zones)
        self._key = key
        self._relations: CountRelations | None = relations(site) if smallest > 1 else None
        # with k of 2 or 3, the sum of two small counts alone can reveal both
        self._least = min(MIN_SMALLEST, smallest - 1)

    def publish(self, at_s: float, counts: I4) -> I4:
        """The public numbers of an instant.

        Args:
            at_s: Unix seconds; its day (UTC) decides which coins are thrown.
            counts: int32 [Z, 2 kinds], all zones in the order of the site.

        Returns:
            int32 [Z, 2]: multiples of k, `SUPPRESSED`, `WITHHELD`. With k = 1, the counts unchanged.
        """
        if self._relations is None:
            return counts
        day_key = self.day_key(at_s)
        kinds = [
            self._publish_kind(
                self._relations, counts[:, i], self._rounded(self._relations, day_key, kind, counts[:, i])
            )
            for i, kind in enumerate(KINDS)
        ]
        public: I4 = np.stack(kinds, axis=1)
        return public

    def day_key(self, at_s: float) -> bytes:
        """The key of the coins on the day (UTC) of an instant in Unix seconds."""
        text = b"coins of day %d" % (at_s // DAY_S)
        return hashlib.blake2b(text, key=self._key, digest_size=DAY_KEY_BYTES).digest()

    def bounds(self, public: I4) -> tuple[I8, I8]:
        """The bounds of one kind's counts that its public numbers state by themselves; [Z] each."""
        k = self.smallest
        low = np.where(public == SUPPRESSED, 0, np.maximum(k, public.astype(np.int64) - k + 1))
        high = np.where(public == SUPPRESSED, k + spread(k) - 2, public.astype(np.int64) + k - 1)
        high[public == WITHHELD] = UNBOUNDED
        return low, high

    def _publish_kind(self, known: CountRelations, counts: I4, rounded: I4) -> I4:
        """Rounded numbers of one kind, changed where they would disclose too much.

        Zones are decided one after the other, each from what is public by then. Publishing more never
        widens a bound, so a binary search finds the first number that discloses too much.
        """
        if not self._pinned(known, rounded).any():
            return rounded
        public = np.where(rounded == SUPPRESSED, SUPPRESSED, WITHHELD).astype(np.int32)
        # which counts are small is published in any case
        given = self._pinned(known, public)
        waiting = [zone for zone in known.order if rounded[zone] != SUPPRESSED]
        while waiting:
            harmless = self._harmless(known, public, rounded, waiting, given)
            public[waiting[:harmless]] = rounded[waiting[:harmless]]
            if harmless < len(waiting):
                zone = waiting[harmless]
                public[zone] = self._other_way(int(counts[zone]), int(rounded[zone]))
                if (self._pinned(known, public) & ~given).any():
                    public[zone] = WITHHELD
            waiting = waiting[harmless + 1 :]
        return public

    def _harmless(
        self, known: CountRelations, public: I4, rounded: I4, waiting: list[int], given: Pins
    ) -> int:
        """How many of the waiting zones, in order, can be published as rounded."""

        def discloses_too_much(many: int) -> bool:
            trial = public.copy()
            trial[waiting[:many]] = rounded[waiting[:many]]
            return bool((self._pinned(known, trial) & ~given).any())

        return bisect.bisect_left(range(1, len(waiting) + 1), 1, key=lambda n: int(discloses_too_much(n)))

    def _other_way(self, count: int, rounded: int) -> int:
        down = count - count % self.smallest
        if rounded == down and count != down:
            return down + self.smallest
        return down

    def _pinned(self, known: CountRelations, public: I4) -> Pins:
        """Which small counts, published as small or never published, have too few values left."""
        low: I8 = np.zeros(len(known.names), np.int64)
        high: I8 = np.full(len(known.names), UNBOUNDED, np.int64)
        low[: known.zones], high[: known.zones] = self.bounds(public)
        low, high = known.narrow(low, high)
        hidden = high < self.smallest
        hidden[: known.zones] = (public == SUPPRESSED) & (low[: known.zones] < self.smallest)
        pins: Pins = hidden & (high - low + 1 < self._least)
        return pins

    def _rounded(self, known: CountRelations, day_key: bytes, kind: str, counts: I4) -> I4:
        """`SUPPRESSED`, or the multiple of k next to the count that its coin selects."""
        shown = counts >= [self._threshold(day_key, zone, kind) for zone in self._zones]
        # a zone around one that is shown has as many, so hiding it would only narrow what else is in it
        for zone in np.flatnonzero(shown).tolist():
            around = list(known.around[zone])
            shown[around] |= counts[around] >= self.smallest
        rounded = [
            self._round(day_key, zone, kind, count) if is_shown else SUPPRESSED
            for zone, count, is_shown in zip(self._zones, counts.tolist(), shown.tolist(), strict=True)
        ]
        return np.array(rounded, dtype=np.int32)

    def _threshold(self, day_key: bytes, zone: str, kind: str) -> int:
        return self.smallest + self._coin(day_key, f"{zone}|{kind}|threshold") % spread(self.smallest)

    def _coin(self, day_key: bytes, text: str) -> int:
        """Return a number of 64 bits that depends on day, site and text."""
        digest = hashlib.blake2b(f"{self._site}|{text}".encode(), key=day_key, digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _round(self, day_key: bytes, zone: str, kind: str, count: int) -> int:
        over = count % self.smallest
        coin = self._coin(day_key, f"{zone}|{kind}|{count}")
        return count - over + (self.smallest if coin * self.smallest < over << 64 else 0)
