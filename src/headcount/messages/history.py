"""Rows from the counting workers to the history's writer, and requests to erase them.

Arrays are raw little-endian bytes with the dtype that the field's comment gives.
"""

from __future__ import annotations

import msgspec

#: The columns of HistoryFixes and their types. A pseudonym's bytes are its memory, whatever the machine's order.
FIX_TYPES = {
    "seq": "<i8",
    "t": "<f8",
    "received": "<f8",
    "device": "=u8",
    "kind": "u1",
    "lat": "<f8",
    "lon": "<f8",
    "acc": "<f4",
    "verdict": "u1",
}


class HistoryFixes(msgspec.Struct):
    """Rows of fixes as columns of equal length n."""

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
    """Rows of one site and partition (msgpack on HISTORY_SUBJECT).

    They are a pure function of the log: a worker that processes the same messages again sends the same
    rows, so a reader keeps the first row of each (site, partition, seq) and the first counts of each
    (site, partition, at), and drops the rest. Those of one site and partition come in the order of seq.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    zones: list[str]
    fixes: HistoryFixes | None
    counts: list[CountsAt]


class EraseRequest(msgspec.Struct):
    """A request to the history's writer (JSON on HISTORY_ERASE_SUBJECT): erase rows.

    Either the fixes of these pseudonyms on all sites, or the fixes and counts of a site that is not counted any more.
    """

    pseudonyms: list[str] = msgspec.field(default_factory=list)
    site: str = ""


class RowsStored(msgspec.Struct):
    """A worker's answer (JSON) on HISTORY_STORE_SUBJECT: its rows of these partitions are in the stream."""

    partitions: list[int]


class EraseReply(msgspec.Struct):
    """The number of erased rows; `error` states why some may be left."""

    rows: int = 0
    error: str = ""
    held: int = 0  # rows that a legal hold keeps, and that no query reads any more
