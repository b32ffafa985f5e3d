"""Counts and events, as published.

Times are Unix seconds. Arrays inside messages are raw little-endian bytes with the dtype that the
field's comment gives.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headcount.messages.topics import Kind

#: The numbers of a count, in the order of the last axis of every counts array.
COUNT_FIELDS = ("count", "low", "high", "stale")


class KindCount(msgspec.Struct):
    """A zone's count of one kind, and what surrounds it (rule 4)."""

    count: int
    low: int
    high: int
    stale: int


class PublicKindCount(msgspec.Struct):
    """The public numbers of a count (counting/disclosure.py), with the same fields."""

    count: int | str | None  # a multiple of k; "<5" if it is below k = 5; None: withheld
    low: None = None
    high: None = None
    stale: None = None


class ZoneCount(msgspec.Struct):
    """The retained message on `headcount/{site}/counts/{zone}` if nothing is suppressed (k = 1); else on EXACT_TOPIC."""

    site: str
    zone: str
    at: str
    person: KindCount
    vehicle: KindCount


class PublicZoneCount(msgspec.Struct):
    """The retained message on `headcount/{site}/counts/{zone}` where small counts are hidden."""

    site: str
    zone: str
    at: str
    person: PublicKindCount
    vehicle: PublicKindCount


class Event(msgspec.Struct):
    """The message on `headcount/{site}/events/{zone}`: one change of membership (rule 2)."""

    id: str
    site: str
    zone: str
    type: Literal["enter", "exit"]
    kind: Kind
    device: str  # a pseudonym of the day
    t: float
    reason: Literal["moved", "outside", "silent", "removed"]


class PartitionCounts(msgspec.Struct):
    """One partition's absolute counts at an instant (msgpack on `count.<p>`).

    They hold every message of the partition's stream received at or before `at`, and no other.
    A total at `at` is the sum over all partitions with the same `at`; a larger epoch wins.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    seq: int  # the last stream sequence that is counted in
    at: float  # a multiple of TICK_S
    zones: int  # Z
    values: bytes  # int32 [Z, 2 kinds, 4 numbers], zones in the order of the site file, `site` first
