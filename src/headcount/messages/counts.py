"""Counts and events.

Arrays inside messages are raw little-endian bytes with the dtype that the field's comment gives.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headcount.messages.topics import Kind

#: The fields of KindCount, in the order of the last axis of every counts array.
COUNT_FIELDS = ("count", "low", "high", "stale")


class KindCount(msgspec.Struct):
    """A zone's count of one kind with its bounds and its stale devices (rule 4)."""

    count: int
    low: int
    high: int
    stale: int


class PublicKindCount(msgspec.Struct):
    """A KindCount as the public sees it, after disclosure control (counting/disclosure.py)."""

    count: int | str | None  # a multiple of k; "<5" where it is below k = 5; None: suppressed
    low: None = None
    high: None = None
    stale: None = None


class ZoneCount(msgspec.Struct):
    """Exact counts (JSON), retained on EXACT_TOPIC; on COUNT_TOPIC where the public sees exact counts (k = 1)."""

    site: str
    zone: str
    at: str
    person: KindCount
    vehicle: KindCount


class PublicZoneCount(msgspec.Struct):
    """The public's counts (JSON), retained on COUNT_TOPIC."""

    site: str
    zone: str
    at: str
    person: PublicKindCount
    vehicle: PublicKindCount


class Event(msgspec.Struct):
    """One change of membership (rule 2): JSON on EVENT_SUBJECT, republished on EVENT_TOPIC."""

    id: str
    site: str
    zone: str
    type: Literal["enter", "exit"]
    kind: Kind
    device: str  # its daily pseudonym
    t: float
    reason: Literal["moved", "outside", "coarse", "silent", "removed", "site"]


class PartitionCounts(msgspec.Struct):
    """One partition's absolute counts at an instant (msgpack on COUNT_SUBJECT).

    They include every message of the partition's stream received at or before `at`, and no other.
    A total at `at` is the sum over all partitions with the same `at`; a larger epoch wins.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    seq: int  # the last stream sequence that is included
    at: float  # a multiple of TICK_S
    site_version: int  # of the site by which they are counted; the same in all partitions
    zones: int  # Z
    values: bytes  # int32 [Z, 2 kinds, 4 numbers], zones in the order of that version, `site` first
