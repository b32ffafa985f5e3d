"""What the public is told of counts: nothing small, nothing exact, nothing that gives the small ones away.

With k, the smallest count that is told (docs/concepts/public-counts.md has the why):

1. A count below k is told as "<k", 0 as well.
2. Another one is told as one of the two multiples of k around it. A coin decides, weighted so that
   the mean is right; it is a keyed hash of day, site, zone, kind and count, so that whoever asks
   again gets the same answer. (Rounding at random to a base is what statistical offices do; that
   the same cell always gets the same error is the idea of the cell key method: Fraser and Wooton,
   "A proposed method for confidentialising tabular output to protect against differencing", 2005.)
3. All of it is told at multiples of GRID_S only, and of between nothing.
4. Before it is told, it is attacked: from what would be public and from the map (`relations`),
   bounds of all that isn't told are worked out. Where they would leave a small count fewer than
   LEAST_POSSIBLE values, the number around it is rounded the other way; where that doesn't help
   either, it is withheld. What decides are only what is public already and the new number itself.

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

#: Seconds between the instants whose numbers the public is told: multiples of it.
GRID_S = 60.0
#: In how many ways a small count must be able to be, by all that is public.
MIN_SMALLEST = 3
#: In place of a number: below k; not told at all.
SUPPRESSED, WITHHELD = -1, -2
DAY_KEY_BYTES = 32

#: Of each variable, whether too little is open about it.
Pins = NDArray[np.bool_]


def disclosure_key(secret: bytes) -> bytes:
    """The key of the coins, from the deployment's secret; 32 bytes."""
    return hashlib.blake2b(secret, person=b"public counts", digest_size=32).digest()


def on_grid(at_s: float) -> bool:
    """Whether the public is told the numbers of this instant."""
    return round(at_s * 1000) % round(GRID_S * 1000) == 0


def grid_before(at_s: float) -> float:
    """The newest instant at or before this one of which the public is told."""
    return math.floor(at_s / GRID_S) * GRID_S


def as_public(number: int, smallest: int) -> int | str | None:
    """A number of `Disclosure.publish` as it is written in JSON."""
    if number == SUPPRESSED:
        return f"<{smallest}"
    return None if number == WITHHELD else number


class Disclosure:
    """Exact counts of a site → public ones."""

    def __init__(self, site: Site, smallest: int, key: bytes) -> None:
        """Tell counts of `smallest` (k) and more; 1 = all of them as they are. `key`: at most 64 bytes."""
        self.smallest = smallest
        self._site = site.id
        self._zones = tuple(zone.id for zone in site.zones)
        self._key = key
        self._relations: CountRelations | None = relations(site) if smallest > 1 else None
        # with k of 2 or 3, two small counts that make up a larger one are known by that alone
        self._least = min(MIN_SMALLEST, smallest - 1)

    def publish(self, at_s: float, counts: I4) -> I4:
        """The public numbers of an instant.

        Args:
            at_s: Unix seconds; its day (UTC) decides which coins are thrown.
            counts: int32 [Z, 2 kinds], of all zones in the order of the site.

        Returns:
            int32 [Z, 2]: multiples of k, `SUPPRESSED`, `WITHHELD`. With k = 1 the counts as they are.
        """
        if self._relations is None:
            return counts
        day_key = hashlib.blake2b(
            b"coins of day %d" % (at_s // DAY_S), key=self._key, digest_size=DAY_KEY_BYTES
        ).digest()
        kinds = [
            self._publish_kind(self._relations, counts[:, i], self._rounded(day_key, kind, counts[:, i]))
            for i, kind in enumerate(KINDS)
        ]
        public: I4 = np.stack(kinds, axis=1)
        return public

    def bounds(self, public: I4) -> tuple[I8, I8]:
        """What the public knows of one kind's counts from its numbers, before any reasoning; [Z] each."""
        k = self.smallest
        low = np.where(public == SUPPRESSED, 0, np.maximum(k, public.astype(np.int64) - k + 1))
        high = np.where(public == SUPPRESSED, k - 1, public.astype(np.int64) + k - 1)
        high[public == WITHHELD] = UNBOUNDED
        return low, high

    def _publish_kind(self, known: CountRelations, counts: I4, rounded: I4) -> I4:
        """Rounded numbers of one kind, with those changed that would say too much.

        Zones are settled one after the other, so that each decision follows from what is public by
        then. More that is public never leaves more possible, so the first number that says too much
        is found by halving.
        """
        if not self._pinned(known, rounded).any():
            return rounded
        public = np.where(rounded == SUPPRESSED, SUPPRESSED, WITHHELD).astype(np.int32)
        # what small and large say by themselves is said in any case
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
        """How many of those waiting can be told as rounded, in their order."""

        def say_too_much(many: int) -> bool:
            trial = public.copy()
            trial[waiting[:many]] = rounded[waiting[:many]]
            return bool((self._pinned(known, trial) & ~given).any())

        return bisect.bisect_left(range(1, len(waiting) + 1), 1, key=lambda many: int(say_too_much(many)))

    def _other_way(self, count: int, rounded: int) -> int:
        down = count - count % self.smallest
        if rounded == down and count != down:
            return down + self.smallest
        return down

    def _pinned(self, known: CountRelations, public: I4) -> Pins:
        """Which small counts, told as such or never told at all, have too few values left."""
        low: I8 = np.zeros(len(known.names), np.int64)
        high: I8 = np.full(len(known.names), UNBOUNDED, np.int64)
        low[: known.zones], high[: known.zones] = self.bounds(public)
        low, high = known.narrow(low, high)
        hidden = high < self.smallest
        hidden[: known.zones] &= public == SUPPRESSED
        pins: Pins = hidden & (high - low + 1 < self._least)
        return pins

    def _rounded(self, day_key: bytes, kind: str, counts: I4) -> I4:
        """`SUPPRESSED`, or a multiple of k beside the count, as its coin says."""
        return np.array(
            [
                SUPPRESSED if count < self.smallest else self._round(day_key, zone, kind, count)
                for zone, count in zip(self._zones, counts.tolist(), strict=True)
            ],
            dtype=np.int32,
        )

    def _round(self, day_key: bytes, zone: str, kind: str, count: int) -> int:
        over = count % self.smallest
        text = f"{self._site}|{zone}|{kind}|{count}".encode()
        coin = int.from_bytes(hashlib.blake2b(text, key=day_key, digest_size=8).digest(), "big")
        return count - over + (self.smallest if coin * self.smallest < over << 64 else 0)
