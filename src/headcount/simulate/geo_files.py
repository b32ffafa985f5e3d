"""Recordings of geographic programs → tables: GeoJSON points, OGC Moving Features JSON, GPX and GeoParquet."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import shapely

from headcount.errors import TraceError

Row = dict[str, Any]
#: Properties of features, and elements of GPX points, that are columns.
_NAMES = ("t", "device", "kind", "acc", "vel", "received")
_CRS84 = {"id": {"authority": "OGC", "code": "CRS84"}}
_WGS_84 = {("OGC", "CRS84"), ("EPSG", "4326")}
#: A file with an entity may expand to any size.
_DOCTYPE = b"<!DOCTYPE"


def geojson_rows(source: str, data: bytes, malformed: dict[int, str]) -> Iterator[Row]:
    """The points of a feature collection, or the moving points of one of Moving Features JSON.

    A feature of another form becomes an empty row with an entry in `malformed`.
    """
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise TraceError(source, "file", f"is not valid JSON: {error}") from error
    features = found.get("features") if isinstance(found, dict) else None
    if not isinstance(features, list):
        raise TraceError(source, "file", "is not a GeoJSON FeatureCollection")
    index = 0
    for feature in features:
        try:
            rows = _moving(feature) if "temporalGeometry" in feature else [_point(feature)]
        except (AttributeError, KeyError, TypeError, ValueError):
            malformed[index], rows = "it is neither a point nor a moving point", [{}]
        yield from rows
        index += len(rows)


def _point(feature: Any) -> Row:
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    if geometry["type"] != "Point":
        raise ValueError(geometry["type"])
    lon, lat = geometry["coordinates"][:2]
    return {name: properties.get(name) for name in _NAMES} | {"lat": lat, "lon": lon}


def _moving(feature: Any) -> list[Row]:
    path, properties = feature["temporalGeometry"], feature.get("properties") or {}
    if path["type"] != "MovingPoint":
        raise ValueError(path["type"])
    device = properties.get("device", feature.get("id"))
    acc: Row = {}
    for each in feature.get("temporalProperties") or []:
        if "acc" in each:
            acc |= zip(each["datetimes"], each["acc"]["values"], strict=True)
    return [
        {
            "t": t,
            "device": device,
            "kind": properties.get("kind"),
            "lat": at[1],
            "lon": at[0],
            "acc": acc.get(t),
        }
        for t, at in zip(path["datetimes"], path["coordinates"], strict=True)
    ]


def gpx_rows(source: str, data: bytes) -> Iterator[Row]:
    """The points of the tracks; a track's name is the device, its type the kind."""
    if _DOCTYPE in data:
        raise TraceError(source, "file", "has a document type, which is not read")
    try:
        root = ET.fromstring(data)  # noqa: S314  # without a document type there are no entities
    except ET.ParseError as error:
        raise TraceError(source, "file", f"is not valid XML: {error}") from error
    for track in _children(root, "trk"):
        device, kind = _text(track, "name"), _text(track, "type")
        points = (point for part in _children(track, "trkseg") for point in _children(part, "trkpt"))
        for point in points:
            more = next(_children(point, "extensions"), point)
            yield {
                "t": _text(point, "time"),
                "device": device,
                "kind": kind,
                "lat": point.get("lat"),
                "lon": point.get("lon"),
                "acc": _text(more, "acc"),
            }


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _text(element: ET.Element, name: str) -> str | None:
    return next((child.text for child in _children(element, name)), None)


def point_column(source: str, geo: bytes | None) -> str | None:
    """The column of points of a GeoParquet file, by its metadata; None without any.

    Raises:
        TraceError: its coordinates are not WGS 84.
    """
    if geo is None:
        return None
    try:
        found = msgspec.json.decode(geo)
        name: str = found["primary_column"]
        crs = found["columns"][name].get("crs") or _CRS84
        known = (crs["id"]["authority"], str(crs["id"]["code"])) in _WGS_84
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise TraceError(source, "metadata", f"is not that of GeoParquet: {error!r}") from error
    if not known:
        raise TraceError(source, f"column {name}", "is not in WGS 84: transform it to EPSG:4326")
    return name


def with_positions(table: pa.Table, column: str) -> pa.Table:
    """The table with the columns lat and lon instead of a column of points."""
    geometry = table[column].combine_chunks()
    if isinstance(geometry, pa.ExtensionArray):
        geometry = geometry.storage
    points = shapely.from_wkb(np.array(geometry.to_pylist(), dtype=object), on_invalid="ignore")
    is_point = shapely.get_type_id(points) == shapely.GeometryType.POINT
    for name, get in (("lat", shapely.get_y), ("lon", shapely.get_x)):
        table = table.append_column(name, pa.array(np.where(is_point, get(points), np.nan)))
    return table.drop_columns([column])
