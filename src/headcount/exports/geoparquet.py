"""Fixes as GeoParquet: points in WGS 84 with a bounding box for each row (1.1), or as native geometry (2.0)."""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.counting.fix_columns import F8
from headcount.exports.stored_fixes import SCHEMA

GEOMETRY, BOX = "geometry", "bbox"
#: Rows that share statistics: a reader leaves out the groups that its box does not touch.
ROW_GROUP_ROWS = 16_384
_ATTRIBUTES = [each for each in SCHEMA if each.name not in {"lat", "lon"}]
_NAMES = ["device", "kind", "acc", "site", "verdict"]  # few values
_SIDES = ("xmin", "ymin", "xmax", "ymax")
#: A point as little-endian WKB.
_POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("lon", "<f8"), ("lat", "<f8")])


class _NativeWkb(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """WKB under its GeoArrow name, which becomes Parquet's logical type GEOMETRY, with OGC:CRS84 by default."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        """The GeoArrow metadata."""
        return b"{}"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _NativeWkb:
        """The type again."""
        return cls()


class GeoParquetWriter:
    """Version 1.1 with a column `bbox`, or version 2.0, whose geometry has statistics of its own."""

    def __init__(self, sink: BinaryIO, *, native: bool = False) -> None:
        self._native = native
        if native:
            added = [pa.field(GEOMETRY, _NativeWkb())]
        else:
            box = pa.struct({side: pa.float64() for side in _SIDES})
            added = [pa.field(GEOMETRY, pa.binary()), pa.field(BOX, box)]
        self._schema = pa.schema([*_ATTRIBUTES, *added])
        self._file = pq.ParquetWriter(
            sink, self._schema, compression="zstd", store_schema=False, use_dictionary=_NAMES
        )
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])  # west, south, east, north

    def write(self, table: pa.Table) -> None:
        """Write row groups."""
        lat, lon = (table[name].to_numpy() for name in ("lat", "lon"))
        self._bounds[:2] = np.minimum(self._bounds[:2], (lon.min(), lat.min()))
        self._bounds[2:] = np.maximum(self._bounds[2:], (lon.max(), lat.max()))
        points = _wkb(lat, lon)
        if self._native:
            added = [pa.ExtensionArray.from_storage(_NativeWkb(), points)]
        else:
            sides = [pa.array(each) for each in (lon, lat, lon, lat)]
            added = [points, pa.StructArray.from_arrays(sides, names=list(_SIDES))]
        rows = [*(table[each.name] for each in _ATTRIBUTES), *added]
        self._file.write_table(pa.table(rows, self._schema), row_group_size=ROW_GROUP_ROWS)

    def close(self) -> None:
        """Write the footer with the metadata of the geometry column."""
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Point"]}
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        if not self._native:
            column["covering"] = {"bbox": {side: [BOX, side] for side in _SIDES}}
        version = "2.0.0" if self._native else "1.1.0"
        geo = {"version": version, "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
        self._file.add_key_value_metadata({"geo": msgspec.json.encode(geo).decode()})
        self._file.close()


def _wkb(lat_deg: F8, lon_deg: F8) -> pa.Array:
    points = np.empty(len(lat_deg), _POINT)
    points["order"], points["type"] = 1, 1
    points["lon"], points["lat"] = lon_deg, lat_deg
    ends = np.arange(len(points) + 1, dtype=np.int32) * _POINT.itemsize
    return pa.Array.from_buffers(
        pa.binary(), len(points), [None, pa.py_buffer(ends), pa.py_buffer(points.tobytes())]
    )
