"""Stored fixes of a selection, read in batches of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import B1, F8, I8
from headcount.history.manifest import Box, Manifest, Segment
from headcount.history.objects import ObjectStore
from headcount.messages.topics import Kind

#: Rows in memory at a time; a batch takes about 100 bytes a row.
BATCH_ROWS = 131_072
#: The columns of an export, in order.
SCHEMA = pa.schema(
    {
        "t": pa.timestamp("us", "UTC"),
        "device": pa.string(),  # the daily pseudonym
        "kind": pa.string(),
        "lat": pa.float64(),
        "lon": pa.float64(),
        "acc": pa.float32(),  # metres; null = unknown
        "received": pa.timestamp("ms", "UTC"),
        "site": pa.string(),
        "verdict": pa.string(),
    }
)


#: Verdicts of fixes that are stored and do not count.
LATE = ["out_of_order", "late"]
_Key = tuple[int, str, int, int]


@dataclass(frozen=True, slots=True)
class FixSelection:
    """Which stored fixes are wanted; empty values select all."""

    site: str | None = None
    from_s: float | None = None  # event time, Unix seconds, inclusive
    to_s: float | None = None
    kind: Kind | None = None
    devices: frozenset[str] = frozenset()  # pseudonyms
    box: Box | None = None  # edges included; west > east crosses the antimeridian
    area: BaseGeometry | None = None  # WGS 84; its edge belongs to it

    def segments(self, manifest: Manifest) -> list[Segment]:
        """The segments that may hold such fixes, by time of receipt."""
        return [each for each in manifest.of("fixes", site=self.site) if self._touches(each)]

    def _touches(self, segment: Segment) -> bool:
        if segment.t_to_s:  # known
            if self.from_s is not None and segment.t_to_s < self.from_s:
                return False
            if self.to_s is not None and segment.t_from_s > self.to_s:
                return False
        box = self.area.bounds if self.area is not None else self.box
        if box is None or segment.box is None or box[0] > box[2]:
            return True
        west, south, east, north = segment.box
        return box[0] <= east and box[2] >= west and box[1] <= north and box[3] >= south

    def rows(self, batch: pa.RecordBatch, lat_deg: F8, lon_deg: F8) -> B1:
        """The selected rows of a batch of a segment."""
        t = _ticks(batch["t"])
        chosen = np.ones(len(t), dtype=np.bool_)
        if self.from_s is not None:
            chosen &= t >= round(self.from_s * 1e6)
        if self.to_s is not None:
            chosen &= t <= round(self.to_s * 1e6)
        for name, wanted in (("site", self.site), ("kind", self.kind)):
            if wanted is not None:
                chosen &= _texts(batch[name], [wanted])
        if self.devices:
            chosen &= _texts(batch["device"], sorted(self.devices))
        if self.box is not None:
            west, south, east, north = self.box
            inside = (lon_deg >= west, lon_deg <= east)
            chosen &= (inside[0] & inside[1]) if west <= east else (inside[0] | inside[1])
            chosen &= (lat_deg >= south) & (lat_deg <= north)
        if self.area is not None:
            some = np.flatnonzero(chosen)
            chosen[some] = shapely.intersects_xy(self.area, lon_deg[some], lat_deg[some])
        return chosen


class Copies:
    """Fixes that are stored more than once, because a device delivered a late fix again.

    All rows of such a fix but the first have a verdict of late fixes, so only those need to be remembered.
    """

    def __init__(self, store: ObjectStore, segments: Sequence[Segment]) -> None:
        """Read the late fixes of segments.

        Raises:
            DataFolderError, StoreError: a segment cannot be read.
        """
        self._taken: dict[_Key, bool] = {}
        for segment in segments:
            with store.open(segment.name) as file:
                stored = pq.ParquetFile(file, page_checksum_verification=True)
                for group in range(stored.num_row_groups):
                    verdict = stored.read_row_group(group, ["verdict"])["verdict"].combine_chunks()
                    rows = np.flatnonzero(_texts(verdict, LATE))
                    if len(rows):
                        table = stored.read_row_group(group, ["t", "device", "lat", "lon"])
                        batch = table.combine_chunks().to_batches()[0]
                        self._taken |= dict.fromkeys(_keys(batch, rows), False)
        self._times = np.unique(np.array([key[0] for key in self._taken], np.int64))

    def first(self, batch: pa.RecordBatch, rows: B1) -> B1:
        """The chosen rows of a batch, without those whose fix was taken before."""
        if not self._taken:
            return rows
        kept = rows.copy()
        which = np.flatnonzero(rows & np.isin(_ticks(batch["t"]), self._times))
        for row, key in zip(which.tolist(), _keys(batch, which), strict=True):
            if key in self._taken:
                kept[row] = not self._taken[key]
                self._taken[key] = True
        return kept


def read(store: ObjectStore, segment: Segment, selection: FixSelection, copies: Copies) -> Iterator[pa.Table]:
    """The selected fixes of a segment as tables of SCHEMA, in the order of the segment.

    Raises:
        DataFolderError, StoreError: the segment cannot be read.
    """
    if selection.area is not None:
        shapely.prepare(selection.area)
    with store.open(segment.name) as file:
        stored = pq.ParquetFile(file, page_checksum_verification=True)
        for batch in stored.iter_batches(BATCH_ROWS, columns=SCHEMA.names):
            lat_deg, lon_deg = (_steps(batch[name]) / 1e7 for name in ("lat", "lon"))
            rows = copies.first(batch, selection.rows(batch, lat_deg, lon_deg))
            if not rows.any():
                continue
            acc_m = batch["acc"].to_numpy(zero_copy_only=False)[rows]
            known = batch.filter(pa.array(rows))
            columns = {name: known[name] for name in SCHEMA.names} | {
                "lat": pa.array(lat_deg[rows]),
                "lon": pa.array(lon_deg[rows]),
                "acc": pa.array(acc_m, mask=~(acc_m > 0)),
            }
            yield pa.table([columns[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names], SCHEMA)


def _keys(batch: pa.RecordBatch, rows: I8) -> Iterator[_Key]:
    """The time, device and position of some rows."""
    device = batch["device"].take(pa.array(rows)).cast(pa.string()).to_pylist()
    t, lat, lon = (
        column[rows].tolist() for column in (_ticks(batch["t"]), _steps(batch["lat"]), _steps(batch["lon"]))
    )
    return zip(t, device, lat, lon, strict=True)


def _texts(column: pa.Array, wanted: list[str]) -> B1:
    chosen: B1 = pc.is_in(column.cast(pa.string()), pa.array(wanted)).to_numpy(zero_copy_only=False)
    return chosen


def _ticks(column: pa.Array) -> I8:
    ticks: I8 = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return ticks


def _steps(column: pa.Array) -> I8:
    """Decimals with 7 places in units of the last one; a cast to floating point would not round correctly."""
    unscaled = np.frombuffer(column.buffers()[1], f"<i{column.type.byte_width}")
    return unscaled[column.offset : column.offset + len(column)].astype(np.int64)
