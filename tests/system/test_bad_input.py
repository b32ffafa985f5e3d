"""Whatever is sent: honest devices' counts stay right, and everything goes on."""

from __future__ import annotations

import gzip
import json
import math
import time
from collections.abc import Iterator

import pytest

from case_files import case
from system.running import ROLES, Up
from system.senders import fix, publish, send_bytes, send_raw, spot
from waiting import wait_until

HONEST = {"person": ("glucksman-library", 4), "vehicle": ("car-park-east-gates", 3)}
LAT, LON = spot("main-building")
NOW = time.time()


def body(**changes: object) -> bytes:
    """A fix in the main building, with something wrong."""
    return json.dumps({"tst": NOW, "lat": LAT, "lon": LON, **changes}).encode()


#: Payloads that are no fixes.
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"hello",
    "half": body()[:-5],
    "binary": bytes(range(256)),
    "bad UTF-8": b'{"tst": 1, "lat": 2, "lon": 3, "t": "\xff"}',
    "null": b"null",
    "a list": b"[" + body() + b"]",
    "an empty object": b"{}",
    "a text as number": body(lat=str(LAT)),
    "true as number": body(lon=True),
    "an object as number": body(tst={}),
    "a gzip file": gzip.compress(body()),
    "UTF-16": body().decode().encode("utf-16"),
    "other names": json.dumps({"timestamp": NOW, "latitude": LAT, "lng": LON}).encode(),
    "NaN": body(lat=math.nan),
    "infinity": body(tst=math.inf),
    "infinity as text": body(lon="Infinity"),
    "1e999": b'{"tst": 1e999, "lat": 52, "lon": -8}',
    "a huge integer": b'{"tst": 1' + b"0" * 5000 + b', "lat": 52, "lon": -8}',
    "deep nesting": b"[" * 15_000,
    "deep nesting in a fix": body()[:-1] + b', "x": ' + b'{"y":' * 2_000 + b"1" + b"}" * 2_001,
    "a header like NATS": b"HMSG a 1 9 2\r\nab\r\n",
    "line ends": b"\r\n\r\n+OK\r\nPING\r\n",
    "17 KB": body(pad="x" * 17_000),
    "60 KB": body(pad="x" * 60_000),
}
#: Ids and levels that must not count anywhere.
HOSTILE = (
    b"headcount/ul/person/a.b/fix",
    b"headcount/ul/person/a..b/fix",
    b"headcount/ul/person/../fix",
    b"headcount/ul/person/+/fix",
    b"headcount/ul/person/#/fix",
    b"headcount/ul/person/*/fix",
    b"headcount/ul/person/>/fix",
    b"headcount/ul/person/a b/fix",
    b"headcount/ul/person//fix",
    b"headcount/ul/person/bj\xc3\xb8rn/fix",
    b"headcount/ul/person/\xff\xfe/fix",
    b"headcount/ul/person/a\x00b/fix",
    b"headcount/ul/person/" + b"x" * 65 + b"/fix",
    b"headcount/ul/person/" + b"x" * 5000 + b"/fix",
    b"headcount/ul/ghost/a/fix",
    b"headcount/ul/Person/a/fix",
    b"headcount/ul//a/fix",
    b"headcount//person/a/fix",
    b"headcount/nowhere/person/a/fix",
    b"headcount/u.l/person/a/fix",
    b"headcount/ul/person/a/fix/more",
    b"headcount/ul/person/a",
    b"/headcount/ul/person/a/fix",
    b"fix/0/nowhere/person/a",
    b"fix/0/tick",
    b"count/0",
    b"event/ul/main-building",
    b"history/0",
    b"metrics/count/w1",
    b"$SYS/broker/uptime",
    b"$JS/API/STREAM/DELETE/FIX_0",
    b"$MQTT/msgs/x",
    b"$MQTT/msgs/fix/0/ul/person/a",
    b"$KV/LEASE/p/0",
    b"headcount/ul/counts/site",
    b"headcount/ul/site",
    b"",
    b"/",
    b"//",
)
FOREIGN = (
    "owntracks/a/b",
    "owntracks/a/b/event",
    "car-iotp",
    "mobile-iotp",
)
GARBAGE = (
    b"",
    b"\x00\xff",
    b"hello",
    b"[" * 10_000,
    b'{"_type": "location"}',
    b'{"_type": "location", "tst": "now", "lat": [], "lon": {}}',
    b'{"_type": 7, "id": {}}',
    b'{"id": "x", "payload": "!!!!"}',
    b'{"d": {"d": {"d": {"d": {"d": {"id": "x"}}}}}}',
    b"aGVsbG8=",
    b'{"id": "\\ud800", "lat": 52, "lon": -8, "t": "yesterday"}',
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running campus with four honest people and three honest cars."""
    with Up(tmp_path_factory.mktemp("bad-input")) as up:
        for kind, (zone, many) in HONEST.items():
            for number in range(many):
                publish(up.mqtt_port, f"headcount/ul/{kind}/honest{number}/fix", fix(zone))
        wait_until(lambda: honest(up), "the honest are counted")
        yield up


def honest(up: Up) -> bool:
    """Whether the honest are counted, each once, and no other device."""
    counts = up.counts()
    people, cars = HONEST["person"], HONEST["vehicle"]
    right = counts[people[0]][0] == people[1] and counts[cars[0]][1] == cars[1]
    return right and counts["site"] == (people[1], cars[1])


def unharmed(up: Up, pids: dict[str, int]) -> None:
    """Fail unless everything runs as before, and an honest device's next move still counts."""
    wait_until(up.is_ready, "ready")
    assert up.pids() == pids
    assert set(pids) == set(ROLES)
    assert honest(up), up.counts()
    topic = f"headcount/ul/person/late-{time.monotonic_ns()}/fix"
    publish(up.mqtt_port, topic, fix("schuman-building"))
    wait_until(lambda: up.counts()["schuman-building"][0] == 1, "a new fix is counted")
    for _ in range(3):  # the third from far away is believed: it is outside
        publish(up.mqtt_port, topic, fix("schuman-building", lat=0.5, t=time.time()))
    wait_until(lambda: honest(up), "the late-comer has left")


def malformed(up: Up) -> float:
    """The metric of fixes that are none."""
    return up.metric("headcount_fixes_total", verdict="malformed")


def test_broken_payloads(up: Up) -> None:
    """Each broken payload is one `malformed`, with both qualities of service, and nothing else happens."""
    pids, before = up.pids(), malformed(up)
    for name, payload in MALFORMED.items():
        for qos in (0, 1):
            publish(up.mqtt_port, "headcount/ul/person/broken/fix", payload, qos=qos)
            print(name, qos)
    want = before + 2 * len(MALFORMED)
    wait_until(lambda: malformed(up) >= want, "verdicts", every_s=0.3)
    assert malformed(up) == want
    unharmed(up, pids)


def test_fields_that_are_not_used_decide_nothing(up: Up) -> None:
    """Texts, arrays and NaN in other fields, a byte order mark and NULs at the end leave a fix a fix."""
    pids, before = up.pids(), malformed(up)
    zone = "schuman-building"
    lat, lon = spot(zone)
    odd = [
        case(f"native_{name}.json")
        .read_bytes()
        .replace(b"47.004", str(lat).encode())
        .replace(b"14.006", str(lon).encode())
        for name in ("optional_strings", "bom", "trailing_nul")
    ]
    odd += [
        fix(zone, acc="8", vel=[], cog={}, alt=math.nan, batt=None, t="u"),
        fix(zone, acc=True, tid=[1], t={}) + b"\0\0\n",
    ]
    for number, payload in enumerate(odd):
        now = b"%.3f" % time.time()
        publish(up.mqtt_port, f"headcount/ul/person/odd{number}/fix", payload.replace(b"NOW", now))
    wait_until(lambda: up.counts()[zone][0] == len(odd), "all of them are counted")
    assert malformed(up) == before
    for number in range(len(odd)):
        for _ in range(3):
            publish(up.mqtt_port, f"headcount/ul/person/odd{number}/fix", fix(zone, lat=0.5, t=time.time()))
    wait_until(lambda: up.counts()[zone][0] == 0, "they have left")
    unharmed(up, pids)


def test_the_trace_names_the_fault(up: Up) -> None:
    """`device trace` names exactly what is wrong with each message."""
    before = malformed(up)
    for payload in (
        body(tst=int(time.time() * 1000)),
        json.dumps({"tst": NOW, "latitude": LAT, "lng": LON}).encode(),
        body(lat=str(LAT)),
        b"[" + body() + b"]",
        gzip.compress(body()),
        body(lat=LON, lon=LAT, tst=time.time()),
    ):
        publish(up.mqtt_port, "headcount/ul/person/odd-one/fix", payload, qos=1)
    shown = up.http("/v1/sites/ul/devices/odd-one/trace", reason="a test")["lines"]
    assert [line["verdict"] for line in shown] == ["future", *["malformed"] * 4, "outside"]
    for line, text in zip(
        shown,
        (
            "It is in milliseconds: send seconds since 1970.",
            "lat is missing; the message has 'latitude': rename it to lat; lon is missing; the message has 'lng'",
            f"lat is the text '{LAT}', not a number: send a number without quotes.",
            "it is an array of 1, not an object: publish each fix as a message of its own.",
            "it is compressed (gzip): send plain JSON.",
            "With lat and lon swapped, it would be inside the site.",
        ),
        strict=True,
    ):
        assert text in line["why"]
    wait_until(lambda: malformed(up) == before + 4, "verdicts", every_s=0.3)


def test_large_messages(up: Up) -> None:
    """Messages of 100 KB, 7 MB and 10 MB are not stored, and the sender may come back."""
    pids, before = up.pids(), malformed(up)
    for size in (100_000, 7_000_000, 10_000_000):
        send_raw(up.mqtt_port, b"headcount/ul/person/large/fix", body(pad="x" * size))
    publish(up.mqtt_port, "headcount/ul/person/large/fix", b"small", qos=1)
    wait_until(lambda: malformed(up) == before + 1, "the small one", every_s=0.3)
    unharmed(up, pids)


def test_hostile_topics(up: Up) -> None:
    """No id, site or level that isn't allowed counts anywhere, and none hurts."""
    pids = up.pids()
    for name in HOSTILE:
        send_raw(up.mqtt_port, name, body(tst=time.time()))
    for client_id in (b"", b"a b", b"x" * 3000, b"\xff"):
        send_raw(up.mqtt_port, b"headcount/ul/ghost/b/fix", body(), client_id)
    time.sleep(1)  # time in which a role could end
    unharmed(up, pids)
    wait_until(
        lambda: up.http("/v1/sites/ul/counts")["partitions_fresh"] == up.partitions,
        "all partitions are fresh",
    )


def test_a_named_partition_is_not_believed(up: Up) -> None:
    """A sender who names partitions itself is counted once, in the right one."""
    pids = up.pids()
    zone, _ = HONEST["person"]
    payload = fix(zone, t=time.time())
    for partition in range(up.partitions + 2):
        send_raw(up.mqtt_port, b"fix/%d/ul/person/honest0" % partition, payload)
    wait_until(
        lambda: (
            up.http("/v1/sites/ul/devices/person/honest0", reason="a test")["last_verdict"] == "duplicate"
        ),
        "it did arrive",
    )
    unharmed(up, pids)


def test_foreign_garbage(up: Up) -> None:
    """Garbage on the topics of other formats is refused and counted as refused; honest ones get through."""
    pids = up.pids()
    before = up.metric("headcount_adapter_rejected_messages_total")
    for name in FOREIGN:
        for payload in GARBAGE:
            publish(up.mqtt_port, name, payload, qos=0)
    wait_until(
        lambda: up.metric("headcount_adapter_rejected_messages_total") >= before + 30, "refusals", every_s=0.3
    )
    # far from the site: received, and not counted
    good = {"id": "honest1", "lat": 0.5, "lon": 0.5, "t": time.time()}
    publish(up.mqtt_port, "mobile-iotp", json.dumps(good).encode())
    path = f"/v1/sites/ul/devices/person/{up.handle('iotp/honest1')}"
    wait_until(lambda: up.get(path, reason="a test").status_code == 200, "the good one")
    unharmed(up, pids)


def test_bytes_that_are_no_protocol(up: Up) -> None:
    """Noise, HTTP and half packets on every port harm no other client."""
    pids = up.pids()
    noise = (
        b"",
        b"\x00" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x0c\x00\x04MQTT\x05\x02",
    )
    for port in up.ports.values():
        for data in noise:
            send_bytes(port, data)
    unharmed(up, pids)
