"""The package @headcount/device from Node.js, against a real headcount and a real Mosquitto."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
import shapely
from paho.mqtt.enums import CallbackAPIVersion

from device.relay import Relay
from headcount.runtime.ports import free_ports
from packages.node_device import EACH_SECOND, NodeDevice, built_package
from system.running import ROOT, UL, Up, headcount
from system.senders import SITE, program, spot
from waiting import BUSY_S, wait_until

pytestmark = pytest.mark.doors
LIBRARY, SCHUMAN, CAR_PARK = "glucksman-library", "schuman-building", "car-park-opposite-bus-stop"
OUTAGE_S = 600


class Account:
    """A registered device."""

    def __init__(self, up: Up, kind: str = "person") -> None:
        self._up = up
        self.where = ["--data", str(up.data), "--nats-port", str(up.ports["nats"])]
        added = json.loads(self.command("add", "--kind", kind, "--json"))
        self.id, self.secret = str(added["id"]), str(added["secret"])
        self.identity = {"site": "ul", "kind": kind, "id": self.id, "secret": self.secret}

    def command(self, *arguments: str, code: int = 0) -> str:
        """The output of a command of `headcount device`."""
        done = headcount("device", *arguments, *self.where, cwd=self._up.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        """The JSON that the device itself gets."""
        url = f"http://127.0.0.1:{self._up.ports['http']}{path}"
        return (
            httpx.get(url, auth=(self.id, self.secret), timeout=60, trust_env=False).raise_for_status().json()
        )

    def zones(self) -> list[str]:
        """The zones in which the device is counted."""
        return sorted(self.get("/v1/me")["zones"])

    def accepted(self) -> list[float]:
        """The times of the counted fixes, oldest first."""
        lines = self.get("/v1/me/trace?limit=500")["lines"]
        return [_seconds(line["t"]) for line in lines if line.get("verdict") == "accepted"]


def _seconds(text: str) -> float:
    return round(dt.datetime.fromisoformat(text).timestamp(), 3)


def position(t: float, zone: str, **more: float) -> dict[str, float]:
    """A position well inside a zone."""
    lat, lon = spot(zone)
    return {"t": round(t, 3), "lat": lat, "lon": lon, "acc": 4, **more}


def walk(end_s: float) -> list[dict[str, float]]:
    """A walk to and fro between two buildings, a position every 2 s for ten minutes, the last one in the library."""
    (lat1, lon1), (lat2, lon2) = spot(LIBRARY), spot(SCHUMAN)
    track = []
    for before_s in range(OUTAGE_S, -1, -2):
        share = abs(before_s % 240 - 120) / 120  # 1 = in the library
        lat, lon = lat2 + share * (lat1 - lat2), lon2 + share * (lon1 - lon2)
        track.append({"t": round(end_s - before_s, 3), "lat": lat, "lon": lon, "acc": 4})
    return track


def beside_the_site(zone: str) -> tuple[float, float]:
    """A position outside of the site, on the line from a zone to the nearest point of the boundary."""
    feature = next(each for each in SITE["features"] if each["properties"]["role"] == "site")
    boundary = shapely.boundary(shapely.from_geojson(json.dumps(feature["geometry"])))
    lat, lon = spot(zone)
    (lon1, lat1), (lon2, lat2) = shapely.shortest_line(shapely.Point(lon, lat), boundary).coords
    return lat1 + 2 * (lat2 - lat1), lon1 + 2 * (lon2 - lon1)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package, with the program and the page of the guide."""
    package = built_package(tmp_path_factory.mktemp("package"))
    text = (ROOT / "docs" / "guides" / "device-library-js.md").read_text()
    program, page, *_ = re.findall(r"^```js\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (package / "device.mjs").write_text(program)
    (package / "test" / "guide.js").write_text(page)
    (package / "test" / "guide.html").write_text('<script type="module" src="./guide.js"></script>')
    return package


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running headcount."""
    with Up(tmp_path_factory.mktemp("up"), open=False) as up:
        wait_until(up.is_ready, "the counts are live")
        yield up


def addresses(up: Up, way: str) -> dict[str, str]:
    """Options of a device that connects this way."""
    http = f"http://127.0.0.1:{up.ports['http']}"
    return {
        "HTTP": {"http": http},
        # the API has no MQTT, as behind a proxy that blocks it
        "HTTP, as WebSocket is blocked": {"url": f"ws://127.0.0.1:{up.ports['http']}/mqtt", "http": http},
        "tcp": {"url": f"mqtt://127.0.0.1:{up.ports['mqtt']}"},
        "websocket": {"url": f"ws://127.0.0.1:{up.ports['ws']}/mqtt"},
    }[way]


@pytest.mark.parametrize("way", ["tcp", "websocket"])
def test_a_program_is_counted_and_obeys(up: Up, package: Path, way: str) -> None:
    """It is counted in its zone, answers commands, and after one last fix from off site it is silent."""
    account, now = Account(up), time.time()
    with NodeDevice(package, **addresses(up, way), **account.identity) as device:
        print("Node.js", device.node)
        device.becomes(connection="connected", hasSite=True)
        assert device.report([position(now - 100, LIBRARY), position(now - 99, LIBRARY)]) == ["zones", None]
        wait_until(lambda: LIBRARY in account.zones(), "the device is counted")
        answer = account.command("command", account.id, "interval", "--seconds", "30", "--wait")
        assert "acknowledged" in answer
        later = [position(now - seconds, LIBRARY) for seconds in (90, 71, 69)]
        assert device.report(later) == [None, None, "time"]
        answer = account.command("command", account.id, "report", "--wait")
        assert "acknowledged" in answer
        assert device.report([position(now - 60, LIBRARY)]) == ["requested"]
        refused = account.command("command", account.id, "message", "hello", "--wait", code=1)
        assert "no screen" in refused
        away = [position(now - seconds, LIBRARY) | {"lat": 52.7} for seconds in (9, 5)]
        assert device.report(away) == ["left", None]
        wait_until(lambda: account.zones() == [], "the device has left")
        refused = account.command("command", account.id, "report", "--wait", code=1)
        assert "off site" in refused
        device.end()


def test_no_fix_is_lost_and_none_is_counted_twice(up: Up, package: Path, tmp_path: Path) -> None:
    """Through ten minutes without headcount, a kill of the device and one of the broker, each report counts once."""
    account, track = Account(up), walk(time.time())
    options = {
        **addresses(up, "websocket"),
        **account.identity,
        "rules": EACH_SECOND,
        "file": str(tmp_path / "fixes"),
    }
    with NodeDevice(package, **options) as device:
        device.becomes(connection="connected", hasSite=True)
        device.report(track[:10])
        wait_until(account.accepted, "the first fixes are counted")
        up.stop()
        reasons = device.report(track[10:150])
        device.kill9()
    assert all(reasons)
    with NodeDevice(package, **options) as device:
        reasons = device.report(track[150:])
        assert all(reasons)
        device.becomes(waiting=len(track) - 10)
        up.start()
        wait_until(lambda: device.status["acknowledged"], "fixes arrive again")
        up.kill9("broker")
        device.becomes(waiting=0)
        wait_until(lambda: account.accepted() == [each["t"] for each in track], "each report is counted once")
        device.end()
    wait_until(lambda: LIBRARY in account.zones(), "the device is in the library")
    with NodeDevice(package, **options) as device:
        assert device.status.get("waiting", 0) == 0


@pytest.mark.parametrize("way", ["HTTP", "HTTP, as WebSocket is blocked"])
def test_a_program_is_counted_over_http(up: Up, package: Path, way: str) -> None:
    """It is counted in its zone, and after one last fix from off site it is silent."""
    account, now = Account(up), time.time()
    with NodeDevice(package, **addresses(up, way), **account.identity) as device:
        device.becomes(connection="connected", hasSite=True)
        assert device.report([position(now - 100, LIBRARY)]) == ["zones"]
        wait_until(lambda: LIBRARY in account.zones(), "the device is counted")
        away = [position(now - seconds, LIBRARY) | {"lat": 52.7} for seconds in (9, 5)]
        assert device.report(away) == ["left", None]
        device.becomes(waiting=0, acknowledged=2, refused=0)
        wait_until(lambda: account.zones() == [], "the device has left")
        device.end()


def test_no_fix_is_lost_over_http(up: Up, package: Path, tmp_path: Path) -> None:
    """Through ten minutes without a network, a kill of the device and one of the API, each report counts once."""
    account, track = Account(up), walk(time.time())
    with Relay(up.ports["http"]) as relay:
        options = {**account.identity, "rules": EACH_SECOND, "file": str(tmp_path / "fixes")}
        options["http"] = f"http://127.0.0.1:{relay.port}"
        with NodeDevice(package, **options) as device:
            device.becomes(connection="connected", hasSite=True)
            device.report(track[:10])
            wait_until(account.accepted, "the first fixes are counted")
            device.becomes(waiting=0)
            relay.cut()
            device.report(track[10:150])
            device.kill9()
        with NodeDevice(package, **options) as device:
            device.report(track[150:])
            device.becomes(waiting=len(track) - 10)
            relay.restore()
            wait_until(lambda: device.status["acknowledged"], "fixes arrive again")
            up.kill9("api")
            device.becomes(waiting=0, refused=0)
            device.end()
    wait_until(up.is_ready, "the API is back")
    wait_until(lambda: account.accepted() == [each["t"] for each in track], "each report is counted once")


def test_the_program_of_the_guide(up: Up, package: Path) -> None:
    """It is counted, and ends on Ctrl-C."""
    account = Account(up, kind="vehicle")
    url = f"mqtt://127.0.0.1:{up.ports['mqtt']}"
    with subprocess.Popen(["node", "device.mjs", url, account.id, account.secret], cwd=package) as process:
        try:
            wait_until(lambda: LIBRARY in account.zones(), "the device is counted")
            process.send_signal(signal.SIGINT)
            assert process.wait(BUSY_S) == 0
        finally:
            process.kill()


@contextmanager
def mosquitto(folder: Path, mqtt: int, websocket: int) -> Iterator[None]:
    """A Mosquitto with a listener for WebSocket, which is killed in the end."""
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {mqtt} 127.0.0.1\nlistener {websocket} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n"
    )
    process = subprocess.Popen([program("mosquitto"), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Subscriber:
    """Receives all messages of devices from a broker, and connects again when it restarts."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, str]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "subscriber", protocol=paho.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe("headcount/ul/person/#", 1)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self.subscriptions = 0
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_subscribe(self, client: paho.Client, *_: Any) -> None:
        self.subscriptions += 1
        client.publish("headcount/ul/site", UL.read_bytes(), 1, retain=True)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self.received.append((message.topic.rpartition("/")[2], message.payload.decode()))

    def of(self, what: str) -> list[str]:
        """The payloads of a kind of message."""
        return [payload for topic, payload in self.received if topic == what]

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def test_another_broker(package: Path, tmp_path: Path) -> None:
    """With Mosquitto over WebSocket: status, last will, and a backlog of ten minutes over a kill of the broker."""
    version = subprocess.run([program("mosquitto"), "-h"], capture_output=True, text=True, check=False).stdout
    print(version.partition("\n")[0])
    mqtt, websocket = free_ports(2)
    track = walk(time.time())
    options = {
        "site": "ul",
        "kind": "person",
        "id": "walker",
        "rules": EACH_SECOND,
        "file": str(tmp_path / "fixes"),
    }
    with (
        Relay(websocket) as relay,
        NodeDevice(package, **options, url=f"ws://127.0.0.1:{relay.port}/mqtt") as device,
    ):
        device.report(track[:150])  # before a broker and a site are there
        with mosquitto(tmp_path, mqtt, websocket):
            wait_until(lambda: _accepts(mqtt), "Mosquitto starts")
            subscriber = Subscriber(mqtt)
            device.becomes(waiting=0, acknowledged=150)
            wait_until(lambda: len(subscriber.of("fix")) == 150, "they are delivered, before a kill")
        relay.cut()
        device.becomes(connection="waiting")
        device.report(track[150:])
        with mosquitto(tmp_path, mqtt, websocket):
            wait_until(lambda: subscriber.subscriptions == 2, "the subscriber is back")
            relay.restore()
            device.becomes(waiting=0, acknowledged=len(track))
            wait_until(lambda: len(subscriber.of("fix")) >= len(track), "all fixes arrive")
            device.kill9()
            wait_until(lambda: subscriber.of("status")[-1:] == ["offline"], "the last will")
            times = [json.loads(payload)["tst"] for payload in subscriber.of("fix")]
            assert times == [each["t"] for each in track]
            subscriber.close()
    assert "online" in subscriber.of("status")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_page_is_counted(up: Up, package: Path) -> None:
    """A page in Chromium reports the browser's positions, shows messages, and keeps fixes over a reload."""
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).exists():
        pytest.skip(f"no browser at {chromium}")
    account = Account(up)
    token = headcount(
        "token", "add", "page", "--role", "operator", *account.where, cwd=up.folder
    ).stdout.split()[-1]
    device = {"mqtt": addresses(up, "websocket")["url"], **account.identity}
    places = {LIBRARY: spot(LIBRARY), CAR_PARK: spot(CAR_PARK), "outside": beside_the_site(CAR_PARK)}
    ran = subprocess.run(
        ["node", "test/browser.mjs"],
        cwd=package,
        env=os.environ
        | {
            "HEADCOUNT_URL": f"http://127.0.0.1:{up.ports['http']}",
            "HEADCOUNT_TOKEN": token,
            "DEVICE": json.dumps(device),
            "PLACES": json.dumps(places),
            "CHROMIUM": chromium,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
