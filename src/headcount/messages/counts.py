"""Counts and events.

Arrays inside messages are raw little-endian bytes with the dtype that the field's comment gives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import msgspec

from headcount.messages.topics import KINDS, Kind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The fields of KindCount, in the order of the last axis of every counts array.
COUNT_FIELDS = ("count", "low", "high", "stale")
#: Bytes of a zone's counts: int32 for each kind and number.
ZONE_BYTES = 4 * len(KINDS) * len(COUNT_FIELDS)
#: Of compression: the fastest.
_LEVEL = 1


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
    """One partition's absolute counts at an instant.

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


class _CountsMessage(msgspec.Struct, array_like=True):
    """The counts of several partitions at one instant (msgpack on COUNT_SUBJECT of the first of them)."""

    site: str
    partitions: int
    at: float
    site_version: int
    zones: int
    of: list[tuple[int, int, int]]  # partition, epoch, seq
    values: bytes  # compressed: their values, one after the other


class _CountsHead(msgspec.Struct, array_like=True):
    """The first field of a `_CountsMessage`."""

    site: str


_decode = msgspec.msgpack.Decoder(_CountsMessage).decode
_decode_head = msgspec.msgpack.Decoder(_CountsHead).decode


def encode_counts(counts: Sequence[PartitionCounts]) -> bytes:
    """The message with the counts of one or more partitions of a site at one instant."""
    first = counts[0]
    values = zstd.compress(b"".join(each.values for each in counts), _LEVEL)
    of = [(each.partition, each.epoch, each.seq) for each in counts]
    return msgspec.msgpack.encode(
        _CountsMessage(first.site, first.partitions, first.at, first.site_version, first.zones, of, values)
    )


def site_of_counts(payload: bytes) -> str:
    """The id of the site whose counts are in a message, which is not decompressed.

    Raises:
        msgspec.MsgspecError: if it is damaged.
    """
    return _decode_head(payload).site


def decode_counts(payload: bytes) -> list[PartitionCounts]:
    """The counts of a message.

    Raises:
        msgspec.MsgspecError: if it is damaged.
    """
    message = _decode(payload)
    size = message.zones * ZONE_BYTES
    try:
        values = zstd.ZstdDecompressor().decompress(message.values, size * len(message.of))
    except zstd.ZstdError as error:
        raise msgspec.ValidationError(f"damaged counts: {error}") from error
    if len(values) != size * len(message.of):
        raise msgspec.ValidationError(f"{len(values)} bytes of counts for {message.zones} zones")
    return [
        PartitionCounts(
            message.site,
            partition,
            message.partitions,
            epoch,
            seq,
            message.at,
            message.site_version,
            message.zones,
            values[size * place : size * (place + 1)],
        )
        for place, (partition, epoch, seq) in enumerate(message.of)
    ]
