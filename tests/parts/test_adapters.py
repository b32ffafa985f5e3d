"""The decoders of foreign formats: what is translated, ignored and rejected, and that nothing raises."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headcount import wire
from headcount.adapters import iotp, owntracks
from headcount.adapters.foreign import MAX_BYTES, Canonical, Ignored, Outcome, Rejected

FIX = msgspec.json.Decoder(wire.Fix)

# Payloads as the OwnTracks apps send them: the booklet's fields, the shapes of public samples.
ANDROID = (
    b'{"_type":"location","acc":15,"alt":440,"batt":46,"conn":"w","lat":46.0681247,"lon":11.1512805,'
    b'"t":"u","tid":"5t","tst":1551874878,"vac":2,"vel":0}'
)
IOS = (
    b'{"cog":271,"lon":2.29513,"acc":5,"vel":61,"vac":21,"lat":48.85833,"tst":1497349316,"alt":167,'
    b'"_type":"location","tid":"JJ","t":"u","batt":67,"inregions":["Home"],"created_at":1497349320}'
)
SHORT = b'{"lat":48.85,"lon":2.295,"_type":"location","tid":"JJ","tst":1497476456}'
TRACKER = (
    b'{"topic":"owntracks/qtripp/865284041968706","lat":47.420051,"lon":13.654704,"vel":0,"cog":113,'
    b'"tst":1736519167,"mcc":232,"lac":"4F4D","_type":"location","acc":10,"alt":1113,"t":"I","don":105}'
)
TRANSITION = (
    b'{"_type":"transition","wtst":1690000000,"lat":52.67,"lon":-8.57,"tst":1700000000,"acc":25.5,'
    b'"tid":"ab","event":"enter","desc":"Library","t":"c"}'
)


def only(outcomes: list[Outcome]) -> Outcome:
    """The one outcome there is."""
    assert len(outcomes) == 1
    return outcomes[0]


def fix_of(outcome: Outcome) -> wire.Fix:
    """The decoded payload of a translated fix."""
    assert isinstance(outcome, Canonical)
    assert outcome.what == "fix"
    return FIX.decode(outcome.payload)


# --- OwnTracks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "tst", "lat", "lon", "acc"),
    [
        (ANDROID, 1551874878, 46.0681247, 11.1512805, 15),
        (IOS, 1497349316, 48.85833, 2.29513, 5),
        (SHORT, 1497476456, 48.85, 2.295, None),
        (TRACKER, 1736519167, 47.420051, 13.654704, 10),
        (TRANSITION, 1700000000, 52.67, -8.57, 25.5),
        (b'{"_type":"location","tst":"1700000000","lat":"1.5","lon":"2","acc":-1}', 1700000000, 1.5, 2, None),
    ],
)
def test_owntracks_positions_become_fixes(
    payload: bytes, tst: int, lat: float, lon: float, acc: float | None
) -> None:
    """Locations and transitions of real apps become fixes with the same time, place and accuracy."""
    outcome = only(owntracks.decode("owntracks/jane/phone", payload))
    assert isinstance(outcome, Canonical)
    assert (outcome.kind, outcome.device) == ("person", "jane-phone")
    fix = fix_of(outcome)
    assert (fix.tst, fix.lat, fix.lon, fix.acc, fix.t) == (tst, lat, lon, acc, None)


def test_owntracks_last_will_becomes_offline() -> None:
    """The app's last will is the status `offline` of the same device."""
    outcome = only(owntracks.decode("owntracks/jane/car1", b'{"_type":"lwt","tst":1700000000}'))
    assert outcome == Canonical("vehicle", "jane-car1", "status", b"offline")


def test_transitions_come_on_the_event_topic_too() -> None:
    """The apps send transitions below the device's topic; they mean the same device."""
    above = owntracks.decode("owntracks/jane/phone", TRANSITION)
    assert owntracks.decode("owntracks/jane/phone/event", TRANSITION) == above


