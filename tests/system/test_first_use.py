"""A new user's first steps: send fixes with common tools, and see them counted everywhere."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from system.running import Up
from system.senders import SITE, fix, mosquitto_pub, program, publish, spot
from waiting import BUSY_S, LIMIT_S, wait_until

PERSON, VEHICLE = 0, 1
ZONES = {"site", *(f["properties"]["id"] for f in SITE["features"] if f["properties"]["role"] == "zone")}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The University of Limerick, running."""
    with Up(tmp_path_factory.mktemp("first-use")) as up:
        yield up


class Subscriber:
    """The messages on some MQTT topics, by paho, as a context manager."""

    def __init__(self, up: Up, topic: str) -> None:
        """Subscribe to a topic."""
        self.heard: list[tuple[str, dict[str, Any], bool]] = []
        self._ready = threading.Event()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        client.on_connect = lambda c, *_: c.subscribe(topic)
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = lambda _, __, m: self.heard.append((m.topic, json.loads(m.payload), m.retain))
        client.connect("127.0.0.1", up.mqtt_port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def iotp(zone: str, device: str) -> bytes:
    """A message of the older flows."""
    lat, lon = spot(zone)
    return json.dumps({"id": device, "lat": lat, "lon": lon, "t": time.time()}).encode()


def owntracks(zone: str, type_: str = "location") -> bytes:
    """A payload of OwnTracks."""
    return fix(zone, _type=type_, t="u", batt=80, tid="ab", event="enter")


def topic(kind: str, device: str) -> str:
    """The canonical topic of fixes."""
    return f"headcount/ul/{kind}/{device}/fix"


Send = Callable[[Up, str], None]
WAYS: dict[str, tuple[int, str, Send]] = {
    "mosquitto_pub": (
        PERSON,
        "glucksman-library",
        lambda up, z: mosquitto_pub(up.mqtt_port, topic("person", "mosquitto"), fix(z)),
    ),
    "paho": (
        VEHICLE,
        "car-park-east-gates",
        lambda up, z: publish(up.mqtt_port, topic("vehicle", "paho"), fix(z)),
    ),
    "WebSocket": (
        PERSON,
        "schuman-building",
        lambda up, z: publish(up.ports["ws"], topic("person", "browser"), fix(z), websocket=True),
    ),
    "OwnTracks location": (
        PERSON,
        "lonsdale-building",
        lambda up, z: publish(up.mqtt_port, "owntracks/bob/phone", owntracks(z)),
    ),
    "OwnTracks transition": (
        VEHICLE,
        "car-park-milford",
        lambda up, z: publish(up.mqtt_port, "owntracks/eve/car/event", owntracks(z, "transition")),
    ),
    "car-iotp": (
        VEHICLE,
        "car-park-lonsdale",
        lambda up, z: publish(up.mqtt_port, "car-iotp", iotp(z, "car-1")),
    ),
    "car-iotp in base64": (
        VEHICLE,
        "car-park-pavilion",
        lambda up, z: publish(up.mqtt_port, "car-iotp", base64.b64encode(iotp(z, "car-2"))),
    ),
    "mobile-iotp": (
        PERSON,
        "pess-building",
        lambda up, z: publish(up.mqtt_port, "mobile-iotp", iotp(z, "phone-1"), qos=0),
    ),
    "mobile-iotp in base64": (
        PERSON,
        "schrodinger-building",
        lambda up, z: publish(up.mqtt_port, "mobile-iotp", base64.b64encode(iotp(z, "phone-2")), qos=0),
    ),
}


def test_every_format_is_counted_and_published(up: Up) -> None:
    """Each way in raises its zone's count over HTTP by one, and its event comes over MQTT exactly once."""
    with Subscriber(up, "headcount/ul/events/#") as subscriber:
        for way, (kind, zone, send) in WAYS.items():
            before = up.counts()
            send(up, zone)
            wait_until(lambda: up.counts()[zone][kind] == before[zone][kind] + 1, way)  # noqa: B023
            assert up.counts()["site"][kind] == before["site"][kind] + 1, way
        wait_until(lambda: len(subscriber.heard) >= 2 * len(WAYS), "events")
        time.sleep(1.5)  # time in which repeated events would arrive
    kinds = ("person", "vehicle")
    want = Counter((zone, kinds[kind]) for kind, zone, _ in WAYS.values())
    want += Counter(("site", kinds[kind]) for kind, _, _ in WAYS.values())
    got = Counter((event["zone"], event["kind"]) for _, event, _ in subscriber.heard)
    assert want <= got, "a place may lie in a larger zone as well"
    assert {zone: n for zone, n in got.items() if zone in want} == want
    ids = Counter(event["id"] for _, event, _ in subscriber.heard)
    assert max(ids.values()) == 1
    for name, event, _ in subscriber.heard:
        assert name == f"headcount/ul/events/{event['zone']}"
        assert (event["type"], event["reason"]) == ("enter", "moved")


def test_retained_counts_are_there_at_once(up: Up) -> None:
    """A new `mosquitto_sub` gets the retained counts of all zones immediately, and they are those of HTTP."""
    publish(up.mqtt_port, topic("person", "retained"), fix("kemmy-business-school"))
    wait_until(lambda: up.counts()["kemmy-business-school"][PERSON], "the count")
    command = [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(up.mqtt_port), "-v"]
    command += ["-t", "headcount/+/counts/#", "-F", "%r %t %p", "-C", str(len(ZONES)), "-W", "60"]

    def retained_counts() -> dict[str, tuple[int, int]]:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert run.returncode == 0, f"not all zones: {run.stdout}{run.stderr}"
        found = {}
        for line in run.stdout.splitlines():
            retained, name, payload = line.split(" ", 2)
            count = json.loads(payload)
            assert (retained, name) == ("1", f"headcount/ul/counts/{count['zone']}")
            found[count["zone"]] = (count["person"]["count"], count["vehicle"]["count"])
        return found

    wait_until(lambda: retained_counts() == up.counts(), "they are published once a second")


def test_the_stream_publishes_a_change(up: Up) -> None:
    """Over SSE come all zones first, and then the changed one with its new number."""
    url = f"http://127.0.0.1:{up.ports['http']}/v1/sites/ul/stream"
    zone = "languages-building"
    with httpx.Client(trust_env=False, timeout=60) as client, client.stream("GET", url) as answer:
        lines = answer.iter_lines()
        first = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        assert first["full"]
        assert {z["zone"] for z in first["zones"]} == ZONES
        publish(up.mqtt_port, topic("person", "streamed"), fix(zone))
        for line in lines:
            body = json.loads(line[6:]) if line.startswith("data: ") else {}
            numbers = {z["zone"]: z["person"]["count"] for z in body.get("zones", ())}
            if numbers.get(zone) == 1:
                assert not body["full"]
                break


def test_a_last_will_is_remembered_and_ends_nothing(up: Up) -> None:
    """A device whose client dies is shown as `offline` by its last will, and is still counted."""
    zone = "computer-science-building"
    publish(up.mqtt_port, topic("person", "willy"), fix(zone))
    wait_until(lambda: up.counts()[zone][PERSON] == 1, "the count")
    command = [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(up.mqtt_port), "-V", "mqttv311"]
    command += ["-t", "headcount/ul/counts/site", "--will-topic", "headcount/ul/person/willy/status"]
    with subprocess.Popen([*command, "--will-payload", "offline"], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()  # a retained count: it is connected
        client.send_signal(signal.SIGKILL)
    path = "/v1/sites/ul/devices/person/willy"
    wait_until(lambda: up.http(path, reason="a test")["offline"], "the last will")
    device = up.http(path, reason="a test")
    assert device["present"]
    assert set(device["zones"]) == {"site", zone}
    assert up.counts()[zone][PERSON] == 1
    publish(up.mqtt_port, "owntracks/will/phone", owntracks("main-building"))
    publish(up.mqtt_port, "owntracks/will/phone", b'{"_type": "lwt", "tst": 1}')
    handle = up.handle("owntracks/will/phone")
    wait_until(lambda: _state(up, f"person/{handle}").get("offline"), "OwnTracks' last will")
    assert _state(up, f"person/{handle}")["present"]


def _state(up: Up, device: str) -> dict[str, Any]:
    answer = up.get(f"/v1/sites/ul/devices/{device}", reason="a test")
    state: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return state


def test_ctrl_c_ends_it_and_a_start_goes_on(tmp_path: Path) -> None:
    """Ctrl-C leaves no process; a restart has the counts immediately, repeats no event, and goes on."""
    zone = "engineering-research-building"
    with Up(tmp_path) as up:
        print(f"started in {up.ready_s:.1f} s")
        for name in ("a", "b", "c"):
            publish(up.mqtt_port, topic("person", name), fix(zone))
        wait_until(lambda: up.counts()[zone][PERSON] == 3, "the counts")
        before = up.counts()
        took_s = up.stop()
        print(f"Ctrl-C took {took_s:.2f} s")
        assert took_s < BUSY_S
        assert not up.left()
        for port in up.ports.values():
            with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                pass
        up.start()
        assert up.counts() == before
        with Subscriber(up, "headcount/ul/events/#") as subscriber:
            publish(up.mqtt_port, topic("person", "d"), fix(zone))
            wait_until(lambda: up.counts()[zone][PERSON] == 4, "it goes on")
            wait_until(lambda: len(subscriber.heard) >= 2, "the events")
            time.sleep(1.5)  # time in which repeated events would arrive
        assert {event["zone"] for _, event, _ in subscriber.heard} >= {"site", zone}
        assert len({event["device"] for _, event, _ in subscriber.heard}) == 1, "no event of a, b or c again"
        with suppress(httpx.TransportError):
            assert up.is_ready()
