"""Bodies of requests with fixes: every form that a program may send, and all that is not one."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.decoders.http_body import MAX_FIXES, decode_body
from headcount.decoding import DecodedFix, DecodeError

T, RECEIVED_S = 1_732_453_200.0, 1_790_000_000.0
OBJECT: dict[str, Any] = {"t": T, "lat": 52.67, "lon": -8.57, "acc": 8}
FIX = DecodedFix("", T, 52.67, -8.57, acc=8.0)


def encoded(value: object) -> bytes:
    """A value as JSON."""
    return json.dumps(value).encode()


def packed(value: object) -> str:
    """A value as Base64 of JSON."""
    return base64.b64encode(encoded(value)).decode()


def feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A GeoJSON feature."""
    return {"type": "Feature", "id": 17, "geometry": geometry, "properties": properties}


POINT = {"type": "Point", "coordinates": [-8.57, 52.67]}


@pytest.mark.parametrize(
    "body",
    [
        encoded(OBJECT),
        b"\xef\xbb\xbf" + encoded(OBJECT) + b"\n",
        encoded([OBJECT]),
        encoded(packed(OBJECT)),
        packed(OBJECT).encode(),
        base64.urlsafe_b64encode(encoded(OBJECT)).rstrip(b"="),
        base64.encodebytes(encoded(OBJECT)),
        encoded({"payload": packed(OBJECT)}),
        encoded({"payload": OBJECT}),
        encoded({"payload": [OBJECT]}),
        encoded({"d": {"data": packed([OBJECT])}}),
        encoded({"latitude": "52.67", "lng": -8.57, "accuracy": 8, "timestamp": "2024-11-24T13:00:00Z"}),
        encoded({"lat": 52.67, "lon": -8.57, "acc": 8, "tst": T * 1000}),
        encoded(feature(POINT, t=T, acc=8)),
        encoded({"type": "FeatureCollection", "features": [feature(POINT, time=T, acc=8)]}),
        encoded(feature({"type": "LineString", "coordinates": [[-8.57, 52.67]]}, coordTimes=[T], acc=8)),
        encoded(
            feature(
                {"type": "MultiPoint", "coordinates": [[-8.57, 52.67]]},
                coordinateProperties={"times": ["2024-11-24T13:00:00Z"]},
                acc=8,
            )
        ),
    ],
)
def test_each_form_gives_the_same_fix(body: bytes) -> None:
    """Plain, wrapped, in Base64 or as GeoJSON: the same position and time."""
    assert decode_body(body, RECEIVED_S, "person") == [FIX]


def test_lines_are_values_of_their_own() -> None:
    """An invalid line of NDJSON spoils itself alone, also where the media type does not name the format."""
    body = encoded(OBJECT) + b"\r\n\nnonsense\n" + packed(OBJECT).join('""').encode() + b"\n"
    for lines in (True, False):
        first, wrong, last = decode_body(body, RECEIVED_S, "person", lines=lines)
        assert (first, last) == (FIX, FIX)
        assert isinstance(wrong, DecodeError)
        assert wrong.label == "not_json"


def test_what_is_missing_has_a_default() -> None:
    """Without a time it is now, without an id the sender itself, without a kind that of the request."""
    assert decode_body(b'{"lat":1,"lon":2}', RECEIVED_S, "vehicle") == [
        DecodedFix("", RECEIVED_S, 1.0, 2.0, kind="vehicle")
    ]
    assert decode_body(b'{"lat":1,"lon":2,"id":7,"kind":"person"}', RECEIVED_S, "vehicle") == [
        DecodedFix("7", RECEIVED_S, 1.0, 2.0, kind="person")
    ]
    wrapped = encoded(
        {"id": "car-7", "payload": packed([{"lat": 1, "lon": 2}, {"id": "x", "lat": 3, "lon": 4}])}
    )
    assert [
        each.name for each in decode_body(wrapped, RECEIVED_S, "person") if isinstance(each, DecodedFix)
    ] == [
        "car-7",
        "x",
    ]


def test_heights_of_positions_are_altitudes() -> None:
    """The third coordinate is the altitude."""
    (found,) = decode_body(encoded({"type": "Point", "coordinates": [1, 2, 3]}), RECEIVED_S, "person")
    assert found == DecodedFix("", RECEIVED_S, 2.0, 1.0, alt=3.0)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"lon": 2}, "no_position"),
        ({"lat": None, "lon": 2}, "no_position"),
        ({"lat": 1, "lon": 2, "t": "yesterday"}, "no_time"),
        ({"lat": 1, "lon": 2, "id": [1]}, "no_id"),
        ({"payload": {"payload": {"d": {"d": {"d": OBJECT}}}}}, "too_many_wrappers"),
        ([7], "not_an_object"),
        (["?"], "not_json"),
        (feature({"type": "Polygon", "coordinates": []}), "geometry"),
        (feature({"type": "Point", "coordinates": [1]}), "no_position"),
        (feature({"type": "Point"}), "no_position"),
        (feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, coordTimes=[T]), "no_times"),
        ({"type": "FeatureCollection", "features": None}, "no_feature"),
        ({"type": "Feature", "properties": 7, "geometry": POINT}, "geometry"),
        (POINT | {"crs": {"type": "name", "properties": {"name": "EPSG:3857"}}}, "crs"),
    ],
)
def test_a_part_that_is_no_fix_has_its_reason(value: object, label: str) -> None:
    """An element that is no fix is an error with a label and a sentence, and others are not affected."""
    wrong, last = decode_body(encoded([value, OBJECT]), RECEIVED_S, "person")
    assert isinstance(wrong, DecodeError)
    assert (wrong.label, last) == (label, FIX)
    assert wrong.problem


@pytest.mark.parametrize("body", [b"", b"\n", b"lat=1", b"{", b"<xml/>", b"\xff\xfe{", b'{"lat":1}\x00{'])
def test_a_body_that_is_not_json_is_an_error(body: bytes) -> None:
    """A body in none of the forms is an error as a whole."""
    with pytest.raises(DecodeError):
        decode_body(body, RECEIVED_S, "person")


def test_fixes_are_limited() -> None:
    """At most 1000 fixes are read."""
    assert len(decode_body(encoded([OBJECT] * MAX_FIXES), RECEIVED_S, "person")) == MAX_FIXES
    with pytest.raises(DecodeError) as raised:
        decode_body(encoded([OBJECT] * (MAX_FIXES + 1)), RECEIVED_S, "person")
    assert raised.value.label == "too_many"


_NAMES = (
    *("lat", "lon", "t", "id", "kind", "payload", "d", "type", "geometry", "coordinates", "properties"),
    *("features", "coordTimes", "coordinateProperties", "times", "crs"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner | st.sampled_from(["Feature", "FeatureCollection", "Point", "LineString", "person"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | _JSON.map(encoded), st.booleans())
def test_no_input_raises_anything_else(body: bytes, lines: bool) -> None:
    """Any bytes give decoded elements or a DecodeError."""
    with suppress(DecodeError):
        decode_body(body, RECEIVED_S, "person", lines=lines)
