"""The decoders of other formats: translated, ignored and rejected messages, and no exceptions."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.decoders import owntracks
from headcount.decoders.canonical import CanonicalMessage, Outcome, radius_68
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoders.formats import SHIPPED, decode_message
from headcount.decoders.tolerant import MAX_BYTES
from headcount.decoding import DecodeError, Ignored, Message
from headcount.devices.registry_cache import RegistryCache
from headcount.messages.fixes import Fix, encode_fix
from headcount.messages.records import Device, DeviceStatus
from headcount.messages.topics import HANDLE

FIX = msgspec.json.Decoder(Fix)
SECRET = "the secret of a deployment"  # noqa: S105 - of no other than this
#: An empty registry.
NAMES = AliasResolver(SECRET, RegistryCache(), "ul")

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


def owntracks_outcomes(topic: str, payload: bytes, names: AliasResolver = NAMES) -> list[Outcome]:
    """The outcomes of a message of OwnTracks."""
    return [
        names.outcome("owntracks", each) for each in decode_message(SHIPPED[0], payload, Message(topic, 0.0))
    ]


def iotp_outcomes(
    topic: str, payload: bytes, received_s: float = 0.0, names: AliasResolver = NAMES
) -> list[Outcome]:
    """The outcomes of a message of `car-iotp` or `mobile-iotp`."""
    message = Message(topic, received_s)
    return [names.outcome("iotp", each) for each in decode_message(SHIPPED[1], payload, message)]


def only(outcomes: list[Outcome]) -> Outcome:
    """The only outcome of a message."""
    assert len(outcomes) == 1
    return outcomes[0]


def fix_of(outcome: Outcome) -> Fix:
    """The decoded payload of a translated fix."""
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.what == "fix"
    return FIX.decode(outcome.payload)


# --- OwnTracks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "acc"),
    [
        ({"acc": 20}, 20),
        ({"acc": 20, "p": 101.3}, 20.8),
        ({"acc": 20, "rad": 50}, 20.8),
        ({"acc": -1, "p": 101.3}, None),
        ({"p": 101.3}, None),
    ],
)
def test_accuracy_of_ios_becomes_the_radius_of_68_percent(keys: dict[str, float], acc: float | None) -> None:
    """A message that only the iOS app sends has a radius of about 65 %; all others have one of 68 %."""
    value = {"_type": "location", "lat": 52.67, "lon": -8.57, "tst": 1700000000} | keys
    outcome = only(owntracks_outcomes("owntracks/jane/phone", json.dumps(value).encode()))
    assert fix_of(outcome).acc == acc


@pytest.mark.parametrize("probability", [owntracks.ANDROID, owntracks.APPLE, 0.95])
def test_the_converted_radius_holds_68_percent(probability: float) -> None:
    """68 % of circular normal errors lie within the radius that is made of any platform's; browsers report 95 %."""
    sigma_m = 10 / math.sqrt(-2 * math.log(1 - probability))
    errors = np.random.default_rng(1).normal(0, sigma_m, (2, 100_000))
    within = np.hypot(*errors) <= radius_68(10, probability)
    assert within.mean() == pytest.approx(0.68, abs=0.005)


def test_iotp_keeps_the_accuracy() -> None:
    """An older flow does not name the phone's system, so its accuracy stays as it is."""
    payload = b'{"id": "car-7", "lat": 52.67, "lon": -8.57, "t": 1732453200, "accuracy": 20}'
    assert fix_of(only(iotp_outcomes("car-iotp", payload, 1732453200))).acc == 20


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
    outcome = only(owntracks_outcomes("owntracks/jane/phone", payload))
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.sender.kind == "person"
    assert HANDLE.fullmatch(outcome.sender.device)
    assert b"jane" not in outcome.payload
    fix = fix_of(outcome)
    assert (fix.tst, fix.lat, fix.lon, fix.acc, fix.t) == (tst, lat, lon, acc, None)


def test_owntracks_last_will_becomes_offline() -> None:
    """The app's last will is the status `offline` of the same device."""
    outcome = only(owntracks_outcomes("owntracks/jane/car1", b'{"_type":"lwt","tst":1700000000}'))
    there = only(owntracks_outcomes("owntracks/jane/car1", SHORT))
    assert isinstance(there, CanonicalMessage)
    assert outcome == CanonicalMessage(there.sender, "status", b"offline")


