"""Payloads that strict decoders refuse: what is accepted, and the exact reason for the others."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from case_files import case
from headcount.counting.fix_columns import FixColumns
from headcount.lab.chaos.independent_reader import decode_fix
from headcount.messages.fixes import Fix
from headcount.messaging.fix_json import fix_problem, read_fix
from headcount.messaging.payloads import decode
from headcount.messaging.raw_batch import RawBatch

GOOD = b'{"tst":1700000000,"lat":47.5,"lon":14.5}'


def body(**changes: object) -> bytes:
    """A fix with other fields."""
    return json.dumps({"tst": 1700000000, "lat": 47.5, "lon": 14.5, **changes}).encode()


def without(*names: str, **more: object) -> bytes:
    """A fix without some fields, and with others."""
    fields = {"tst": 1700000000, "lat": 47.5, "lon": 14.5}
    return json.dumps({key: value for key, value in fields.items() if key not in names} | more).encode()


def columns(payloads: list[bytes]) -> FixColumns:
    """The columns of these messages as the counting worker decodes them."""
    n = len(payloads)
    subjects = [b"fix.1.ul.person.a"] * n
    return decode(b"ul", RawBatch(1, subjects, payloads, np.arange(n), np.full(n, 10**18)))


ACCEPTED = {
    "texts": body(acc=8, batt="85", vel="3", alt="", cog="north"),
    "odd types": body(vel=[1], alt={"m": 3}, batt=True, cog=None, t={}, tid=7),
    "a list as trigger": body(t=["u"]),
    "true as trigger": body(t=True),
    "NaN that is not used": body(alt=math.nan, vel=math.inf),
    "1e999 that is not used": GOOD[:-1] + b',"batt":1e999}',
    "half a character": GOOD[:-1] + b',"SSID":"\\ud83d"}',
    "Latin-1": GOOD[:-1] + b',"SSID":"Z\xfcrich"}',
    "Latin-1 and a text": GOOD[:-1] + b',"batt":"8","acc":"8","SSID":"Z\xfcrich"}',
    "one NUL": GOOD + b"\0",
    "a buffer of NULs": GOOD + b"\r\n" + b"\0" * 200,
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "both": b"\xef\xbb\xbf" + GOOD + b"\n\0",
    "both, and texts": b"\xef\xbb\xbf" + body(batt="85", acc="8") + b"\n\0",
    "t instead of tst": without("tst", t=1700000000.0),
    "t beside a text": body(tst="now", t=1700000000.0),
}
UNKNOWN_ACCURACIES: list[object] = ["8", "far", "", None, True, [], {}, [5], math.nan, math.inf]


@pytest.mark.parametrize("payload", ACCEPTED.values(), ids=ACCEPTED)
def test_only_time_and_position_decide(payload: bytes) -> None:
    """Neither another field nor bytes around the object make a fix malformed."""
    found = columns([GOOD, payload, GOOD])
    assert found.t_s.tolist() == [1_700_000_000.0] * 3
    assert found.lat_deg.tolist() == [47.5] * 3
    assert found.lon_deg.tolist() == [14.5] * 3
    assert fix_problem(payload) == ""


@pytest.mark.parametrize("acc", UNKNOWN_ACCURACIES, ids=str)
def test_an_accuracy_that_is_no_number_is_unknown(acc: object) -> None:
    """It doesn't matter to the verdict."""
    found = columns([body(acc=acc)])
    assert found.t_s.tolist() == [1_700_000_000.0]
    assert math.isnan(found.acc_m[0])


@pytest.mark.parametrize("name", ["optional_strings", "trailing_nul", "bom"])
def test_cases(name: str) -> None:
    """The payloads that users sent are fixes."""
    payload = case(f"native_{name}.json").read_bytes().replace(b"NOW", b"1700000000")
    assert columns([payload]).t_s.tolist() == [1_700_000_000.0]


