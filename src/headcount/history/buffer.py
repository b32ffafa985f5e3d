"""Received rows of the history that are not yet in a segment. Pure: no clock, no file.

Batches are repeated: the broker redelivers unacknowledged ones, and a worker that processes a part
of the log again sends the same rows. Those of one site and partition arrive in order, overlapping or
not, so a mark per site and partition separates new rows from old ones.
"""

from __future__ import annotations

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
#: Fixes as columns of equal length: `partition` (int16), and those of `FIX_TYPES`; in a flush also `site`
#: (int16, index into its sites).
StoredColumns = dict[str, NDArray[Any]]

#: How long an instant waits for partitions that have not reported it. Waiting counts from its first
#: report, not from the instant itself: after a pause, partition 0 may send an hour of counts before
#: partition 1 begins.
WAIT_FOR_PARTITIONS_S = 600.0
#: Maximum number of waiting instants of a site (two hours); beyond, the oldest are written incomplete.
MAX_WAITING = 720
#: Partitions are stored in 16 bits.
MAX_PARTITIONS = 32_767
#: The marks of a site without newer rows are dropped: the stream and the log hold none of its rows any more.
KEEP_MARKS_S = 26 * 3600.0


@dataclass(frozen=True, slots=True)
class CountRows:
    """n rows of counts, one for each instant, site and zone."""

    at_s: F8
    site: list[str]
    zone: list[str]
    values: I4  # [n, 2 kinds, 4 numbers]
    partitions: I2  # the number of partitions in the sum
    partitions_total: I2


class PartitionProgress(msgspec.Struct):
    """The newest fix of a site in a partition."""

    seq: int
    received_s: float  # the largest one so far


class PendingInstant(msgspec.Struct):
    """The counts of a site at an instant, as far as partitions have reported it."""

    since_s: float  # when the first report came, by the writer's clock
    total: int
    partitions: list[int]
    zones: list[str]
    values: bytes  # int32 [Z, 2, 4], the sum


class SiteProgress(msgspec.Struct):
    """The newest rows of a site, and its instants that wait for partitions."""

    fixes: dict[int, PartitionProgress] = msgspec.field(default_factory=dict)  # by partition
    counts_at: float = 0.0  # counts up to here are written; later reports of them are dropped
    waiting: dict[float, PendingInstant] = msgspec.field(default_factory=dict)  # by instant

    def copy(self) -> SiteProgress:
        """A copy that does not change with this one."""
        return SiteProgress(dict(self.fixes), self.counts_at, dict(self.waiting))

    def is_over(self, now_s: float) -> bool:
        """Whether its rows have all expired."""
        newest_s = max([self.counts_at, *(mark.received_s for mark in self.fixes.values())])
        return not self.waiting and newest_s < now_s - KEEP_MARKS_S

    def due(self, now_s: float) -> list[float]:
        """The instants to write now, in order: none older than these will be accepted later."""
        instants = sorted(self.waiting)
        until = instants[-MAX_WAITING - 1] if len(instants) > MAX_WAITING else 0.0
        for at in instants:
            w = self.waiting[at]
            if len(w.partitions) >= w.total or now_s - w.since_s >= WAIT_FOR_PARTITIONS_S:
                until = max(until, at)
        return [at for at in instants if at <= until]


class FlushRecord(msgspec.Struct):
    """The state of the history after a flush, sufficient to resume after a kill."""

    flush: int = 0
    segments: list[str] = msgspec.field(default_factory=list)  # of this flush, relative to the history
    sites: dict[str, SiteProgress] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flush:
    """The rows that are written atomically."""

    sites: list[str]  # of the fixes
    fixes: StoredColumns | None
    counts: CountRows | None
    written: FlushRecord


