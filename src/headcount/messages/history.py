"""Messages from a counting worker to the history.

Times are Unix seconds. Arrays are raw little-endian bytes with the dtype that the field's comment gives.
"""

from __future__ import annotations

import msgspec


class FixColumns(msgspec.Struct):
    """Rows of the history, as columns of equal length n."""

    seq: bytes  # int64 stream sequence
    t: bytes  # float64
    received: bytes  # float64
    device: bytes  # pseudonyms, 8 bytes each
    kind: bytes  # uint8 index into KINDS
    lat: bytes  # float64 degrees
    lon: bytes  # float64 degrees
    acc: bytes  # float32 metres, 0 = unknown
    verdict: bytes  # uint8 index into VERDICTS


class CountsAt(msgspec.Struct):
    """A partition's counts at one instant, for the history."""

    at: float
    values: bytes  # int32 [Z, 2, 4]


class HistoryBatch(msgspec.Struct):
    """Rows and counts of a partition, for the history (msgpack on `history.<p>`).

    It is a pure function of the log: processing the same messages again yields the same
    rows, so a reader keeps the first row of each (partition, seq) and the first counts of each
    (partition, at), and drops the rest.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    zones: list[str]
    fixes: FixColumns | None
    counts: list[CountsAt]
