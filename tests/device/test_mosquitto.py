"""The device library with a real Mosquitto, and in an environment with only paho-mqtt."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import headcount
from device.machine import Machine
from device.make_vectors import LAT, LON, sites
from headcount.device import DeviceCertificates, DeviceClient, DeviceOrder, DevicePosition, credentials_of
from headcount.runtime.ports import free_port
from headcount.tls.authority import CertificateAuthority
from mosquitto_fixture import Mosquitto, needs_mosquitto
from waiting import wait_until

pytestmark = needs_mosquitto
SITE = json.dumps(sites()["campus"])
TOPIC = "headcount/campus/person/phone"
DEVICE_ID = "k3qv7m2xw5yd4hbt6zra"


class Operator:
    """Another client of the broker: it reads the topics of devices, and publishes site and commands."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, str]] = []
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "operator", clean_session=False, protocol=mqtt.MQTTv311
        )
        self._client.reconnect_delay_set(1, 1)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("headcount/campus/+/+/+", qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _, __, message: self.received.append(
            (message.topic.rpartition("/")[2], message.payload.decode())
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(30)

    def of(self, topic: str) -> list[str]:
        """The payloads of a topic."""
        return [payload for name, payload in self.received if name == topic]

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish with QoS 1."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(30)

    def publish_site(self) -> None:
        """Publish the site, retained."""
        self.publish("headcount/campus/site", SITE, retain=True)

    def command(self, id_: str, name: str, **fields: Any) -> Any:
        """Publish a command; returns the answer."""
        before = len(self.of("ack"))
        command = {"id": id_, "command": name, "expires": time.time() + 60, **fields}
        self.publish(f"{TOPIC}/cmd", json.dumps(command))
        wait_until(lambda: len(self.of("ack")) > before, f"the answer to {name}")
        return json.loads(self.of("ack")[-1])

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of another make."""
    with Mosquitto(tmp_path) as running:
        yield running


@pytest.fixture
def operator(mosquitto: Mosquitto) -> Iterator[Operator]:
    """Its other client."""
    client = Operator(mosquitto.port)
    yield client
    client.close()


def account(port: int, **fields: Any) -> dict[str, Any]:
    """Credentials of the phone."""
    return {"device": "phone", "secret": "", "site": "campus", "kind": "person", "port": port, **fields}


def here(t: float, east: float = 0.0) -> DevicePosition:
    """A position on the campus, or `east` degrees from there."""
    return DevicePosition(t, LAT, LON + east, acc=5)


def test_nothing_is_sent_before_the_site_is_known_or_off_site(
    mosquitto: Mosquitto, operator: Operator
) -> None:
    """Positions before the site arrives are judged when it does: those on site are sent, the others never."""
    t = time.time()
    with DeviceClient(credentials_of(account(mosquitto.port), "test")) as device:
        for position in (
            here(t, -0.1),
            here(t + 10),
            here(t + 20, 0.001),
            here(t + 130, 0.1),
            here(t + 140, 0.2),
        ):
            device.report(position)
        wait_until(lambda: operator.of("status") == ["online"], "it is online")
        assert device.status.waiting == 5
        assert operator.of("fix") == []
        operator.publish_site()
        wait_until(lambda: device.status.waiting == 0, "all are acknowledged")
        assert [json.loads(fix)["tst"] for fix in operator.of("fix")] == [
            round(t + after, 3) for after in (10, 20, 130)
        ]
        assert device.status.is_off_site
    wait_until(lambda: operator.of("status") == ["online", "offline"], "it is offline")


def test_commands_are_obeyed_once(mosquitto: Mosquitto, operator: Operator) -> None:
    """Each command has its effect and is answered; a repeated one is answered again, an expired one is not."""
    operator.publish_site()
    orders: list[DeviceOrder] = []

    def show(order: DeviceOrder) -> None:
        orders.append(order)
        if order.text == "ask":
            raise ValueError("the screen is off")

    t = time.time() - 1000
    with DeviceClient(credentials_of(account(mosquitto.port), "test"), on_command=show) as device:
        wait_until(lambda: device.status.knows_site, "the site")
        assert device.report(here(t)) == "zones"
        assert operator.command("1", "interval", interval_s=7) == {"id": "1", "ok": True}
        assert [device.report(here(t + step)) for step in (6, 7)] == [None, "time"]
        assert operator.command("2", "report")["ok"]
        assert device.report(here(t + 8)) == "requested"
        assert operator.command("3", "message", text="ask") == {
            "id": "3",
            "ok": False,
            "text": "the screen is off",
        }
        assert operator.command("3", "message", text="ask")["text"] == "the screen is off"
        assert operator.command("4", "pause", until=t + 100)["ok"]
        assert [device.report(here(t + step)) for step in (50, 101)] == [None, "time"]
        assert operator.command("5", "dance")["text"] == "unknown command"
        for payload in ("{", "[]", '{"id": "6", "command": "message", "expires": 1, "text": "old"}'):
            operator.publish(f"{TOPIC}/cmd", payload)
        assert operator.command("7", "message", text="hello")["ok"]
        assert [order.id for order in orders] == ["1", "2", "3", "4", "7"]


def test_a_killed_broker_loses_no_fix(mosquitto: Mosquitto, operator: Operator) -> None:
    """Fixes that are reported while the broker is down arrive in order when it is back."""
    operator.publish_site()
    t = time.time()
    with DeviceClient(credentials_of(account(mosquitto.port), "test")) as device:
        device.report(here(t))
        wait_until(lambda: device.status.acknowledged == 1, "the first fix")
        mosquitto.kill()
        for step in range(1, 6):
            device.report(here(t + 61 * step))
        assert device.status.waiting == 5
        mosquitto.start()
        wait_until(lambda: device.status.waiting == 0, "all are acknowledged")
        wait_until(lambda: len(set(operator.of("fix"))) == 6, "all arrive")
    times = list(dict.fromkeys(json.loads(fix)["tst"] for fix in operator.of("fix")))
    assert times == sorted(times)


def test_a_killed_device_is_offline(mosquitto: Mosquitto, operator: Operator, tmp_path: Path) -> None:
    """The broker publishes the last will of a device that is killed."""
    with Machine(account(mosquitto.port), tmp_path / "fixes.db") as machine:
        machine.report([here(time.time())])
        wait_until(lambda: operator.of("status") == ["online"], "it is online")
        machine.kill9()
        wait_until(lambda: operator.of("status") == ["online", "offline"], "it is offline")


@pytest.mark.filterwarnings(
    # paho leaves the socket of a failed handshake to the garbage collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_certificate_proves_the_id(tmp_path: Path) -> None:
    """Over TLS with a certificate of its own, a device needs no secret; a server of another CA is refused."""
    ca = CertificateAuthority.init(tmp_path / "ca", "ours")
    CertificateAuthority.init(tmp_path / "strangers", "theirs")
    ca.issue_server(["localhost"]).write(tmp_path / "server.crt", tmp_path / "server.key")
    ca.issue_device(DEVICE_ID).write(tmp_path / "device.crt", tmp_path / "device.key")
    port = free_port(0)
    listener = [
        f"listener {port} 127.0.0.1",
        f"cafile {tmp_path}/ca/ca.crt",
        f"certfile {tmp_path}/server.crt",
    ]
    listener += [
        f"keyfile {tmp_path}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    with Mosquitto(tmp_path, *listener) as running:
        credentials = credentials_of(
            account(port, device=DEVICE_ID, host="localhost", tls=True) | {"secret": None}, "test"
        )
        own = DeviceCertificates(tmp_path / "ca" / "ca.crt", tmp_path / "device.crt", tmp_path / "device.key")
        with DeviceClient(credentials, certificates=own, silent_off_site=False) as device:
            assert device.report(here(time.time())) == "first"
            wait_until(lambda: device.status.acknowledged == 1, "the fix is delivered")
        assert f"u'{DEVICE_ID}'" in (running.folder / "log").read_text()
        other = DeviceCertificates(tmp_path / "strangers" / "ca.crt", own.certificate, own.key)
        with DeviceClient(credentials, certificates=other) as device:
            wait_until(lambda: "certificate verify failed" in device.status.problem, "the refusal")


def test_only_paho_is_needed(mosquitto: Mosquitto, operator: Operator, tmp_path: Path) -> None:
    """In an environment with headcount and paho-mqtt and nothing else, each module loads, and a fix is delivered."""
    operator.publish_site()
    venv.create(tmp_path / "env", symlinks=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "headcount").symlink_to(Path(headcount.__file__).parent)
    (packages / "paho").symlink_to(Path(paho.mqtt.__file__).parents[1])
    program = f"""
import importlib, pkgutil, sys, time
import headcount.device
from headcount.device import DeviceClient, DevicePosition, credentials_of
for module in pkgutil.iter_modules(headcount.device.__path__):
    importlib.import_module("headcount.device." + module.name)
with DeviceClient(credentials_of({account(mosquitto.port)!r}, "test")) as device:
    device.report(DevicePosition(time.time(), {LAT}, {LON}))
print(*sorted(name for name in {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names
              if not name.startswith("_")))
"""
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [python, "-I", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["headcount", "paho"], sys.version
    assert len(operator.of("fix")) == 1
    (tmp_path / "device.json").write_text(json.dumps(account(mosquitto.port)))
    command: list[str | Path] = [
        python,
        "-I",
        "-m",
        "headcount.device",
        "--credentials",
        "device.json",
        "--from",
        "-",
    ]
    done = subprocess.run(
        [*command, "--buffer", "fixes.db"],
        cwd=tmp_path,
        input=here(time.time() + 1).payload().decode() + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 positions, on site, 1 reported, 1 delivered, 0 waiting" in done.stderr
    assert len(operator.of("fix")) == 2
