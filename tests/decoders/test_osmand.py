"""Requests in the exact form of OsmAnd and of each generation of Traccar Client."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.decoders.osmand import decode_report, read_report
from headcount.decoding import Decoded, DecodedFix, DecodeError, Ignored

KEY = "k3qv7m2xw5yd4hbt6zra-abcdefghijklmnopqrstuvwxyz234567"
T, RECEIVED_S = 1_732_453_200.0, 1_790_000_000.0
#: ProtocolFormatter.kt of Traccar Client for Android, 5 to 8.
ANDROID = (
    f"id={KEY}&timestamp=1732453200&lat=52.6725&lon=-8.5725&speed=5.0&bearing=90.0&altitude=12.0"
    "&accuracy=8.0&batt=71.0"
)
#: ProtocolFormatter.swift of Traccar Client for iOS, before 9.
IOS = (
    f"id={KEY}&timestamp=1732453200&lat=52.672500&lon=-8.572500&speed=-1.0&bearing=-1.0&altitude=12.0"
    "&accuracy=8.0&batt=71.0&charge=true&alarm=sos"
)
#: LiveMonitoringHelper.java of OsmAnd fills the template in: {2} is milliseconds, {3} the accuracy in m.
OSMAND = f"id={KEY}&lat=52.6725&lon=-8.5725&timestamp=1732453200000&accuracy=8.0&altitude=12.0&bearing=90.0"
#: preferences.dart of Traccar Client since 9.
LOCATION: dict[str, Any] = {
    "timestamp": "2024-11-24T13:00:00.000Z",
    "coords": {
        "latitude": 52.6725,
        "longitude": -8.5725,
        "accuracy": 8,
        "speed": 2.5,
        "heading": 90,
        "altitude": 12,
    },
    "is_moving": True,
    "odometer": 1234.5,
    "event": "motionchange",
    "battery": {"level": 0.71, "is_charging": False},
    "activity": {"type": "walking"},
    "extras": {},
    "_": f"&id={KEY}&lat=52.6725&lon=-8.5725&timestamp=2024-11-24T13:00:00.000Z&",
}
FIX = DecodedFix("", T, 52.6725, -8.5725, acc=8.0, vel=9.26, cog=90.0, alt=12.0, batt=71.0)


def decoded(query: str = "", body: bytes = b"") -> list[Decoded]:
    """Decode a request, whose identifier must be the key."""
    report = read_report(dict(parse_qsl(query)), body)
    assert report.identifier == KEY
    return decode_report(report, RECEIVED_S)


def changed(**changes: Any) -> DecodedFix:
    """The fix of all apps, with what one of them sends otherwise."""
    fields = {name: getattr(FIX, name) for name in FIX.__struct_fields__}
    return DecodedFix(**(fields | changes))


def test_each_generation_of_the_apps() -> None:
    """Query, form and JSON give the same fix, as far as they have its fields; below 0 is unknown."""
    assert decoded(ANDROID) == [FIX]
    assert decoded(body=ANDROID.encode()) == [FIX]
    assert decoded(IOS) == [changed(vel=None, cog=None)]
    assert decoded(OSMAND) == [changed(vel=None, batt=None)]
    for location, number in ((LOCATION, 1), ([LOCATION, LOCATION], 2)):
        body = json.dumps({"location": location, "device_id": KEY}).encode()
        assert decoded(body=body) == [changed(vel=9.0)] * number


@pytest.mark.parametrize(
    "given_time",
    [
        "1732453200",
        "1732453200.0",
        "1732453200000",
        "2024-11-24T13:00:00Z",
        "2024-11-24 13:00:00",
        "2024-11-24T14:00:00%2B01:00",
    ],
)
def test_times_in_all_forms(given_time: str) -> None:
    """Seconds, milliseconds and ISO 8601 are the same instant; without a zone it is UTC."""
    assert decoded(f"deviceid={KEY}&lat=1&lon=2&timestamp={given_time}") == [DecodedFix("", T, 1.0, 2.0)]


def test_other_spellings() -> None:
    """The position may be one field; without a time it is that of the request, and hdop is no accuracy."""
    found = decoded(f"id={KEY}&location=1,2&heading=7&hdop=1.2&driverUniqueId=9&valid=true")
    assert found == [DecodedFix("", RECEIVED_S, 1.0, 2.0, cog=7.0)]


def test_requests_without_a_position_are_ignored() -> None:
    """An alarm, a fix that the receiver marks as invalid, and a missing position are no fixes."""
    assert decoded(f"id={KEY}&alarm=sos") == [Ignored("no_position")]
    assert decoded(f"{ANDROID}&valid=false") == [Ignored("not_valid")]
    body = {"location": {**LOCATION, "coords": None}, "device_id": KEY}
    assert decoded(body=json.dumps(body).encode()) == [Ignored("no_position")]


@pytest.mark.parametrize("query", ["lat=x&lon=2", "lat=1", "lat=1&lon=2&timestamp=soon"])
def test_wrong_values_are_errors(query: str) -> None:
    """A position or a time that is not valid is an error."""
    (found,) = decoded(f"id={KEY}&{query}")
    assert isinstance(found, DecodeError)


@given(
    st.text(max_size=60) | st.just(f"/?{ANDROID}"), st.binary(max_size=60) | st.just(b'{"location":[7,{}]}')
)
def test_no_input_raises_anything_else(text: str, body: bytes) -> None:
    """Any query and body give decoded elements or a DecodeError."""
    try:
        query = dict(parse_qsl(urlsplit(f"//x/?{text}").query))
    except ValueError:
        return
    with suppress(DecodeError):
        decode_report(read_report(query, body), RECEIVED_S)
