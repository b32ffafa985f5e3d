"""What has come in for the history and is not yet in a segment. Pure: no clock, no file.

Batches come again: the broker delivers what was not acknowledged, and a worker that works through
a stretch of the log again sends the same rows. Per partition they come in order, overlapping or
not, so a mark per partition tells new rows from old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import F8, I4, I8, U1, U8
from headcount.errors import LogError
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import CountsAt, FixColumns, HistoryBatch
from headcount.messages.topics import KINDS

I2 = NDArray[np.int16]
F4 = NDArray[np.float32]

#: How long an instant waits for partitions that have not reported it. Waiting counts from its first
#: report, not from the instant itself: after a pause, partition 0 may bring an hour before partition
#: 1 begins.
WAIT_FOR_PARTITIONS_S = 600.0
#: Instants that may wait at once (two hours of them); beyond, the oldest are written incomplete.
MAX_WAITING = 720
#: Partitions are stored in 16 bits.
MAX_PARTITIONS = 32_767
#: The years 1970 to 9999; a hostile `t` is moved to the nearer end, because the row must be kept.
T_MIN_S, T_MAX_S = 0.0, 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class FixRows:
    """n rows of fixes; (partition, seq) names a row. All columns have length n."""

    partition: I2
    seq: I8
    t_s: F8
    received_s: F8
    device: U8  # pseudonyms: the memory of each is its bytes
    kind: U1  # index into wire.KINDS
    lat_deg: F8
    lon_deg: F8
    acc_m: F4  # 0 = unknown
    verdict: U1  # index into wire.VERDICTS

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.seq)


@dataclass(frozen=True, slots=True)
class CountRows:
    """n rows of counts, one for each instant and zone."""

    at_s: F8
    zone: list[str]
    values: I4  # [n, 2 kinds, 4 numbers]
    partitions: I2  # how many of them are in the sum
    partitions_total: I2


class PartitionProgress(msgspec.Struct):
    """How far a partition's fixes have come."""

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
    """What the history holds after a flush: all that is needed to go on after a kill."""

    flush: int = 0
    segments: list[str] = msgspec.field(default_factory=list)  # of this flush, relative to the history
    progress: dict[int, PartitionProgress] = msgspec.field(default_factory=dict)
    counts_at: float = 0.0  # counts up to here are written; later reports of them are dropped
    waiting: list[PendingInstant] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flush:
    """What goes to disk together, or not at all."""

    fixes: FixRows | None
    counts: CountRows | None
    written: FlushRecord


class HistoryBuffer:
    """Rows in memory, and what is known of the rows on disk.

    Limits: the caller flushes when `rows` is large enough to its taste; at most MAX_WAITING instants
    wait for partitions, and each at most WAIT_FOR_PARTITIONS_S.
    """

    def __init__(self, written: FlushRecord) -> None:
        """Go on after the flush that left `written`."""
        self.rows = 0  # of fixes
        self.repeated = 0  # fixes that were dropped because they were there already
        self._flush = written.flush
        self._progress = dict(written.progress)
        self._counts_at = written.counts_at
        self._waiting = {w.at: w for w in written.waiting}
        self._fixes: list[FixRows] = []
        self._changed = False

    def add(self, batch: HistoryBatch, now_s: float) -> None:
        """Keep what is new in a batch.

        Args:
            batch: in the order in which its partition sent it; repeats and overlaps are dropped.
            now_s: the writer's clock, Unix seconds; it bounds the wait for other partitions.

        Raises:
            LogError: the batch contradicts itself; nothing of it was kept.
        """
        if not 0 <= batch.partition < batch.partitions <= MAX_PARTITIONS:
            raise LogError(f"history batch of partition {batch.partition} of {batch.partitions}: no such one")
        fixes = None if batch.fixes is None else _fix_rows(batch.partition, batch.fixes)
        for counts in batch.counts:
            _check_counts(counts, batch)
        if fixes is not None:
            self._add_fixes(batch.partition, fixes)
        for counts in batch.counts:
            self._add_counts(batch, counts, now_s)

    def take(self, now_s: float) -> Flush | None:
        """Hand over everything that should go to disk now, or None where nothing has changed."""
        due = self._due(now_s)
        if not self._changed and not due:
            return None
        self._flush += 1
        counts = _count_rows([self._waiting.pop(at) for at in due])
        self._counts_at = max([self._counts_at, *due])
        fixes = _joined(self._fixes) if self._fixes else None
        self._fixes, self.rows, self._changed = [], 0, False
        written = FlushRecord(
            flush=self._flush,
            progress=dict(self._progress),
            counts_at=self._counts_at,
            waiting=list(self._waiting.values()),
        )
        return Flush(fixes, counts, written)

    def _add_fixes(self, partition: int, fixes: FixRows) -> None:
        seen = self._progress.get(partition, PartitionProgress(0, 0.0))
        fresh = fixes.seq > seen.seq
        # A repeated row was never received later than the latest row so far. One that was comes from
        # a log that began again (its folder was emptied), whose sequences start anew.
        later = fixes.received_s > seen.received_s
        if bool(np.any(~fresh & later)):
            fresh = later
        fresh &= _first_of_each(fixes.seq)
        self.repeated += len(fixes) - int(np.count_nonzero(fresh))
        if not fresh.any():
            return
        kept = fixes if fresh.all() else _chosen(fixes, fresh)
        self._progress[partition] = PartitionProgress(
            int(kept.seq.max()), max(seen.received_s, float(kept.received_s.max()))
        )
        self._fixes.append(kept)
        self.rows += len(kept)
        self._changed = True

    def _add_counts(self, batch: HistoryBatch, counts: CountsAt, now_s: float) -> None:
        if counts.at <= self._counts_at:
            return
        known = self._waiting.get(counts.at) or PendingInstant(
            counts.at, now_s, batch.partitions, [], [], b""
        )
        if batch.partition in known.partitions:
            return
        zones, values = _sum(
            (known.zones, _values(known.values)),
            (batch.zones, _values(counts.values)),
        )
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