def test_transitions_come_on_the_event_topic_too() -> None:
    """The apps send transitions below the device's topic; they mean the same device."""
    above = owntracks_outcomes("owntracks/jane/phone", TRANSITION)
    assert owntracks_outcomes("owntracks/jane/phone/event", TRANSITION) == above


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
    """Every other type of the booklet is ignored with its name as reason, even if it has a position."""
    payload = json.dumps({"_type": type_, "lat": 1, "lon": 2, "tst": 3}).encode()
    assert only(owntracks_outcomes("owntracks/jane/phone", payload)) == Ignored(type_)


def test_other_owntracks_messages_are_ignored() -> None:
    """Unknown types, other subtopics and transitions of beacons are ignored, not rejected."""
    unknown = only(owntracks_outcomes("owntracks/a/b", b'{"_type":"x\\ny"}'))
    assert unknown == Ignored("unknown_type")
    assert only(owntracks_outcomes("owntracks/a/b/cmd", b"anything")) == Ignored("subtopic")
    beacon = b'{"_type":"transition","event":"enter","tst":1,"acc":0}'
    assert only(owntracks_outcomes("owntracks/a/b", beacon)) == Ignored("beacon_transition")


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
    """Each invalid OwnTracks message is rejected with a reason."""
    outcome = only(owntracks_outcomes(topic, payload))
    assert isinstance(outcome, DecodeError)
    assert outcome.label == reason


def test_an_array_gives_one_outcome_for_each_object() -> None:
    """An array of messages is translated object by object; an invalid one affects no other."""
    payload = b"[" + ANDROID + b',1,{"_type":"card"},' + IOS + b"]"
    kinds = [type(outcome) for outcome in owntracks_outcomes("owntracks/a/b", payload)]
    assert kinds == [CanonicalMessage, DecodeError, Ignored, CanonicalMessage]


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("car", "vehicle"),
        ("car7", "vehicle"),
        ("CAR_2", "vehicle"),
        ("car-red", "vehicle"),
        ("carol", "person"),
        ("oscar", "person"),
        ("phone", "person"),
    ],
)
def test_owntracks_kind(device: str, kind: str) -> None:
    """A device is a vehicle if it is named car, followed by a digit, `_` or `-`."""
    assert owntracks.kind_of(device) == kind


# --- names ---------------------------------------------------------------------------------------

texts = st.text(max_size=70)


@given(texts, texts)
def test_a_derived_handle_stands_for_one_name(name: str, other: str) -> None:
    """Each name has its own constant handle, which differs between formats and deployments."""
    first, second = NAMES.derived("iotp", name, "person"), NAMES.derived("iotp", other, "person")
    assert HANDLE.fullmatch(first.device)
    assert (first == second) == (name == other)
    assert first == AliasResolver(SECRET, RegistryCache(), "ul").derived("iotp", name, "person")
    assert (
        first.device
        != AliasResolver("another secret", RegistryCache(), "ul").derived("iotp", name, "person").device
    )
    assert first.device != NAMES.derived("owntracks", f"{name}/{name}", "person").device


def registered() -> tuple[AliasResolver, Device]:
    """A registry with one car that has aliases."""
    directory = RegistryCache()
    device = Device(
        id="k7wqz2mfa5ujxh3teyn4",
        site="harbour",
        kind="vehicle",
        aliases=["owntracks/jane/phone", "iotp/AA:BB:CC"],
    )
    directory.put(device)
    return AliasResolver(SECRET, directory, "ul"), device


def test_aliases_and_handles_mean_the_registered_device() -> None:
    """A handle as OwnTracks user, and every alias, resolve to the device with site and kind of the registry."""
    names, car = registered()
    for outcome in (
        only(owntracks_outcomes(f"owntracks/{car.id}/whatever", SHORT, names)),
        only(owntracks_outcomes("owntracks/jane/phone", SHORT, names)),
        only(iotp_outcomes("mobile-iotp", b'{"id":"AA:BB:CC","lat":1,"lon":2}', 5.0, names)),
    ):
        assert isinstance(outcome, CanonicalMessage)
        assert outcome.sender == ("harbour", "vehicle", car.id)