@pytest.mark.parametrize(
    "type_",
    [
        "encrypted",
        "waypoint",
        "waypoints",
        "card",
        "cmd",
        "configuration",
        "steps",
        "beacon",
        "status",
        "dump",
        "request",
    ],
)
def test_owntracks_types_without_a_position_are_ignored(type_: str) -> None:
    """Every other type of the booklet is ignored under its own name, even if it has a position."""
    payload = json.dumps({"_type": type_, "lat": 1, "lon": 2, "tst": 3}).encode()
    assert only(owntracks.decode("owntracks/jane/phone", payload)) == Ignored(type_)


def test_other_owntracks_messages_are_ignored_politely() -> None:
    """Unknown types, other subtopics and transitions of beacons are ignored, not rejected."""
    unknown = only(owntracks.decode("owntracks/a/b", b'{"_type":"x\\ny"}'))
    assert unknown == Ignored("unknown_type")
    assert only(owntracks.decode("owntracks/a/b/cmd", b"anything")) == Ignored("subtopic")
    beacon = b'{"_type":"transition","event":"enter","tst":1,"acc":0}'
    assert only(owntracks.decode("owntracks/a/b", beacon)) == Ignored("beacon_transition")


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("owntracks/a/b", b"", "not_json"),
        ("owntracks/a/b", b"\x00\xff\xfe", "not_json"),
        ("owntracks/a/b", b"[" * 60_000, "not_json"),
        ("owntracks/a/b", b'{"a":' * 10_000, "not_json"),
        ("owntracks/a/b", b"x" * 10_000_000, "too_large"),
        ("owntracks/a/b", b"[" + b"{}," * 200 + b"{}]", "too_large"),
        ("owntracks/a/b", b"[]", "not_an_object"),
        ("owntracks/a/b", b"12", "not_an_object"),
        ("owntracks/a/b", b"{}", "no_type"),
        ("owntracks/a/b", b'{"_type":["location"]}', "no_type"),
        ("owntracks/a/b", b'{"_type":"location","lat":1,"lon":2}', "no_time"),
        ("owntracks/a/b", b'{"_type":"location","tst":true,"lat":1,"lon":2}', "no_time"),
        ("owntracks/a/b", b'{"_type":"location","tst":1,"lat":null,"lon":2}', "no_position"),
        ("owntracks/a/b", b'{"_type":"location","tst":1,"lat":"nan","lon":2}', "no_position"),
        ("owntracks/a/b", b'{"_type":"location","tst":1,"lat":NaN,"lon":2}', "not_json"),
        ("owntracks/a/b", b'{"_type":"location","tst":1,"lat":1e999,"lon":2}', "not_json"),
        ("owntracks/a/b", b'{"_type":"location","tst":1,"lat":' + b"9" * 400 + b',"lon":2}', "no_position"),
        ("owntracks/a", b"{}", "topic"),
        ("owntracks//b", b"{}", "topic"),
        ("owntracks/a/b/c/d", b"{}", "topic"),
        ("", b"{}", "topic"),
    ],
)
def test_bad_owntracks_messages_are_rejected_with_a_reason(topic: str, payload: bytes, reason: str) -> None:
    """Whatever can't be an OwnTracks message is rejected, each time with the reason."""
    outcome = only(owntracks.decode(topic, payload))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason


def test_an_array_gives_one_outcome_for_each_object() -> None:
    """An array of messages is translated object by object; a broken one spoils no other."""
    payload = b"[" + ANDROID + b',1,{"_type":"card"},' + IOS + b"]"
    kinds = [type(outcome) for outcome in owntracks.decode("owntracks/a/b", payload)]
    assert kinds == [Canonical, Rejected, Ignored, Canonical]


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("car", "vehicle"),
        ("car7", "vehicle"),
        ("CAR_2", "vehicle"),
        ("car-red", "vehicle"),
        ("carol", "person"),
        ("oscar", "person"),
        ("van", "vehicle"),
        ("tablet", "vehicle"),
        ("phone", "person"),
    ],
)
def test_owntracks_kind(device: str, kind: str) -> None:
    """A device drives when it is configured, or named car with a digit, `_` or `-` behind."""
    assert owntracks.kind_of("jane", device, frozenset({"van", "jane/tablet", "joe/phone"})) == kind


