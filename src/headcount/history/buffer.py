"""Received rows of the history that are not yet in a segment. Pure: no clock, no file.

Batches are repeated: a worker that processes a part of the log again sends the same rows. Those of one site
and partition arrive in order, overlapping or not, so a mark per site and partition separates new rows from
old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import F8, I4, I8
from headcount.errors import LogError
from headcount.history.hours import T_MAX_S, T_MIN_S
from headcount.history.manifest import PartitionMark, SiteMark
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import FIX_TYPES, CountsAt, HistoryBatch, HistoryFixes
from headcount.messages.topics import KINDS

I2 = NDArray[np.int16]
#: Fixes as columns of equal length: `partition` (int16), and those of `FIX_TYPES`; in a flush also `site`
#: (int16, index into its sites).
StoredColumns = dict[str, NDArray[Any]]

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


@dataclass(frozen=True, slots=True)
class RowFlush:
    """Rows that are stored together, and the marks of their partitions before and after."""

    sites: list[str]  # of the fixes
    fixes: StoredColumns | None
    counts: CountRows | None
    before: dict[int, PartitionMark]
    after: dict[int, PartitionMark]
    messages: int


@dataclass(frozen=True, slots=True)
class _InstantReport:
    """The counts of a site in one partition at an instant."""

    at_s: float
    site: str
    zones: list[str]
    values: bytes
    partitions: int


@dataclass(slots=True)
class _PartitionRows:
    """The waiting rows of a partition."""

    stored: PartitionMark
    seq: int  # of the newest message that was added
    sites: dict[str, SiteMark]
    messages: int = 0
    rows: int = 0
    fixes: list[tuple[str, StoredColumns]] = field(default_factory=list)
    reports: list[_InstantReport] = field(default_factory=list)

    def mark(self, now_s: float) -> PartitionMark:
        """Return the mark after the waiting rows, without sites whose rows have all expired."""
        oldest_s = now_s - KEEP_MARKS_S
        sites = {
            site: mark
            for site, mark in self.sites.items()
            if max(mark.received_s, mark.counts_at) >= oldest_s
        }
        return PartitionMark(self.seq, sites)


class HistoryBuffer:
    """Rows of some partitions in memory, each from its mark in the manifest on."""

    def __init__(self) -> None:
        self.repeated = 0  # fixes dropped as repeated
        self._partitions: dict[int, _PartitionRows] = {}

    @property
    def rows(self) -> int:
        """The number of waiting fixes."""
        return sum(each.rows for each in self._partitions.values())

    @property
    def messages(self) -> int:
        """The number of messages with waiting rows."""
        return sum(each.messages for each in self._partitions.values())

    @property
    def partitions(self) -> set[int]:
        """The partitions whose rows are accepted."""
        return set(self._partitions)

    def start(self, partition: int, stored: PartitionMark) -> None:
        """Accept rows of a partition after this mark; its waiting rows are dropped."""
        self._partitions[partition] = _PartitionRows(stored, stored.stream_seq, dict(stored.sites))

    def stop(self, partition: int) -> None:
        """Accept no more rows of a partition, and drop the waiting ones."""
        self._partitions.pop(partition, None)

    def stored_seq(self, partition: int) -> int:
        """The newest message of a partition whose rows are stored."""
        return self._partitions[partition].stored.stream_seq

    def added_seq(self, partition: int) -> int:
        """The newest message of a partition that was added."""
        return self._partitions[partition].seq

    def add(self, partition: int, seq: int, batch: HistoryBatch | None) -> None:
        """Add the new rows of a partition's next message.

        Args:
            partition: one that was started.
            seq: the message's sequence; earlier ones are ignored.
            batch: repeated rows are dropped; None if the message cannot be decoded.

        Raises:
            LogError: the batch is inconsistent; only the mark moves.
        """
        known = self._partitions[partition]
        if seq <= known.seq:
            return
        known.seq = seq
        known.messages += 1
        if batch is None:
            return
        if batch.partition != partition or not 0 <= partition < batch.partitions <= MAX_PARTITIONS:
            raise LogError(
                f"history batch of partition {batch.partition} of {batch.partitions}: no such partition"
            )
        fixes = None if batch.fixes is None else _columns(partition, batch.fixes)
        for counts in batch.counts:
            _check_counts(counts, batch)
        mark = known.sites.get(batch.site, SiteMark())
        if fixes is not None:
            mark = self._add_fixes(known, batch.site, mark, fixes)
        counts_at = mark.counts_at
        for counts in batch.counts:
            if counts.at > counts_at:
                counts_at = counts.at
                report = _InstantReport(counts.at, batch.site, batch.zones, counts.values, batch.partitions)
                known.reports.append(report)
        known.sites[batch.site] = SiteMark(mark.fix_seq, mark.received_s, counts_at)

    def take(self, now_s: float) -> RowFlush | None:
        """Remove and return everything that waits; None if no message was added.

        Until `confirm` or `start`, the marks before remain those of the last flush.
        """
        changed = {number: each for number, each in self._partitions.items() if each.messages}
        if not changed:
            return None
        fixes = [part for each in changed.values() for part in each.fixes]
        reports = [report for each in changed.values() for report in each.reports]
        flush = RowFlush(
            sites=sorted({site for site, _ in fixes}),
            fixes=_joined(fixes),
            counts=_count_rows(reports),
            before={number: each.stored for number, each in changed.items()},
            after={number: each.mark(now_s) for number, each in changed.items()},
            messages=sum(each.messages for each in changed.values()),
        )
        for each in changed.values():
            each.messages = each.rows = 0
            each.fixes, each.reports = [], []
        return flush

    def confirm(self, flush: RowFlush) -> None:
        """Note that a flush is stored."""
        for number, mark in flush.after.items():
            if number in self._partitions:
                self._partitions[number].stored = mark

    def _add_fixes(self, known: _PartitionRows, site: str, mark: SiteMark, fixes: StoredColumns) -> SiteMark:
        seq, received_s = fixes["seq"], fixes["received"]
        fresh = seq > mark.fix_seq
        # A repeated row is never received later than the latest row so far. One that is comes from
        # a new log (its folder was emptied), whose sequences start again.
        later = received_s > mark.received_s
        if bool(np.any(~fresh & later)):
            fresh = later
        fresh &= _first_of_each(seq)
        count = int(np.count_nonzero(fresh))
        self.repeated += len(seq) - count
        if not count:
            return mark
        if count < len(seq):
            fixes = {name: column[fresh] for name, column in fixes.items()}
        known.fixes.append((site, fixes))
        known.rows += count
        newest_s = max(mark.received_s, float(fixes["received"].max()))
        return SiteMark(int(fixes["seq"].max()), newest_s, mark.counts_at)


def _joined(parts: list[tuple[str, StoredColumns]]) -> StoredColumns | None:
    """All fixes, with a column `site`: the index of the row's site in the order of names."""
    if not parts:
        return None
    codes = {site: code for code, site in enumerate(sorted({site for site, _ in parts}))}
    joined = {name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]}
    lengths = [len(part["seq"]) for _, part in parts]
    return {"site": np.repeat(np.array([codes[site] for site, _ in parts], np.int16), lengths), **joined}


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


