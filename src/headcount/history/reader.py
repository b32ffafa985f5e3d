"""Read rows from the segments that a manifest names, a few row groups at a time.

Segments are left out by what the manifest states about them, row groups by their statistics, so a query for an
hour or a small area reads little more than its rows. Footers stay in memory, up to a limit. Checksums of pages
are verified; what cannot be read is missing in the answer, and named in the log once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headcount.counting.fix_columns import B1, I8
from headcount.errors import DamagedSegmentError, ObjectNotFoundError, QueryError, ReplacedError, StoreError
from headcount.history.bloom_filters import BloomFilters
from headcount.history.catalog import Catalog
from headcount.history.fix_rows import ticks
from headcount.history.hours import T_MAX_S, T_MIN_S
from headcount.history.manifest import Manifest, Segment
from headcount.history.objects import ObjectStore

_log = logging.getLogger(__name__)

#: The column by which the rows of a data set are cut into hours, and its unit in a second.
CLOCKS = {
    "fixes": ("received", 1e3),
    "pauses": ("received", 1e3),
    "counts": ("at", 1e3),
    "events": ("t", 1e6),
    "minutes": ("at", 1e3),
    "flows": ("at", 1e3),
}
#: Row groups whose footers stay in memory (about 8 kB each).
MAX_CACHED_GROUPS = 20_000
#: Rows that are decoded together, at most; a row group has fewer.
MAX_PART_ROWS = 131_072
#: Read as codes of dictionaries, though it is plain in the table that was written.
_AS_CODES = "device"
TIMEOUT_S = 20.0

#: Columns and their wanted values (smallest, largest; inclusive), in the units in which they are stored.
Ranges = Mapping[str, tuple[int, int]]
T = TypeVar("T")


class RowPart:
    """Some rows of a site, of which columns are read on demand."""

    def __init__(self, load: Callable[[list[str]], pa.Table], site: str | None) -> None:
        """`load` reads columns; `site` is given where rows of others have to be left out."""
        self._load = load
        self._site = site
        self._wanted: pa.ChunkedArray | None = None

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read columns of all rows of the part, always in the same order."""
        if self._site is None:
            return self._load(list(columns)).select(list(columns))
        table = self._load(list(dict.fromkeys([*columns, "site"])))
        if self._wanted is None:
            self._wanted = pc.equal(pc.cast(table["site"], pa.string()), self._site)
        return table.filter(self._wanted).select(list(columns))


@dataclass(frozen=True, slots=True)
class _Footer:
    """The metadata of a segment, and the smallest and largest values of its row groups."""

    metadata: Any
    rows: I8
    bounds: dict[str, tuple[Any, Any]]  # by column: arrays over the groups, or lists of bytes
    filters: list[BloomFilters] = field(default_factory=list)  # those of devices, once they were needed

    def groups(self, anyof: Sequence[Ranges], site: str | None) -> list[int]:
        """The row groups that may hold rows within any of the ranges."""
        found: B1 = np.zeros(len(self.rows), np.bool_)
        for ranges in anyof:
            one: B1 = np.ones(len(self.rows), np.bool_)
            for column, (least, most) in ranges.items():
                if column in self.bounds:
                    low, high = self.bounds[column]
                    one &= (high >= least) & (low <= most)
            found |= one
        if site is not None and "site" in self.bounds:
            low, high = self.bounds["site"]
            found &= (low <= site) & (high >= site)
        return [int(group) for group in np.flatnonzero(found)]

    def groups_of(self, devices: Sequence[str], source: Any) -> B1:
        """The row groups that may hold rows of any of the devices, by the filters in the file."""
        found: B1 = np.zeros(len(self.rows), np.bool_)
        if not self.filters:
            stored = []
            index = self.metadata.schema.names.index("device")
            for group in range(len(self.rows)):
                chunk = self.metadata.row_group(group).column(index)
                if chunk.bloom_filter_offset is None:
                    return ~found
                source.seek(chunk.bloom_filter_offset)
                stored.append(source.read(chunk.bloom_filter_length))
            self.filters.append(BloomFilters(stored))
        for name in devices:
            found |= self.filters[0].may_hold(name.encode())
        return found