names = st.text(min_size=1, max_size=70) | st.from_regex(r"[a-z0-9_]{1,40}", fullmatch=True)


@given(names, names, names, names)
@example("ot", "0" * 32, "a-b", "c")
@example("a-b", "c", "a", "b-c")
@example("a\0b", "c", "a", "b\0c")
def test_owntracks_ids_are_canonical_and_differ(user: str, device: str, user2: str, device2: str) -> None:
    """Every pair of names gets a canonical id, two different pairs two different ones."""
    assume("/" not in user + device + user2 + device2)
    first, second = owntracks.device_id(user, device), owntracks.device_id(user2, device2)
    assert wire.ID.fullmatch(first)
    assert wire.ID.fullmatch(second)
    assert (first == second) == (
        (user, device) == (user2, device2)
    ) or "\0" in user + device + user2 + device2


def test_no_readable_pair_looks_like_a_digest() -> None:
    """The user `ot` can't claim the id that stands for another pair."""
    hidden = owntracks.device_id("a b", "phone")
    assert hidden.startswith("ot-")
    assert owntracks.device_id("ot", hidden.removeprefix("ot-")) != hidden


# --- iotp ----------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"id": "car-7", "lat": 52.67, "lon": -8.57, "t": 1732453200.25, "acc": 4.5}


def b64(value: object) -> str:
    """Base64 of the JSON of a value."""
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(PLAIN),
        json.dumps({**PLAIN, "t": 1732453200250}),
        json.dumps({**PLAIN, "t": "2024-11-24T13:00:00.250Z"}),
        json.dumps({"id": "car-7", "latitude": "52.67", "lng": -8.57, "ts": 1732453200.25, "accuracy": 4.5}),
        json.dumps({"id": "car-7", "lat": 52.67, "long": -8.57, "t": "u", "tst": 1732453200.25, "acc": 4.5}),
        b64(PLAIN),
        b64(PLAIN).rstrip("=") + "\n",
        "\n".join(b64(PLAIN)[i : i + 20] for i in range(0, 200, 20)),
        base64.urlsafe_b64encode(json.dumps({**PLAIN, "x": "???>>>"}).encode()).decode(),
        json.dumps(b64(PLAIN)),
        b64(b64(PLAIN)),
        json.dumps({"payload": b64(PLAIN)}),
        json.dumps({"data": b64(PLAIN), "more": 1}),
        json.dumps({"payload": PLAIN}),
        json.dumps({"d": PLAIN}),
        json.dumps({"d": {"data": b64(PLAIN)}}),
        json.dumps({"id": "car-7", "t": 1732453200.25, "d": {"lat": 52.67, "lon": -8.57, "acc": 4.5}}),
        json.dumps({**PLAIN, "data": "something else"}),
    ],
)
def test_iotp_in_every_wrapping_becomes_the_same_fix(payload: str) -> None:
    """Plain, Base64 and wrapped objects with any of the known key names are one and the same fix."""
    outcome = only(iotp.decode("car-iotp", payload.encode(), 5.0))
    assert isinstance(outcome, Canonical)
    assert (outcome.kind, outcome.device) == ("vehicle", "car-7")
    fix = fix_of(outcome)
    assert (fix.tst, fix.t, fix.lat, fix.lon, fix.acc) == (1732453200, 1732453200.25, 52.67, -8.57, 4.5)