def _count_rows(reports: Iterable[_InstantReport]) -> CountRows | None:
    """The sums of the partitions, by instant, site and zone."""
    groups: dict[tuple[float, str], list[_InstantReport]] = {}
    for report in reports:
        if report.zones:
            groups.setdefault((report.at_s, report.site), []).append(report)
    if not groups:
        return None
    ordered = sorted(groups.items())
    sums = [_sum(group) for _, group in ordered]
    lengths = [len(zones) for zones, _, _ in sums]
    total = [max(report.partitions for report in group) for _, group in ordered]
    return CountRows(
        at_s=np.repeat([at for (at, _), _ in ordered], lengths),
        site=[site for ((_, site), _), (zones, _, _) in zip(ordered, sums, strict=True) for _ in zones],
        zone=[zone for zones, _, _ in sums for zone in zones],
        values=np.concatenate([values for _, values, _ in sums]),
        partitions=np.concatenate([partitions for _, _, partitions in sums]),
        partitions_total=np.repeat(np.array(total, np.int16), lengths),
    )


def _sum(group: list[_InstantReport]) -> tuple[list[str], I4, I2]:
    """The zones of an instant, the sums of their counts, and the number of partitions in each sum."""
    names = list(dict.fromkeys(zone for report in group for zone in report.zones))
    index = {name: i for i, name in enumerate(names)}
    total = np.zeros((len(names), len(KINDS), len(COUNT_FIELDS)), np.int32)
    partitions = np.zeros(len(names), np.int16)
    for report in group:
        rows = [index[zone] for zone in report.zones]
        total[rows] += np.frombuffer(report.values, "<i4").reshape(-1, len(KINDS), len(COUNT_FIELDS))
        partitions[rows] += 1
    return names, total, partitions
