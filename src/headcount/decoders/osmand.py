"""The protocol of OsmAnd and Traccar Client → decoded fixes; pure.

    ?id=…&timestamp=1732453200&lat=52.67&lon=-8.57&speed=4.2&bearing=90&altitude=12&accuracy=8&batt=71
    {"device_id": "…", "location": {"timestamp": "2024-11-24T13:00:00Z", "coords": {"latitude": …}, …}}

The first form is a query or a form body, of OsmAnd and of Traccar Client before version 9; the second is a
JSON body of later ones. Times are seconds, milliseconds or ISO 8601. Everything else is ignored: a value
below 0 means "unknown", and `hdop` is no accuracy.

Sources: `OsmAndProtocolDecoder` of the Traccar server; `ProtocolFormatter` of Traccar Client for Android and
iOS, `preferences.dart` of its successor; `LiveMonitoringHelper` of OsmAnd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from headcount.decoders.tolerant import event_time_s, first_number, fix_of
from headcount.decoding import Decoded, DecodeError, Ignored
from headcount.messaging.fix_json import read_json, read_object

#: Of a form.
MAX_FIELDS = 100
#: km/h. The query has knots, as the Traccar server; the JSON form m/s, as phones.
KNOT, METRE_PER_SECOND = 1.852, 3.6
_KEYS = {
    "lat": ("lat", "latitude"),
    "lon": ("lon", "longitude"),
    "acc": ("accuracy",),
    "cog": ("bearing", "heading"),
    "alt": ("altitude",),
    "batt": ("batt",),
    "vel": ("vel",),
}
_NO = ("0", "false")


class Report(NamedTuple):
    """A request, read but not decoded."""

    identifier: str  # of the device, as the app was set up; "" = none
    fields: dict[str, Any]
    is_json: bool


def read_report(query: Mapping[str, str], body: bytes = b"") -> Report:
    """Read the query and the body of a request.

    Raises:
        DecodeError: the body is neither a form nor JSON.
    """
    fields: dict[str, Any] = dict(query)
    is_json = body.lstrip().startswith(b"{")
    if is_json:
        fields |= read_object(read_json(body, len(body)))
    else:
        try:
            form = parse_qsl(body.decode(errors="replace"), max_num_fields=MAX_FIELDS)
        except ValueError:
            raise DecodeError("too_large", f"it has more than {MAX_FIELDS} fields") from None
        fields = dict(form) | fields
    given = (fields.get(name) for name in ("id", "deviceid", "device_id"))
    return Report(next((each for each in given if each and isinstance(each, str)), ""), fields, is_json)


def decode_report(report: Report, received_s: float) -> list[Decoded]:
    """Decode a report; one that was received without a time gets that of the request. Never raises."""
    if not report.is_json:
        return [_decoded(_query, report.fields, received_s)]
    location = report.fields.get("location")
    locations = location if isinstance(location, list) else [location]
    return [_decoded(_location, each, received_s) for each in locations]


def _decoded(decode: Callable[[Any, float], Decoded], found: Any, received_s: float) -> Decoded:
    try:
        return decode(found, received_s)
    except DecodeError as error:
        return error


def _query(fields: dict[str, Any], received_s: float) -> Decoded:
    if fields.get("valid", "").lower() in _NO:
        return Ignored("not_valid")
    found = dict(fields)
    if "location" in found:
        found["lat"], _, found["lon"] = found["location"].partition(",")
    return _fix(found, received_s, KNOT)


def _location(location: Any, received_s: float) -> Decoded:
    if not isinstance(location, dict):
        raise DecodeError("no_position", "location is not an object")
    coords, battery = location.get("coords"), location.get("battery")
    level = first_number(battery, ("level",)) if isinstance(battery, dict) else None
    found = coords if isinstance(coords, dict) else {}
    found = found | {"timestamp": location.get("timestamp"), "batt": None if level is None else 100 * level}
    return _fix(found, received_s, METRE_PER_SECOND)


def _fix(found: dict[str, Any], received_s: float, unit_of_speed: float) -> Decoded:
    if not any(found.get(name) for name in ("lat", "latitude", "lon", "longitude")):
        return Ignored("no_position")  # an alarm, or a change of the driver
    speed = first_number(found, ("speed",))
    found["vel"] = None if speed is None else round(speed * unit_of_speed, 2)
    for names in (_KEYS["vel"], _KEYS["cog"], _KEYS["batt"]):
        for name in names:
            value = first_number(found, (name,))
            if value is not None and value < 0:
                del found[name]
    return fix_of("", "person", event_time_s(found, received_s, ("timestamp",)), found, _KEYS)
