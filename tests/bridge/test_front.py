"""A bridge as a process beside a running system: faults, and MQTT 5 devices with a Mosquitto in front."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from headcount.runtime.ports import free_ports
from mosquitto_fixture import PROGRAM, Mosquitto, needs_mosquitto
from system.running import ROOT, Up, environment, headcount
from system.senders import spot
from waiting import wait_until

pytestmark = [needs_mosquitto, pytest.mark.slow, pytest.mark.doors]

LIBRARY, PESS = "glucksman-library", "pess-building"
BACKLOG_S = 600


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running system whose devices have accounts, and which shows all counts."""
    folder = tmp_path_factory.mktemp("up")
    with Up(folder, open=False, arguments=("--suppress-below", "1")) as running:
        token = headcount("token", "add", "test", "--role", "admin", "--data", running.data, cwd=folder)
        running._http.headers["Authorization"] = f"Bearer {token.stdout.strip()}"
        yield running


@contextmanager
def process(up: Up, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command of headcount during the block, at the core of the running system."""
    command = [sys.executable, "-m", "headcount", *map(str, arguments), "--data", str(up.data)]
    command += ["--nats-port", str(up.ports["nats"])]
    with (up.folder / "commands.log").open("ab") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=up.folder)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def metric(up: Up, name: str) -> float:
    """The sum of a metric's samples whose line begins with `name`."""
    lines = up.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def accepted(up: Up) -> float:
    """The number of fixes that counted."""
    return metric(up, 'headcount_fixes_total{kind="person",verdict="accepted"}')


def public_count(up: Up, zone: str) -> int:
    """People in a zone now."""
    return up.counts()[zone][0]


class Publisher:
    """Publishes fixes one after the other, each again until the broker has acknowledged it."""

    def __init__(self, port: int) -> None:
        """Publish to the broker at this port."""
        self.port, self.acknowledged = port, 0
        self._client: paho.Client | None = None

    def send(self, device: str, zone: str, t_s: float) -> None:
        """Publish a fix."""
        lat, lon = spot(zone)
        payload = json.dumps({"t": t_s, "lat": lat, "lon": lon, "acc": 5})
        while True:
            try:
                client = self._connected()
                done = client.publish(f"headcount/ul/person/{device}/fix", payload, 1)
                done.wait_for_publish(5)
                if done.is_published():
                    self.acknowledged += 1
                    return
            except (OSError, RuntimeError, ValueError):
                time.sleep(0.05)
            self.close()

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connected(self) -> paho.Client:
        if self._client is None:
            self._client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
            self._client.connect("127.0.0.1", self.port)
            self._client.loop_start()
        return self._client


@contextmanager
def steady_traffic(publisher: Publisher, devices: int) -> Iterator[None]:
    """Fixes of devices in the library, 50 per second, during the block."""
    over = threading.Event()

    def send() -> None:
        number = 0
        while not over.wait(0.02):
            publisher.send(f"walker{number % devices}", LIBRARY, time.time())
            number += 1

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        over.set()
        sending.join()


def test_each_fix_counts_once_whatever_is_killed(up: Up, tmp_path: Path) -> None:
    """Bridge and Mosquitto are killed in the middle of traffic, ten minutes wait: each fix counts exactly once."""
    base = accepted(up)
    with Mosquitto(tmp_path) as mosquitto:
        publisher = Publisher(mosquitto.port)
        bridge = ("run", "bridge", "--from", f"mqtt://127.0.0.1:{mosquitto.port}", "--bridge-name", "test")

        def all_counted() -> bool:
            return accepted(up) - base == publisher.acknowledged

        with process(up, *bridge) as first:
            wait_until(lambda: metric(up, "headcount_bridge_connected "), "the first bridge copies")
            with process(up, *bridge) as second:
                wait_until(lambda: metric(up, "headcount_bridges ") == 2, "the second one waits")
                assert metric(up, "headcount_bridge_active ") == 1
                with steady_traffic(publisher, 10):
                    wait_until(lambda: accepted(up) - base > 100, "traffic is counted")
                    first.kill()
                    killed_s = time.monotonic()
                    before = accepted(up)
                    wait_until(lambda: accepted(up) > before + 100, "the second one replaces it")
                    print(f"replaced after {time.monotonic() - killed_s:.1f} s")
                    mosquitto.kill(signal.SIGTERM)
                    mosquitto.start()
                    before = accepted(up)
                    wait_until(lambda: accepted(up) > before + 50, "it goes on after the restart")
                wait_until(all_counted, "all of the traffic")
                second.terminate()
                assert second.wait(30) == 0
        now_s = time.time()
        for second_ in range(0, BACKLOG_S, 10):
            for number in range(20):
                publisher.send(f"sitter{number}", PESS, now_s - BACKLOG_S + second_)
        publisher.close()
        # Mosquitto acknowledges before it stores: a kill within that second is its own loss
        stored = mosquitto.folder / "mosquitto.db"
        wait_until(lambda: time.time() - stored.stat().st_mtime > 1, "the backlog is stored")
        mosquitto.kill()
        mosquitto.start()
        with process(up, *bridge):
            wait_until(all_counted, "the backlog")
        assert accepted(up) - base == publisher.acknowledged
        wait_until(lambda: (public_count(up, LIBRARY), public_count(up, PESS)) == (10, 20), "the counts")


def test_up_runs_the_bridge_of_its_settings(tmp_path: Path) -> None:
    """`headcount up` with `bridge.from` copies, too."""
    with Mosquitto(tmp_path) as mosquitto:
        variables = {"HEADCOUNT_BRIDGE_FROM": f"mqtt://127.0.0.1:{mosquitto.port}"}
        with Up(tmp_path, variables=variables) as own:
            wait_until(lambda: metric(own, "headcount_bridge_connected "), "the bridge copies")
            publisher = Publisher(mosquitto.port)
            publisher.send("phone", LIBRARY, time.time())
            publisher.close()
            wait_until(lambda: public_count(own, LIBRARY) == 1, "the fix is counted")


class Front:
    """The Mosquitto of the profile mqtt5 of deploy/, with files in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        """Write its configuration and a certificate."""
        self.folder, self.accounts = folder, folder / "accounts"
        self.device_port, self.bridge_port = free_ports(2)
        command = [sys.executable, "-m", "headcount.tls", str(folder), str(folder / "tls"), "localhost"]
        subprocess.run(command, check=True)
        text = (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text()
        for there, here in (
            ("/accounts/", f"{self.accounts}/"),
            ("/shared/tls/", f"{folder}/tls/"),
            ("/data/", f"{folder}/"),
            ("listener 8885", f"listener {self.device_port} 127.0.0.1"),
            ("listener 1883", f"listener {self.bridge_port} 127.0.0.1"),
        ):
            assert there in text
            text = text.replace(there, here)
        (folder / "mosquitto.conf").write_text(f"user {getpass.getuser()}\n{text}")

    def __enter__(self) -> Self:
        script = ROOT / "deploy" / "mosquitto" / "start.sh"
        path = f"{os.environ['PATH']}:{Path(PROGRAM).parent}"
        self._process = subprocess.Popen(
            [script, self.folder / "mosquitto.conf", self.accounts], env={"PATH": path}, process_group=0
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def is_there(self) -> bool:
        """Whether it accepts connections."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.device_port), 1):
            return True
        return False


class Device:
    """A device that uses MQTT 5."""

    def __init__(self, front: Front, user: str, secret: str) -> None:
        """Connect, and wait for the answer."""
        self.answers: list[str] = []
        self.puback: list[str] = []
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, user, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        self.client.username_pw_set(user, secret)
        self.client.on_connect = lambda *values: self.answers.append(str(values[3]))
        self.client.on_disconnect = lambda *values: self.answers.append(f"disconnected: {values[3]}")
        self.client.on_publish = lambda *values: self.puback.append(str(values[3]))
        self.client.tls_set(str(front.folder / "tls" / "server.crt"))
        self.client.connect("localhost", front.device_port)
        self.client.loop_start()
        wait_until(lambda: self.answers, "CONNACK")

    def publish(self, topic: str, payload: bytes, alias: int | None = None) -> str:
        """Publish with QoS 1 and properties of MQTT 5; the reason of the PUBACK."""
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [("firmware", "7")]
        properties.MessageExpiryInterval = 3600
        if alias is not None:
            properties.TopicAlias = alias
        number = len(self.puback)
        self.client.publish(topic, payload, 1, properties=properties)
        wait_until(lambda: len(self.puback) > number, "PUBACK")
        return self.puback[-1]

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()


def answer(front: Front, user: str, secret: str) -> str:
    """The broker's answer to a login."""
    device = Device(front, user, secret)
    device.close()
    return device.answers[0]


def test_mqtt_5_devices_connect_to_a_mosquitto_in_front(up: Up, tmp_path: Path) -> None:
    """A device with an account is counted over MQTT 5; its rights end when they end at headcount."""
    lat, lon = spot(zone := "foundation-building")
    before = public_count(up, zone)
    front = Front(tmp_path)
    login = (
        "--bridge-user",
        "headcount-bridge",
        "--bridge-password-file",
        front.accounts / "bridge-password",
    )
    with front, process(up, "device", "mosquitto", "--output", front.accounts, "--follow"):
        wait_until(front.is_there, "Mosquitto starts")
        with process(up, "run", "bridge", "--from", f"mqtt://127.0.0.1:{front.bridge_port}", *login):
            wait_until(lambda: metric(up, "headcount_bridge_connected "), "the bridge copies")
            added = headcount("device", "add", "--kind", "person", "--json", "--data", up.data, cwd=up.folder)
            account = json.loads(added.stdout)
            device_login = front, account["id"], account["secret"]
            wait_until(lambda: answer(*device_login) == "Success", "the device may connect")
            stranger = Device(*device_login)
            assert stranger.publish("headcount/ul/person/another/fix", b"{}") == "Not authorized"
            stranger.close()
            device = Device(*device_login)
            topic, now_s = f"headcount/ul/person/{account['id']}/fix", time.time()
            for number in range(3):
                fix = json.dumps({"t": now_s - 3 + number, "lat": lat, "lon": lon, "acc": 5}).encode()
                # the topic once, then its alias
                assert device.publish("" if number else topic, fix, alias=1) == "Success"
            wait_until(lambda: public_count(up, zone) == before + 1, "the device is counted")
            assert answer(front, "unknown", account["secret"]) == "Not authorized"
            disabled = headcount("device", "disable", account["id"], "--data", up.data, cwd=up.folder)
            assert disabled.returncode == 0, disabled.stderr
            wait_until(lambda: len(device.answers) > 1, "the device is disconnected")
            device.close()
            assert answer(*device_login) == "Not authorized"
