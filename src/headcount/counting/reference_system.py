"""The coordinate reference system that a GeoJSON object names: only WGS 84 in degrees can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: EPSG codes of WGS 84 in degrees, without and with heights.
WGS_84 = (4326, 4979)
#: EPSG codes of other systems in degrees.
_IN_DEGREES = range(4001, 5000)
_CODE = re.compile(r"(?P<authority>EPSG|ESRI|IGNF)\b.*?(?P<code>\d+)(?:/[a-z][a-z0-9]*)*/?$", re.IGNORECASE)
_WGS_84_NAME = re.compile(r"(?:.*[:/#])?(?:CRS:?84h?|WGS ?84)", re.IGNORECASE)


def foreign_system(obj: Mapping[str, object]) -> str | None:
    """The problem with the `crs` of a GeoJSON object, as in `is projected (EPSG:3857)`; None if it has none.

    RFC 7946 removed `crs`, but QGIS, GDAL and PostGIS still write it, and then the coordinates follow it.
    """
    crs = obj.get("crs")
    if crs is None:
        return None
    name = _name_of(crs)
    if name is None:
        return f"has a crs that names no coordinate reference system: {str(crs)[:80]}"
    if _WGS_84_NAME.fullmatch(name):
        return None
    found = _CODE.search(name)
    if found is None:
        return f"has coordinates in another system than WGS 84: {name[:80]!r}"
    authority, code = found["authority"].upper(), int(found["code"])
    if authority == "EPSG" and code in WGS_84:
        return None
    if authority == "EPSG" and code in _IN_DEGREES:
        return f"has coordinates in another system than WGS 84 ({authority}:{code})"
    return f"is projected ({authority}:{code})"


def _name_of(crs: object) -> str | None:
    """`EPSG:4326` or a URN from the forms of the GeoJSON specification of 2008, and of older programs."""
    if isinstance(crs, str):
        return crs.strip()
    properties = crs.get("properties") if isinstance(crs, dict) else None
    if not isinstance(properties, dict):
        return None
    for key in ("name", "code", "href"):
        value = properties.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return f"EPSG:{value}"
    return None