class SegmentReader:
    """Reads segments of a store in any number of threads; keeps footers in memory."""

    def __init__(
        self, store: ObjectStore, *, max_groups: int = MAX_CACHED_GROUPS, is_strict: bool = False
    ) -> None:
        """`is_strict`: a segment that cannot be read is an error."""
        self.store = store
        self.damaged: set[str] = set()  # segments of which rows were missing in an answer
        self._footers: OrderedDict[str, _Footer] = OrderedDict()
        self._is_strict = is_strict
        self._max_groups, self._groups = max_groups, 0
        self._lock = threading.Lock()

    def view(self) -> HistoryView:
        """All rows in segments, as of now.

        Raises:
            DataFolderError, StoreError: the manifest cannot be read.
        """
        return HistoryView(self, Catalog(self.store).manifest())

    def each(
        self,
        segment: Segment,
        take: Callable[[RowPart], T],
        anyof: Sequence[Ranges],
        site: str | None,
        devices: Sequence[str] | None = None,
    ) -> Iterator[T]:
        """Apply `take` to the parts of a segment that may hold wanted rows; fewer if it is damaged.

        Raises:
            ReplacedError: an erasure has replaced it since the manifest was read.
            DataFolderError, StoreError: the store cannot be read.
        """
        try:
            with self.store.open(segment.name) as source:
                footer = self._footer(segment, source)
                groups = footer.groups(anyof, site)
                if groups and devices is not None:
                    may_hold_them = footer.groups_of(devices, source)
                    groups = [group for group in groups if may_hold_them[group]]
                if not groups:
                    return
                file = _opened(source, footer.metadata)
                other = site if site is not None and segment.sites != (site,) else None
                for some in _bundles(groups, footer.rows):
                    yield take(RowPart(lambda columns, some=some: file.read_row_groups(some, columns), other))  # type: ignore[misc]
        except ObjectNotFoundError as error:
            if not self._is_strict and segment.name not in Catalog(self.store).manifest().names():
                problem = f"{segment.name} was replaced while it was read"
                raise ReplacedError(self.store.url, problem, "Repeat the query") from error
            self._leave_out(segment, "is missing")
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, KeyError, ValueError) as error:
            self._leave_out(segment, f"cannot be read ({error})")
        except OSError as error:
            if error.errno:  # errors of the content have none
                raise StoreError(self.store.url, f"{segment.name}: {error}", "Check the disk") from error
            self._leave_out(segment, f"cannot be read ({error})")

    def _footer(self, segment: Segment, source: Any) -> _Footer:
        with self._lock:
            known = self._footers.get(segment.name)
            if known is not None:
                self._footers.move_to_end(segment.name)
                return known
        footer = _read_footer(_opened(source).metadata)
        with self._lock:
            if segment.name not in self._footers:
                self._footers[segment.name] = footer
                self._groups += len(footer.rows)
            while self._groups > self._max_groups and len(self._footers) > 1:
                self._groups -= len(self._footers.popitem(last=False)[1].rows)
        return footer

    def _leave_out(self, segment: Segment, problem: str) -> None:
        if self._is_strict:
            raise DamagedSegmentError(self.store.url, segment.name, problem)
        with self._lock:
            known = self._footers.pop(segment.name, None)
            self._groups -= 0 if known is None else len(known.rows)
            is_known = segment.name in self.damaged
            self.damaged.add(segment.name)
        if not is_known:
            _log.error("%s/%s %s: its rows are missing in answers", self.store.url, segment.name, problem)


@dataclass(frozen=True)
class HistoryView:
    """The history at one moment, for one query: segments, and rows that are not yet in one."""

    reader: SegmentReader
    manifest: Manifest
    tail: Mapping[str, pa.Table] = field(default_factory=dict)
    ends_s: float = field(default_factory=lambda: time.monotonic() + TIMEOUT_S)

    @cached_property
    def pauses(self) -> dict[float, Segment]:
        """See `Manifest.current_pauses`."""
        return self.manifest.current_pauses()

    def segments(
        self, dataset: str, site: str | None, from_s: float | None, to_s: float | None
    ) -> list[Segment]:
        """The segments whose clock touches a span, by time."""
        return self.manifest.of(dataset, from_s, to_s, site)

    def each(
        self,
        segments: Sequence[Segment],
        take: Callable[[RowPart], T],
        anyof: Sequence[Ranges] = ({},),
        site: str | None = None,
        devices: Sequence[str] | None = None,
    ) -> Iterator[T]:
        """Apply `take` to the parts of segments that may hold wanted rows; None: of all devices.

        Raises:
            QueryError: the query has taken TIMEOUT_S.
            DataFolderError, StoreError: the store cannot be read.
        """
        for segment in segments:
            self.check_time()
            for found in self.reader.each(segment, take, anyof, site, devices):
                yield found
                self.check_time()

    def waiting(self, dataset: str, take: Callable[[RowPart], T], site: str | None = None) -> Iterator[T]:
        """The same for the rows that are not yet in a segment."""
        table = self.tail.get(dataset)
        if table is not None:
            yield take(RowPart(table.select, site))

    def scan(
        self,
        dataset: str,
        *,
        columns: Sequence[str],
        site: str | None = None,
        from_s: float | None = None,
        to_s: float | None = None,
    ) -> pa.Table:
        """The rows of a data set whose clock (see CLOCKS) is within a span (inclusive).

        Raises:
            QueryError: the query has taken TIMEOUT_S.
            DataFolderError, StoreError: the store cannot be read.
        """
        clock, per_s = CLOCKS[dataset]
        least = -(2**62) if from_s is None else round(from_s * per_s)
        most = 2**62 if to_s is None else round(to_s * per_s)

        def take(part: RowPart) -> pa.Table:
            table = part.read(list(dict.fromkeys([*columns, clock])))
            t = ticks(table[clock])
            table = table.filter(pa.array((t >= least) & (t <= most))).select(list(columns))
            return _plain(table)

        segments = self.segments(dataset, site, from_s, to_s)
        found = [
            *self.each(segments, take, [{clock: (least, most)}], site),
            *self.waiting(dataset, take, site),
        ]
        if not found:
            return pa.table({name: pa.array([], pa.null()) for name in columns})
        return pa.concat_tables(_alike(found), promote_options="permissive")

    def check_time(self) -> None:
        """Raise an error if the query has taken too long.

        Raises:
            QueryError: it has taken TIMEOUT_S.
        """
        if time.monotonic() > self.ends_s:
            raise QueryError("query", f"takes longer than {TIMEOUT_S:g} s; request a shorter span")