def _fix_rows(partition: int, columns: FixColumns) -> FixRows:
    try:
        rows = FixRows(
            partition=np.full(len(columns.verdict), partition, np.int16),
            seq=np.frombuffer(columns.seq, "<i8"),
            t_s=np.frombuffer(columns.t, "<f8").clip(T_MIN_S, T_MAX_S),
            received_s=np.frombuffer(columns.received, "<f8"),
            device=np.frombuffer(columns.device, np.uint64),
            kind=np.frombuffer(columns.kind, np.uint8),
            lat_deg=np.frombuffer(columns.lat, "<f8"),
            lon_deg=np.frombuffer(columns.lon, "<f8"),
            acc_m=np.frombuffer(columns.acc, "<f4"),
            verdict=np.frombuffer(columns.verdict, np.uint8),
        )
    except (ValueError, OverflowError) as error:
        raise LogError(f"history batch of partition {partition}: {error}") from error
    problem = _problem(rows)
    if problem:
        raise LogError(f"history batch of partition {partition}: {problem}")
    return rows


def _problem(rows: FixRows) -> str | None:
    n = len(rows.verdict)
    columns = (
        rows.device,
        rows.seq,
        rows.t_s,
        rows.received_s,
        rows.kind,
        rows.lat_deg,
        rows.lon_deg,
        rows.acc_m,
    )
    if any(len(column) != n for column in columns):
        return "its columns differ in length"
    if not ((rows.received_s >= T_MIN_S) & (rows.received_s <= T_MAX_S)).all() or np.isnan(rows.t_s).any():
        return "a time is not a number of seconds between 1970 and 9999"
    if not ((np.abs(rows.lat_deg) <= 90) & (np.abs(rows.lon_deg) <= 180)).all():
        return "a position is not on Earth"
    if (rows.kind >= len(KINDS)).any() or (rows.verdict >= len(VERDICTS)).any():
        return "an unknown kind or verdict"
    return None


def _check_counts(counts: CountsAt, batch: HistoryBatch) -> None:
    size = len(batch.zones) * len(KINDS) * len(COUNT_FIELDS) * 4
    if len(counts.values) != size or not T_MIN_S <= counts.at <= T_MAX_S:
        raise LogError(
            f"history batch of partition {batch.partition}: counts at {counts.at} have "
            f"{len(counts.values)} bytes, expected {size} for {len(batch.zones)} zones"
        )


def _chosen(rows: FixRows, mask: NDArray[np.bool_]) -> FixRows:
    return FixRows(
        partition=rows.partition[mask],
        seq=rows.seq[mask],
        t_s=rows.t_s[mask],
        received_s=rows.received_s[mask],
        device=rows.device[mask],
        kind=rows.kind[mask],
        lat_deg=rows.lat_deg[mask],
        lon_deg=rows.lon_deg[mask],
        acc_m=rows.acc_m[mask],
        verdict=rows.verdict[mask],
    )


def _joined(parts: list[FixRows]) -> FixRows:
    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return FixRows(
        partition=column("partition"),
        seq=column("seq"),
        t_s=column("t_s"),
        received_s=column("received_s"),
        device=column("device"),
        kind=column("kind"),
        lat_deg=column("lat_deg"),
        lon_deg=column("lon_deg"),
        acc_m=column("acc_m"),
        verdict=column("verdict"),
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
