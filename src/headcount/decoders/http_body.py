"""The body of a request with fixes → decoded fixes; pure.

    {"t": 1732453200, "lat": 52.67, "lon": -8.57}        one fix
    [{…}, {…}]                                           an array
    {…}⏎{…}                                              one per line (NDJSON)
    {"type": "Feature", "geometry": …}                   GeoJSON, collections too
    eyJsYXQiOjUyLjY3LC…                                  Base64 of any of these, also in quotes
    {"id": "car-7", "payload": "eyJsYXQiOjUyLjY3LC…"}    an object around any of these

Keys and times are those of `iotp`. A fix without a time gets that of the request, one without an `id` an
empty name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headcount.counting.reference_system import foreign_system
from headcount.decoders.iotp import FIELD_NAMES, MAX_WRAPPERS, TIME_FIELDS, WRAPPERS, sender_id
from headcount.decoders.tolerant import event_time_s, fix_of, from_base64, is_base64
from headcount.decoding import Decoded, DecodeError
from headcount.messages.topics import KINDS, Kind
from headcount.messaging.fix_json import read_json, read_object

#: Ten minutes with a fix a second are 600.
MAX_FIXES = 1000
_TIME_FIELDS = (*TIME_FIELDS, "time", "datetime")
#: Properties of GeoJSON lines with one time per position: of converters of GPX, and of OGC Moving Features.
_TIMES = ("coordTimes", "times", "datetimes", "timestamps")
_GEOMETRIES = ("Point", "MultiPoint", "LineString")


def decode_body(body: bytes, received_s: float, kind: Kind, *, lines: bool = False) -> list[Decoded]:
    """Decode the body of a request.

    Args:
        body: of the request.
        received_s: when it was received, Unix seconds.
        kind: of devices that are not registered and whose fixes name no kind.
        lines: whether each line is a value of its own, else that is found out.

    Raises:
        DecodeError: the body as a whole is not valid; `too_many`: it has more than `MAX_FIXES`.
    """
    found: list[Decoded] = []
    for value in _lines(body) if lines else _values(body):
        for fields in _objects(value, {}, MAX_WRAPPERS):
            if len(found) == MAX_FIXES:
                raise DecodeError("too_many", f"The limit is {MAX_FIXES} fixes.")
            found.append(_decoded(fields, received_s, kind))
    return found


def _values(body: bytes) -> list[Any]:
    try:
        return [read_json(body, len(body))]
    except DecodeError:
        if is_base64(body):
            return [from_base64(body, len(body))]
        lines = _lines(body)
        if len(lines) < 2 or isinstance(lines[0], DecodeError):
            raise
        return lines


def _lines(body: bytes) -> list[Any]:
    return [_line(line) for line in body.splitlines() if line.strip()]


def _line(line: bytes) -> Any:
    try:
        return read_json(line, len(line))
    except DecodeError as error:
        return error


def _objects(value: Any, outer: dict[str, Any], depth: int) -> Iterator[dict[str, Any] | DecodeError]:
    """The objects with a position in a value, each with missing fields from the objects around it."""
    if depth < 0:
        yield DecodeError("too_many_wrappers", f"the position is inside more than {MAX_WRAPPERS} others")
    elif isinstance(value, DecodeError):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item, outer, depth - 1)
    elif isinstance(value, str):
        yield from _objects(_text(value), outer, depth - 1)
    elif not isinstance(value, dict):
        yield _not_an_object(value)
    elif value.get("type") in ("FeatureCollection", "Feature", *_GEOMETRIES):
        yield from _features(value, outer)
    else:
        wrapper = next((name for name in WRAPPERS if isinstance(value.get(name), dict | str | list)), None)
        if wrapper is None or any(name in value for name in FIELD_NAMES["lat"]):
            yield outer | value
        else:
            around = {name: inner for name, inner in value.items() if name != wrapper}
            yield from _objects(value[wrapper], outer | around, depth - 1)


def _text(value: str) -> Any:
    text = value.encode(errors="replace")
    try:
        return from_base64(text, len(text))
    except DecodeError as error:
        return error


def _not_an_object(value: Any) -> DecodeError:
    try:
        read_object(value)
    except DecodeError as error:
        return error
    raise AssertionError(value)


def _features(obj: dict[str, Any], outer: dict[str, Any]) -> Iterator[dict[str, Any] | DecodeError]:
    """The positions of a GeoJSON object."""
    if (problem := foreign_system(obj)) is not None:
        yield DecodeError("crs", f"it {problem}: send WGS 84 degrees")
    elif obj["type"] == "FeatureCollection":
        features = obj.get("features")
        for feature in features if isinstance(features, list) else [None]:
            if isinstance(feature, dict) and feature.get("type") == "Feature":
                yield from _features(feature, outer)
            else:
                yield DecodeError("no_feature", "features is not an array of Features")
    else:
        properties: Any = {}
        geometry: Any = obj
        if obj["type"] == "Feature":
            properties, geometry = obj.get("properties") or {}, obj.get("geometry")
        if (
            isinstance(properties, dict)
            and isinstance(geometry, dict)
            and geometry.get("type") in _GEOMETRIES
        ):
            yield from _positions(geometry, outer | properties)
        else:
            yield DecodeError("geometry", f"the geometry is not one of {', '.join(_GEOMETRIES)}")


def _positions(
    geometry: dict[str, Any], properties: dict[str, Any]
) -> Iterator[dict[str, Any] | DecodeError]:
    coordinates = geometry.get("coordinates")
    if geometry["type"] == "Point":
        yield _at(coordinates, properties)
        return
    of_positions = properties.get("coordinateProperties")
    times = next(
        (
            source[name]
            for source in (properties, of_positions if isinstance(of_positions, dict) else {})
            for name in _TIMES
            if isinstance(source.get(name), list)
        ),
        None,
    )
    if not isinstance(coordinates, list) or times is None or len(times) != len(coordinates):
        yield DecodeError("no_times", "a line needs properties.coordTimes with a time for each position")
        return
    for position, t in zip(coordinates, times, strict=True):
        yield _at(position, properties | {TIME_FIELDS[0]: t})


def _at(position: Any, properties: dict[str, Any]) -> dict[str, Any] | DecodeError:
    if not isinstance(position, list) or len(position) < 2:
        return DecodeError("no_position", "a position in coordinates is not [lon, lat]")
    height = {} if len(position) < 3 else {"alt": position[2]}
    return properties | {"lat": position[1], "lon": position[0]} | height


def _decoded(fields: dict[str, Any] | DecodeError, received_s: float, kind: Kind) -> Decoded:
    if isinstance(fields, DecodeError):
        return fields
    try:
        name = sender_id(fields["id"]) if fields.get("id") is not None else ""
        given = fields.get("kind")
        t_s = event_time_s(fields, received_s, _TIME_FIELDS)
        return fix_of(name, given if given in KINDS else kind, t_s, fields, FIELD_NAMES)
    except DecodeError as error:
        return error
