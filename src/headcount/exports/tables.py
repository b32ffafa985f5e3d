"""Fixes as CSV, NDJSON, GeoJSON and plain Parquet; each writer holds one batch in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headcount.exports.stored_fixes import SCHEMA


class FixWriter(Protocol):
    """Writes fixes to a file; the file is complete after `close`."""

    def write(self, table: pa.Table) -> None:
        """Write a table of `stored_fixes.SCHEMA`."""

    def close(self) -> None:
        """Write the end of the file; the sink stays open."""


class CsvWriter:
    """CSV with the columns that `headcount replay` and `headcount import` read; times in ISO 8601."""

    def __init__(self, sink: BinaryIO) -> None:
        schema = pa.schema([pa.field(each.name, _text_type(each.type)) for each in SCHEMA])
        options = pyarrow.csv.WriteOptions(quoting_style="needed", quoting_header="none")
        self._csv = pyarrow.csv.CSVWriter(sink, schema, write_options=options)
        self._schema = schema

    def write(self, table: pa.Table) -> None:
        """Write rows."""
        columns = _as_text(table)
        self._csv.write(pa.table([columns[name] for name in SCHEMA.names], self._schema))

    def close(self) -> None:
        """Flush the last rows."""
        self._csv.close()


class NdjsonWriter:
    """A JSON object per line, with the columns of the CSV."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self._encoder = sink, msgspec.json.Encoder()

    def write(self, table: pa.Table) -> None:
        """Write rows."""
        self._sink.write(self._encoder.encode_lines(list(objects(table))))

    def close(self) -> None:
        """Nothing ends the file."""


class GeoJsonWriter:
    """GeoJSON (RFC 7946): a feature collection of points."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self._encoder = sink, msgspec.json.Encoder()
        self._before = b'{"type":"FeatureCollection","features":[\n'

    def write(self, table: pa.Table) -> None:
        """Write a feature for each row."""
        for row in objects(table):
            place = {"type": "Point", "coordinates": (row.pop("lon"), row.pop("lat"))}
            feature = {"type": "Feature", "geometry": place, "properties": row}
            self._sink.write(self._before + self._encoder.encode(feature))
            self._before = b",\n"

    def close(self) -> None:
        """Close the collection."""
        self._sink.write((self._before if self._before != b",\n" else b"\n") + b"]}\n")


class ParquetWriter:
    """Parquet with latitude and longitude as numbers."""

    def __init__(self, sink: BinaryIO) -> None:
        self._file = pq.ParquetWriter(sink, SCHEMA, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Write a row group."""
        self._file.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        self._file.close()


def objects(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Each row as the values of a JSON object, without unknown ones."""
    columns = _as_text(table)
    for values in zip(*(columns[name].to_pylist() for name in SCHEMA.names), strict=True):
        row = dict(zip(SCHEMA.names, values, strict=True))
        if row["acc"] is None:
            del row["acc"]
        yield row


def _as_text(table: pa.Table) -> dict[str, pa.Array]:
    """The columns, with times as ISO 8601 in UTC and accuracies in whole millimetres."""
    columns = {name: table[name].combine_chunks() for name in SCHEMA.names}
    for name in ("t", "received"):
        ticks = columns[name].to_numpy(zero_copy_only=False)
        unit = SCHEMA.field(name).type.unit
        columns[name] = pa.array(np.datetime_as_string(ticks, unit=unit, timezone="UTC"))
    acc_m = columns["acc"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    columns["acc"] = pa.array(acc_m.round(3), mask=np.isnan(acc_m))
    return columns


def _text_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.string()
    return pa.float64() if pa.types.is_floating(kind) else kind