@pytest.mark.parametrize("topic", ["owntracks/jane/tablet", "owntracks/aaaaaaaaaaaaaaaaaaaa/phone"])
def test_other_names_are_not_registered_devices(topic: str) -> None:
    """Another device of the same user, and an unregistered handle, resolve to no registered device."""
    names, car = registered()
    outcome = only(owntracks_outcomes(topic, SHORT, names))
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.sender.site == "ul"
    assert outcome.sender.device not in (car.id, "aaaaaaaaaaaaaaaaaaaa")


def test_a_gateway_cannot_use_a_handle() -> None:
    """The id in an iotp payload is a name: a handle there does not resolve to that device."""
    names, car = registered()
    outcome = only(iotp_outcomes("car-iotp", b'{"id":"%b","lat":1,"lon":2}' % car.id.encode(), 5.0, names))
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.sender.device != car.id


@pytest.mark.parametrize("status", ["paused", "disabled", "erasing"])
def test_inactive_devices_are_ignored(status: DeviceStatus) -> None:
    """Messages of a paused, disabled or erased device are ignored, also through a gateway."""
    names, car = registered()
    car.status = status
    assert only(owntracks_outcomes("owntracks/jane/phone", SHORT, names)) == Ignored(status)
    assert only(iotp_outcomes("car-iotp", b'{"id":"AA:BB:CC","lat":1,"lon":2}', 5.0, names)) == Ignored(
        status
    )


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
    """Plain, Base64 and wrapped objects with any of the known keys give the same fix."""
    outcome = only(iotp_outcomes("car-iotp", payload.encode(), 5.0))
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.sender == NAMES.derived("iotp", "car-7", "vehicle")
    fix = fix_of(outcome)
    assert (fix.tst, fix.t, fix.lat, fix.lon, fix.acc) == (1732453200, 1732453200.25, 52.67, -8.57, 4.5)


def test_iotp_without_a_time_has_the_brokers() -> None:
    """A message without a time has the broker's receive time, and the kind of its topic."""
    outcome = only(iotp_outcomes("mobile-iotp", b'{"id":12,"lat":1,"lon":2,"t":null}', 1700000000.5))
    assert isinstance(outcome, CanonicalMessage)
    assert outcome.sender == NAMES.derived("iotp", "12", "person")
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
        (b'{"id":"%b","lat":1,"lon":2}' % (b"x" * 2000), "long_id"),
        (b'{"id":"a","lat":1}', "no_position"),
        (b'{"id":"a","lat":{"x":1},"lon":2}', "no_position"),
        (b'{"id":"a","lat":1,"lon":2,"t":"soon"}', "no_time"),
        (b'{"id":"a","lat":1,"lon":2,"t":[1]}', "no_time"),
        (b'{"d":' * 8 + b"{}" + b"}" * 8, "too_many_wrappers"),
    ],
)
def test_bad_iotp_messages_are_rejected_with_a_reason(payload: bytes, reason: str) -> None:
    """Each message without a valid position is rejected with a reason."""
    outcome = only(iotp_outcomes("car-iotp", payload, 0.0))
    assert isinstance(outcome, DecodeError)
    assert outcome.label == reason