def scan(
    store: ObjectStore,
    manifest: Manifest,
    dataset: str,
    *,
    columns: Sequence[str],
    site: str | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
) -> pa.Table:
    """All rows of a data set within a span: see `HistoryView.scan`.

    Raises:
        DataFolderError, StoreError: a segment cannot be read.
    """
    view = HistoryView(SegmentReader(store, is_strict=True), manifest, ends_s=float("inf"))
    return view.scan(dataset, columns=columns, site=site, from_s=from_s, to_s=to_s)


def check_time(parameter: str, t_s: float) -> None:
    """Check a time in Unix seconds.

    Raises:
        QueryError: it is not between the years 1970 and 9999.
    """
    if not T_MIN_S <= t_s <= T_MAX_S:
        raise QueryError(parameter, f"{t_s} is not a time in seconds since 1970")


def check_span(from_s: float, to_s: float) -> None:
    """Check a span of time.

    Raises:
        QueryError: one of its ends is not a time, or it ends before it begins.
    """
    check_time("from", from_s)
    check_time("to", to_s)
    if to_s < from_s:
        raise QueryError("to", "is before from")


def _plain(table: pa.Table) -> pa.Table:
    if _AS_CODES not in table.column_names:
        return table
    column = table.column_names.index(_AS_CODES)
    return table.set_column(column, _AS_CODES, table[_AS_CODES].cast(pa.string()))


def _alike(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables with texts of one type: merged segments have dictionaries where others have strings."""
    for name in tables[0].column_names:
        if len({pa.types.is_dictionary(table[name].type) for table in tables}) > 1:
            tables = [
                table.set_column(
                    table.column_names.index(name),
                    name,
                    table[name].cast(pa.string())
                    if pa.types.is_dictionary(table[name].type)
                    else table[name],
                )
                for table in tables
            ]
    return tables


def _opened(source: Any, metadata: Any = None) -> Any:
    names = [] if metadata is None or _AS_CODES not in metadata.schema.names else [_AS_CODES]
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=names, page_checksum_verification=True)


def _read_footer(metadata: Any) -> _Footer:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    bounds: dict[str, tuple[Any, Any]] = {}
    for index in range(metadata.num_columns):
        stated = [group.column(index).statistics for group in groups]
        if not stated or any(each is None or not each.has_min_max for each in stated):
            continue
        name = metadata.schema.column(index).name
        low, high = [each.min_raw for each in stated], [each.max_raw for each in stated]
        if name == "site":
            bounds[name] = (np.array([x.decode() for x in low]), np.array([x.decode() for x in high]))
        elif isinstance(low[0], int):
            bounds[name] = (np.array(low, np.int64), np.array(high, np.int64))
    return _Footer(metadata, np.array([group.num_rows for group in groups], np.int64), bounds)


def _bundles(groups: list[int], rows: I8) -> Iterator[list[int]]:
    """Row groups to read together: at most MAX_PART_ROWS rows, except for a larger group."""
    bundle: list[int] = []
    for group in groups:
        if bundle and rows[[*bundle, group]].sum() > MAX_PART_ROWS:
            yield bundle
            bundle = []
        bundle.append(group)
    if bundle:
        yield bundle
