"""Received rows of the history that are not yet in a segment. Pure: no clock, no file.

Batches are repeated: the broker redelivers unacknowledged ones, and a worker that processes a part
of the log again sends the same rows. Within a partition they arrive in order, overlapping or not, so
a mark per partition separates new rows from old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import F8, I4, I8
from headcount.errors import LogError
from headcount.history.hours import T_MAX_S, T_MIN_S
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import FIX_TYPES, CountsAt, HistoryBatch, HistoryFixes
from headcount.messages.topics import KINDS

I2 = NDArray[np.int16]
#: Fixes as columns of equal length: `partition` (int16), and those of `FIX_TYPES`.
StoredColumns = dict[str, NDArray[Any]]

#: How long an instant waits for partitions that have not reported it. Waiting counts from its first
#: report, not from the instant itself: after a pause, partition 0 may send an hour of counts before
#: partition 1 begins.
WAIT_FOR_PARTITIONS_S = 600.0
#: Maximum number of waiting instants (two hours of them); beyond, the oldest are written incomplete.
MAX_WAITING = 720
#: Partitions are stored in 16 bits.
MAX_PARTITIONS = 32_767


@dataclass(frozen=True, slots=True)
class CountRows:
    """n rows of counts, one for each instant and zone."""

    at_s: F8
    zone: list[str]
    values: I4  # [n, 2 kinds, 4 numbers]
    partitions: I2  # the number of partitions in the sum
    partitions_total: I2


class PartitionProgress(msgspec.Struct):
    """The newest fix of a partition."""

    seq: int
    received_s: float  # the largest one so far


class PendingInstant(msgspec.Struct):
    """The counts of an instant, as far as partitions have reported it."""

    at: float
    since_s: float  # when the first report came, by the writer's clock
    total: int
    partitions: list[int]
    zones: list[str]
    values: bytes  # int32 [Z, 2, 4], the sum


class FlushRecord(msgspec.Struct):
    """The state of the history after a flush, sufficient to resume after a kill."""

    flush: int = 0
    segments: list[str] = msgspec.field(default_factory=list)  # of this flush, relative to the history
    progress: dict[int, PartitionProgress] = msgspec.field(default_factory=dict)
    counts_at: float = 0.0  # counts up to here are written; later reports of them are dropped
    waiting: list[PendingInstant] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flush:
    """The rows that are written atomically."""

    fixes: StoredColumns | None
    counts: CountRows | None
    written: FlushRecord


class HistoryBuffer:
    """Rows in memory, and the progress of the rows on disk.

    Limits: the caller flushes when `rows` is large enough; at most MAX_WAITING instants
    wait for partitions, and each at most WAIT_FOR_PARTITIONS_S.
    """

    def __init__(self, written: FlushRecord) -> None:
        self.rows = 0  # of fixes
        self.repeated = 0  # fixes dropped as repeated
        self._flush = written.flush
        self._progress = dict(written.progress)
        self._counts_at = written.counts_at
        self._waiting = {w.at: w for w in written.waiting}
        self._fixes: list[StoredColumns] = []
        self._changed = False

    def add(self, batch: HistoryBatch, now_s: float) -> None:
        """Add the new rows of a batch.

        Args:
            batch: in the order in which its partition sent it; repeats and overlaps are dropped.
            now_s: the writer's clock, Unix seconds; it bounds the wait for other partitions.

        Raises:
            LogError: the batch is inconsistent; none of its rows were added.
        """
        if not 0 <= batch.partition < batch.partitions <= MAX_PARTITIONS:
            raise LogError(
                f"history batch of partition {batch.partition} of {batch.partitions}: no such partition"
            )
        fixes = None if batch.fixes is None else _columns(batch.partition, batch.fixes)
        for counts in batch.counts:
            _check_counts(counts, batch)
        if fixes is not None:
            self._add_fixes(batch.partition, fixes)
        for counts in batch.counts:
            self._add_counts(batch, counts, now_s)

    def take(self, now_s: float) -> Flush | None:
        """Return everything to write to disk now, or None if nothing has changed."""
        due = self._due(now_s)
        if not self._changed and not due:
            return None
        self._flush += 1
        counts = _count_rows([self._waiting.pop(at) for at in due])
        self._counts_at = max([self._counts_at, *due])
        parts = self._fixes
        fixes = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else None
        self._fixes, self.rows, self._changed = [], 0, False
        written = FlushRecord(
            flush=self._flush,
            progress=dict(self._progress),
            counts_at=self._counts_at,
            waiting=list(self._waiting.values()),
        )
        return Flush(fixes, counts, written)

    def _add_fixes(self, partition: int, fixes: StoredColumns) -> None:
        seq, received_s = fixes["seq"], fixes["received"]
        known = self._progress.get(partition, PartitionProgress(0, 0.0))
        fresh = seq > known.seq
        # A repeated row is never received later than the latest row so far. One that is comes from
        # a new log (its folder was emptied), whose sequences start again.
        later = received_s > known.received_s
        if bool(np.any(~fresh & later)):
            fresh = later
        fresh &= _first_of_each(seq)
        count = int(np.count_nonzero(fresh))
        self.repeated += len(seq) - count
        if not count:
            return
        newest_s = max(known.received_s, float(received_s[fresh].max()))
        self._progress[partition] = PartitionProgress(int(seq[fresh].max()), newest_s)
        if count < len(seq):
            fixes = {name: column[fresh] for name, column in fixes.items()}
        self._fixes.append(fixes)
        self.rows += count
        self._changed = True

    def _add_counts(self, batch: HistoryBatch, counts: CountsAt, now_s: float) -> None:
        if counts.at <= self._counts_at:
            return
        known = self._waiting.get(counts.at) or PendingInstant(
            counts.at, now_s, batch.partitions, [], [], b""
        )
        if batch.partition in known.partitions:
            return
        zones, values = _sum((known.zones, _values(known.values)), (batch.zones, _values(counts.values)))
        self._waiting[counts.at] = PendingInstant(
            at=counts.at,
            since_s=known.since_s,
            total=batch.partitions,
            partitions=[*known.partitions, batch.partition],
            zones=zones,
            values=values.astype("<i4").tobytes(),
        )
        self._changed = True

    def _due(self, now_s: float) -> list[float]:
        """The instants to write now, in order: none older than these will be accepted later."""
        instants = sorted(self._waiting)
        until = instants[-MAX_WAITING - 1] if len(instants) > MAX_WAITING else 0.0
        for at in instants:
            w = self._waiting[at]
            if len(w.partitions) >= w.total or now_s - w.since_s >= WAIT_FOR_PARTITIONS_S:
                until = max(until, at)
        return [at for at in instants if at <= until]


def _first_of_each(seq: I8) -> NDArray[np.bool_]:
    first = np.zeros(len(seq), np.bool_)
    first[np.unique(seq, return_index=True)[1]] = True
    return first


def _columns(partition: int, fixes: HistoryFixes) -> StoredColumns:
    """The rows as they were sent, with their partition: views of the message's bytes.

    Raises:
        LogError: the columns differ in length, or hold impossible values.
    """
    try:
        columns = {name: np.frombuffer(getattr(fixes, name), type_) for name, type_ in FIX_TYPES.items()}
    except ValueError as error:
        raise LogError(f"history batch of partition {partition}: {error}") from error
    problem = _problem(columns)
    if problem:
        raise LogError(f"history batch of partition {partition}: {problem}")
    columns["t"] = columns["t"].clip(T_MIN_S, T_MAX_S)
    return {"partition": np.full(len(fixes.verdict), partition, np.int16), **columns}


def _problem(columns: dict[str, NDArray[Any]]) -> str | None:
    if len({len(column) for column in columns.values()}) > 1:
        return "its columns differ in length"
    received_s = columns["received"]
    if not ((received_s >= T_MIN_S) & (received_s <= T_MAX_S)).all() or np.isnan(columns["t"]).any():
        return "a time is not a number of seconds between 1970 and 9999"
    if not ((np.abs(columns["lat"]) <= 90) & (np.abs(columns["lon"]) <= 180)).all():
        return "a position is not on Earth"
    if (columns["kind"] >= len(KINDS)).any() or (columns["verdict"] >= len(VERDICTS)).any():
        return "an unknown kind or verdict"
    return None


def _check_counts(counts: CountsAt, batch: HistoryBatch) -> None:
    size = len(batch.zones) * len(KINDS) * len(COUNT_FIELDS) * 4
    if len(counts.values) != size or not T_MIN_S <= counts.at <= T_MAX_S:
        raise LogError(
            f"history batch of partition {batch.partition}: counts at {counts.at} have "
            f"{len(counts.values)} bytes, expected {size} for {len(batch.zones)} zones"
        )


def _values(raw: bytes) -> I4:
    return np.frombuffer(raw, "<i4").reshape(-1, len(KINDS), len(COUNT_FIELDS))


def _sum(*parts: tuple[list[str], I4]) -> tuple[list[str], I4]:
    """Sums by the zones' names: while the site file changes, partitions may differ in their zones."""
    names = list(dict.fromkeys(name for zones, _ in parts for name in zones))
    index = {name: i for i, name in enumerate(names)}
    total = np.zeros((len(names), len(KINDS), len(COUNT_FIELDS)), np.int32)
    for zones, values in parts:
        np.add.at(total, [index[name] for name in zones], values)
    return names, total


def _count_rows(instants: Iterable[PendingInstant]) -> CountRows | None:
    done = list(instants)
    if not any(w.zones for w in done):
        return None
    lengths = [len(w.zones) for w in done]
    return CountRows(
        at_s=np.repeat([w.at for w in done], lengths),
        zone=[zone for w in done for zone in w.zones],
        values=np.concatenate([_values(w.values) for w in done]),
        partitions=np.repeat(np.array([len(w.partitions) for w in done], np.int16), lengths),
        partitions_total=np.repeat(np.array([w.total for w in done], np.int16), lengths),
    )