POSITION = {"lat": 47.5, "lon": 14.5}


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (gzip.compress(b"{}"), "it is compressed (gzip): send plain JSON"),
        ('{"_type":"location"}'.encode("utf-16"), "it is UTF-16: send UTF-8"),
        (b'{"_type":"location","tst":1,', "it is JSON that is cut off after 28 bytes"),
        (b"7", "it is a number, not an object"),
        (
            json.dumps({"_type": "location", "tst": 1, "latitude": 1, "lon": 2}).encode(),
            "the message has 'latitude'",
        ),
        (
            json.dumps({"_type": "location", "tst": 1, "lat": "north", "lon": 2}).encode(),
            "lat is the text 'north', not a",
        ),
        (
            json.dumps({"_type": "location", "timestamp": 1} | POSITION).encode(),
            "tst is missing; the message has 'time",
        ),
        (json.dumps({"tst": 1} | POSITION).encode(), "_type is missing"),
    ],
    ids=range(8),
)
def test_owntracks_problems_are_named(payload: bytes, problem: str) -> None:
    """A rejected message has the exact reason beside the label of its metric."""
    outcome = only(owntracks_outcomes("owntracks/a/b", payload))
    assert isinstance(outcome, DecodeError)
    assert problem in outcome.problem


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (gzip.compress(b"{}"), "it is compressed (gzip)"),
        (base64.b64encode(gzip.compress(b"{}")), "it is compressed (gzip)"),
        (base64.b64encode(b'{"id":"a","lat":1'), "it is JSON that is cut off"),
        (b'{"id":"a","payload":"!!"}', "it is neither JSON nor Base64 of JSON"),
        (b'{"id":"a","lat":true,"lon":2}', "lat is true, not a number"),
        (b'{"id":"a","x":1,"y":2}', "lat is missing; the message has 'y'"),
        (b'{"id":"a","lat":1,"lon":2,"ts":"soon"}', "ts is the text 'soon', not a number, nor ISO 8601"),
        (b'{"lat":1,"lon":2}', "id is missing"),
    ],
    ids=range(8),
)
def test_iotp_problems_are_named(payload: bytes, problem: str) -> None:
    """A rejected message has the exact reason beside the label of its metric."""
    outcome = only(iotp_outcomes("car-iotp", payload, 0.0))
    assert isinstance(outcome, DecodeError)
    assert problem in outcome.problem


@pytest.mark.parametrize("wrap", [b"%b", b"\xef\xbb\xbf%b", b"%b\0", b"\xef\xbb\xbf%b\r\n\0\0"])
def test_bytes_around_a_message_do_not_matter(wrap: bytes) -> None:
    """A byte order mark and NULs at the end are ignored in every format, within Base64 too."""
    unused = {"batt": "full", "vel": [], "acc": {}, "alt": math.nan, "cog": True}
    ours = json.dumps({"_type": "location", "tst": 5} | POSITION | unused).encode()
    theirs = json.dumps({"id": "a", "t": 5} | POSITION | unused).encode()
    found = [
        only(owntracks_outcomes("owntracks/a/b", wrap.replace(b"%b", ours))),
        only(iotp_outcomes("car-iotp", wrap.replace(b"%b", theirs), 0.0)),
        only(iotp_outcomes("car-iotp", wrap.replace(b"%b", base64.b64encode(theirs)), 0.0)),
        only(iotp_outcomes("car-iotp", base64.b64encode(wrap.replace(b"%b", theirs)), 0.0)),
    ]
    for outcome in found:
        assert (fix_of(outcome).tst, fix_of(outcome).lat, fix_of(outcome).acc) == (5, 47.5, None)


@pytest.mark.parametrize("factor", [1, 1e3, 1e6, 1e9])
def test_units_of_iotp_times(factor: float) -> None:
    """Seconds, milli-, micro- and nanoseconds are the same time."""
    payload = json.dumps({"id": "a", "t": int(1_795_800_000 * factor)} | POSITION).encode()
    fix = fix_of(only(iotp_outcomes("car-iotp", payload, 0.0)))
    assert (fix.t or fix.tst) == pytest.approx(1_795_800_000)


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
    """Any payload under any name is translated, ignored or rejected, and translations are valid fixes."""
    outcomes = [
        *owntracks_outcomes(f"owntracks/{user}/{device}", payload),
        *iotp_outcomes("car-iotp", payload, 1.0),
        *iotp_outcomes("mobile-iotp", payload, 1.0),
    ]
    for outcome in outcomes:
        if isinstance(outcome, CanonicalMessage) and outcome.what == "fix":
            assert HANDLE.fullmatch(outcome.sender.device)
            fix = fix_of(outcome)
            assert all(math.isfinite(value) for value in (fix.tst or 0, fix.lat, fix.lon, fix.acc or 0))
            assert len(outcome.payload) < MAX_BYTES


@given(
    st.floats(-1e6, 4e9),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.none() | st.floats(0, 1000),
)
def test_a_fix_survives_encoding(t_s: float, lat: float, lon: float, acc: float | None) -> None:
    """`encode_fix` loses no digit: `t` if present, else `tst`, is the given time."""
    fix = FIX.decode(encode_fix(t_s, lat, lon, acc=acc))
    assert (fix.tst if fix.t is None else fix.t, fix.lat, fix.lon, fix.acc) == (t_s, lat, lon, acc)
    assert math.floor(t_s) == fix.tst