PROBLEMS = [
    (b"", "it is empty"),
    (b"\0\0", "it is empty"),
    (gzip.compress(GOOD), "it is compressed (gzip): send plain JSON"),
    (zlib.compress(GOOD), "it is compressed (zlib): send plain JSON"),
    (zlib.compress(GOOD, 9), "it is compressed (zlib): send plain JSON"),
    (bz2.compress(GOOD), "it is compressed (bzip2): send plain JSON"),
    (lzma.compress(GOOD), "it is compressed (xz): send plain JSON"),
    (GOOD.decode().encode("utf-16"), "it is UTF-16: send UTF-8"),
    (GOOD.decode().encode("utf-16-le"), "it is UTF-16: send UTF-8"),
    (GOOD.decode().encode("utf-16-be"), "it is UTF-16: send UTF-8"),
    (b'{"t":"Z\xfcrich","tst":1,"lat":2,"lon":3}', "it is not UTF-8: t has other bytes"),
    (b"\x83\xa3tst\xce\x65", "it is binary, not JSON"),
    (base64.b64encode(GOOD), "it is Base64: send plain JSON"),
    (b"<html><title>504</title></html>", "it is XML or HTML, not JSON"),
    (b"$GPGGA,123519,4807.038,N,01131.000,E", "it is NMEA, not JSON"),
    (b"{'tst': 1, 'lat': 2, 'lon': 3}", "it is text with single quotes, not JSON"),
    (GOOD[:-5], f"it is JSON that is cut off after {len(GOOD) - 5} bytes"),
    (GOOD + GOOD, f"it has more after the JSON value, from byte {len(GOOD)}: publish each fix"),
    (GOOD + b"\0" + b"rest of a buffer", f"it has a NUL at byte {len(GOOD)}, before its end"),
    (b"47.5,14.5", "it has more after the JSON value, from byte 4"),
    (b'{"tst":1,"lat":2,"lon":3,}', "it is not JSON: "),
    (b"[" * 16_000, "it is nested too deeply"),
    (body(pad="x" * 17_000), "it has 17056 bytes, 16384 are allowed"),
    (b"[" + GOOD + b"]", "it is an array of 1, not an object: publish each fix as a message of its own"),
    (json.dumps(GOOD.decode()).encode(), "it is a text, not an object: encode the object once, not twice"),
    (b"null", "it is null, not an object"),
    (b"true", "it is true, not an object"),
    (b"47.5", "it is a number, not an object"),
    (body(lat="47.5"), "lat is the text '47.5', not a number: send a number without quotes"),
    (body(lon="47,5"), "lon is the text '47,5', not a number"),
    (body(tst="2026-11-28T08:00:00Z"), "tst is the text '2026-11-28T08:00:00Z', not a number"),
    (body(lat=None), "lat is null"),
    (body(lat=True), "lat is true, not a number"),
    (body(lat=[47.5]), "lat is an array of 1, not a number"),
    (body(tst={"$date": 5}), "tst is an object, not a number"),
    (body(lat=math.nan), "lat is not a finite number"),
    (b'{"tst":1,"lat":1e999,"lon":3}', "lat is not a finite number"),
    (b'{"tst":1' + b"0" * 400 + b',"lat":2,"lon":3}', "tst is not a finite number"),
    (
        without("lat", "lon", latitude=47.5, Longitude=14.5),
        "lat is missing; the message has 'latitude': rename it to lat; lon is missing; the message has 'Longitude'",
    ),
    (without("lon", lng=14.5), "lon is missing; the message has 'lng': rename it to lon"),
    (without("lat", LAT=47.5), "lat is missing; the message has 'LAT': rename it to lat"),
    (without("tst", timestamp=1), "tst is missing; the message has 'timestamp': rename it to tst"),
    (without("tst", t="1700000000"), "tst is missing; t is a text, not a number"),
    (
        without("lat", "lon", location={"lat": 47.5, "lon": 14.5}),
        "lat is missing; it is inside 'location': put it into the outer object; lon is missing; it is inside",
    ),
    (without("lat", "lon", coords={"latitude": 47.5}), "lat is missing; it is inside 'coords'"),
    (
        without("lat", "lon", geometry={"type": "Point", "coordinates": [14.5, 47.5]}),
        "lat is missing; it is inside 'geometry': put it into the outer object",
    ),
    (
        without("lat", "lon", type="Point", coordinates=[14.5, 47.5]),
        "lat is missing; the message has GeoJSON coordinates: send lat and lon",
    ),
    (b"{}", "tst is missing; lat is missing; lon is missing"),
]


@pytest.mark.parametrize(("payload", "problem"), PROBLEMS, ids=range(len(PROBLEMS)))
def test_each_fault_has_its_reason(payload: bytes, problem: str) -> None:
    """The reason names what was found, and how to send it; the worker judges the message `malformed`."""
    assert fix_problem(payload).startswith(problem)
    found = columns([payload])
    assert not np.isfinite([found.t_s[0], found.lat_deg[0], found.lon_deg[0]]).all()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
wraps = st.sampled_from([b"%b", b"\xef\xbb\xbf%b", b"%b\0\0", b" %b \n"])


@given(
    st.dictionaries(st.sampled_from(["tst", "t", "lat", "lon", "acc", "batt", "x"]), json_values),
    st.sampled_from([{}, {"tst": 5}, {"tst": 5, "lat": 1.5, "lon": 2}]),
    wraps,
)
def test_worker_trace_and_oracle_agree(odd: dict[str, object], good: dict[str, object], wrap: bytes) -> None:
    """The worker's columns, the reason of a trace and an independent decoder agree on each message."""
    payload = wrap.replace(b"%b", json.dumps(good | odd).encode())
    found = columns([payload])
    known, _ = decode_fix(payload)
    is_fix = bool(np.isfinite([found.t_s[0], found.lat_deg[0], found.lon_deg[0]]).all())
    assert is_fix == (fix_problem(payload) == "") == (known.lat is not None)
    if is_fix:
        assert (found.t_s[0], found.lat_deg[0], found.lon_deg[0]) == (known.t, known.lat, known.lon)
        acc = found.acc_m[0]
        assert acc == known.acc if known.acc is not None else math.isnan(acc)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_have_a_reason(payload: bytes) -> None:
    """Any bytes are a fix or have a reason; nothing else is raised."""
    fix_problem(payload)
    fix_problem(b"{" + payload)


def test_read_fix() -> None:
    """The fields of a fix are those of the fast path."""
    assert read_fix(body(acc=5, t=1.5)) == Fix(47.5, 14.5, 1_700_000_000.0, 5.0, 1.5)