class HistoryBuffer:
    """Rows in memory, and the progress of the rows on disk.

    Limits: the caller flushes when `rows` is large enough; at most MAX_WAITING instants of a site
    wait for partitions, and each at most WAIT_FOR_PARTITIONS_S.
    """

    def __init__(self, written: FlushRecord) -> None:
        self.rows = 0  # of fixes
        self.repeated = 0  # fixes dropped as repeated
        self._flush = written.flush
        self._sites = {site: progress.copy() for site, progress in written.sites.items()}
        self._fixes: dict[str, list[StoredColumns]] = {}
        self._changed = False

    def add(self, batch: HistoryBatch, now_s: float) -> None:
        """Add the new rows of a batch.

        Args:
            batch: in the order in which its site and partition sent it; repeats and overlaps are dropped.
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
        progress = self._sites.setdefault(batch.site, SiteProgress())
        if fixes is not None:
            self._add_fixes(batch, progress.fixes, fixes)
        for counts in batch.counts:
            self._add_counts(batch, progress, counts, now_s)

    def drop_waiting(self, site: str) -> None:
        """Drop the instants of a site that wait for partitions; later reports of them are dropped too."""
        progress = self._sites.get(site)
        if progress is not None and progress.waiting:
            progress.counts_at = max(progress.waiting)
            progress.waiting.clear()
            self._changed = True

    def take(self, now_s: float) -> Flush | None:
        """Return everything to write to disk now, or None if nothing has changed."""
        due = {site: progress.due(now_s) for site, progress in self._sites.items()}
        if not self._changed and not any(due.values()):
            return None
        self._flush += 1
        done = []
        for site, instants in due.items():
            progress = self._sites[site]
            done += [(at, site, progress.waiting.pop(at)) for at in instants]
            progress.counts_at = max([progress.counts_at, *instants])
        sites, fixes = sorted(self._fixes), _joined(self._fixes)
        self._fixes, self.rows, self._changed = {}, 0, False
        self._sites = {site: known for site, known in self._sites.items() if not known.is_over(now_s)}
        written = FlushRecord(
            flush=self._flush, sites={site: progress.copy() for site, progress in self._sites.items()}
        )
        return Flush(sites, fixes, _count_rows(sorted(done, key=lambda each: each[:2])), written)

    def _add_fixes(
        self, batch: HistoryBatch, marks: dict[int, PartitionProgress], fixes: StoredColumns
    ) -> None:
        seq, received_s = fixes["seq"], fixes["received"]
        known = marks.get(batch.partition, PartitionProgress(0, 0.0))
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
        marks[batch.partition] = PartitionProgress(int(seq[fresh].max()), newest_s)
        if count < len(seq):
            fixes = {name: column[fresh] for name, column in fixes.items()}
        self._fixes.setdefault(batch.site, []).append(fixes)
        self.rows += count
        self._changed = True

    def _add_counts(
        self, batch: HistoryBatch, progress: SiteProgress, counts: CountsAt, now_s: float
    ) -> None:
        if counts.at <= progress.counts_at:
            return
        known = progress.waiting.get(counts.at) or PendingInstant(now_s, batch.partitions, [], [], b"")
        if batch.partition in known.partitions:
            return
        zones, values = _sum((known.zones, _values(known.values)), (batch.zones, _values(counts.values)))
        progress.waiting[counts.at] = PendingInstant(
            since_s=known.since_s,
            total=batch.partitions,
            partitions=[*known.partitions, batch.partition],
            zones=zones,
            values=values.astype("<i4").tobytes(),
        )
        self._changed = True


def _joined(parts: dict[str, list[StoredColumns]]) -> StoredColumns | None:
    """All fixes, with a column `site`: the index of the row's site in the order of names."""
    flat = [(code, part) for code, site in enumerate(sorted(parts)) for part in parts[site]]
    if not flat:
        return None
    joined = {name: np.concatenate([part[name] for _, part in flat]) for name in flat[0][1]}
    codes, lengths = [code for code, _ in flat], [len(part["seq"]) for _, part in flat]
    return {"site": np.repeat(np.array(codes, np.int16), lengths), **joined}


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


def _count_rows(done: list[tuple[float, str, PendingInstant]]) -> CountRows | None:
    """The rows of instants and their sites."""
    if not any(w.zones for _, _, w in done):
        return None
    lengths = [len(w.zones) for _, _, w in done]
    return CountRows(
        at_s=np.repeat([at for at, _, _ in done], lengths),
        site=[site for _, site, w in done for _ in w.zones],
        zone=[zone for _, _, w in done for zone in w.zones],
        values=np.concatenate([_values(w.values) for _, _, w in done]),
        partitions=np.repeat(np.array([len(w.partitions) for _, _, w in done], np.int16), lengths),
        partitions_total=np.repeat(np.array([w.total for _, _, w in done], np.int16), lengths),
    )