def test_iotp_without_a_time_has_the_brokers() -> None:
    """A message without a time happened when the broker received it; its topic tells the kind."""
    outcome = only(iotp.decode("mobile-iotp", b'{"id":12,"lat":1,"lon":2,"t":null}', 1700000000.5))
    assert isinstance(outcome, Canonical)
    assert (outcome.kind, outcome.device) == ("person", "12")
    assert fix_of(outcome).t == 1700000000.5


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\x00", "not_json"),
        (b"!!", "not_json"),
        (b"AAAA", "not_json"),
        (b"A", "not_json"),
        (b"x" * 10_000_000, "too_large"),
        (b"[" * 60_000, "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"lat":1,"lon":2}', "no_id"),
        (b'{"id":"","lat":1,"lon":2}', "no_id"),
        (b'{"id":[1],"lat":1,"lon":2}', "no_id"),
        (b'{"id":true,"lat":1,"lon":2}', "no_id"),
        (b'{"id":"a","lat":1}', "no_position"),
        (b'{"id":"a","lat":{"x":1},"lon":2}', "no_position"),
        (b'{"id":"a","lat":1,"lon":2,"t":"soon"}', "no_time"),
        (b'{"id":"a","lat":1,"lon":2,"t":[1]}', "no_time"),
        (b'{"d":' * 8 + b"{}" + b"}" * 8, "too_many_wrappers"),
    ],
)
def test_bad_iotp_messages_are_rejected_with_a_reason(payload: bytes, reason: str) -> None:
    """Whatever can't be a position is rejected, each time with the reason."""
    assert only(iotp.decode("car-iotp", payload, 0.0)) == Rejected(reason)


def test_iotp_ids_that_are_not_canonical_become_digests() -> None:
    """An id of other characters, of any length, or that looks like a digest gets a digest of its own."""
    ids = ["AA:BB:CC", "a b", "x" * 65, "x" * 10_000, "é", "iotp-1", "ot-1", "../../etc", "\0"]
    names = [iotp.device_id(value) for value in ids]
    assert len(set(names)) == len(ids)
    assert all(wire.ID.fullmatch(name) and name.startswith("iotp-") for name in names)


# --- nothing raises ------------------------------------------------------------------------------

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "_type",
        "id",
        "lat",
        "lon",
        "lng",
        "long",
        "tst",
        "t",
        "timestamp",
        "ts",
        "acc",
        "accuracy",
        "vel",
        "cog",
        "alt",
        "batt",
        "payload",
        "data",
        "d",
    ]
)
objects = st.dictionaries(keys, json_values | st.sampled_from(["location", "transition", "lwt"]), max_size=10)
payloads = st.one_of(
    st.binary(max_size=300),
    objects.map(lambda value: json.dumps(value).encode()),
    objects.map(lambda value: b64(value).encode()),
    st.lists(objects, max_size=3).map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps(value).encode(errors="replace")),
)


@given(st.text(max_size=40), st.text(max_size=40), payloads)
def test_no_input_makes_a_decoder_raise(user: str, device: str, payload: bytes) -> None:
    """Any payload under any name is translated, ignored or rejected; what is translated can be read."""
    outcomes = [
        *owntracks.decode(f"owntracks/{user}/{device}", payload),
        *iotp.decode("car-iotp", payload, 1.0),
        *iotp.decode("mobile-iotp", payload, 1.0),
    ]
    for outcome in outcomes:
        if isinstance(outcome, Canonical) and outcome.what == "fix":
            assert wire.ID.fullmatch(outcome.device)
            fix = fix_of(outcome)
            assert all(math.isfinite(value) for value in (fix.tst, fix.lat, fix.lon, fix.acc or 0))
            assert len(outcome.payload) < MAX_BYTES


@given(
    st.floats(-1e6, 4e9),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.none() | st.floats(0, 1000),
)
def test_a_fix_survives_encoding(t_s: float, lat: float, lon: float, acc: float | None) -> None:
    """`encode_fix` loses no digit: `t`, where present, else `tst`, is the time that was given."""
    fix = FIX.decode(wire.encode_fix(t_s, lat, lon, acc=acc))
    assert (fix.tst if fix.t is None else fix.t, fix.lat, fix.lon, fix.acc) == (t_s, lat, lon, acc)
    assert math.floor(t_s) == fix.tst
