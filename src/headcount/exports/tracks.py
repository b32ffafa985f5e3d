"""Fixes as tracks of devices: GPX 1.1, and OGC Moving Features JSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from headcount.errors import ExportError
from headcount.exports.tables import objects

#: A track is written when all of it is known, so its rows are in memory: about 200 bytes each.
MAX_ROWS = 2_000_000
GPX = "http://www.topografix.com/GPX/1/1"
#: The namespace of the accuracy in metres, for which GPX has no element.
EXTENSION = "urn:headcount:gpx"
_GPX_START = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<gpx version="1.1" creator="headcount" xmlns="{GPX}" xmlns:headcount="{EXTENSION}">\n'
)


class _Tracks:
    """Collects fixes, and returns those of each device in the order of their time, each time once."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self._tables, self._rows = sink, list[pa.Table](), 0

    def write(self, table: pa.Table) -> None:
        """Collect rows.

        Raises:
            ExportError: there are more than MAX_ROWS.
        """
        self._rows += len(table)
        if self._rows > MAX_ROWS:
            problem = f"more than {MAX_ROWS:,} fixes are selected, which is the limit for tracks"
            raise ExportError(problem, "Select fewer devices or a shorter span, or use another format")
        self._tables.append(table)

    def _by_device(self) -> Iterator[list[dict[str, Any]]]:
        if not self._tables:
            return
        order = [(name, "ascending") for name in ("site", "device", "kind", "t")]
        table = pa.concat_tables(self._tables).sort_by(order)
        same = [
            table[name].combine_chunks().dictionary_encode().indices.to_numpy()
            for name in ("site", "device", "kind")
        ]
        t = table["t"].cast(pa.int64()).to_numpy()
        new = np.any([np.diff(each, prepend=-1) != 0 for each in same], axis=0)
        table, new = table.filter(pa.array(kept := new | (np.diff(t, prepend=-1) != 0))), new[kept]
        starts = [*np.flatnonzero(new).tolist(), len(table)]
        for start, stop in pairwise(starts):
            yield list(objects(table.slice(start, stop - start)))


class GpxWriter(_Tracks):
    """A track for each device, named by its pseudonym; a fix without accuracy has no extension."""

    def close(self) -> None:
        """Write the file."""
        self._sink.write(_GPX_START.encode())
        for rows in self._by_device():
            self._sink.write(
                f"<trk><name>{rows[0]['device']}</name><type>{rows[0]['kind']}</type><trkseg>\n".encode()
            )
            self._sink.writelines(_point(row) for row in rows)
            self._sink.write(b"</trkseg></trk>\n")
        self._sink.write(b"</gpx>\n")


def _point(row: dict[str, Any]) -> bytes:
    acc = row.get("acc")
    more = "" if acc is None else f"<extensions><headcount:acc>{acc}</headcount:acc></extensions>"
    return f'<trkpt lat="{row["lat"]}" lon="{row["lon"]}"><time>{row["t"]}</time>{more}</trkpt>\n'.encode()


class MovingFeaturesWriter(_Tracks):
    """OGC Moving Features JSON: a moving point for each device, with its accuracy as a temporal property."""

    def close(self) -> None:
        """Write the file."""
        crs = {"type": "Name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
        trs = {"type": "Name", "properties": {"name": "urn:ogc:data:time:iso8601"}}
        head = {"type": "FeatureCollection", "crs": crs, "trs": trs}
        self._sink.write(msgspec.json.encode(head)[:-1] + b',"features":[')
        for number, rows in enumerate(self._by_device()):
            self._sink.write((b",\n" if number else b"\n") + msgspec.json.encode(_feature(rows)))
        self._sink.write(b"\n]}\n")


def _feature(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first, times = rows[0], [row["t"] for row in rows]
    path = {
        "type": "MovingPoint",
        "datetimes": times,
        "coordinates": [(row["lon"], row["lat"]) for row in rows],
        "interpolation": "Linear",
    }
    known = [row for row in rows if "acc" in row]
    accuracy = {
        "type": "Measure",
        "form": "MTR",
        "values": [row["acc"] for row in known],
        "interpolation": "Discrete",
    }
    return {
        "type": "Feature",
        "id": first["device"],
        "properties": {name: first[name] for name in ("device", "kind", "site")},
        "temporalGeometry": path,
        "temporalProperties": [{"datetimes": [row["t"] for row in known], "acc": accuracy}] if known else [],
    }
