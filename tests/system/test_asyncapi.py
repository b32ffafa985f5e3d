"""Every topic of the AsyncAPI document, in a running system: messages, QoS, retained flag, permissions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema
import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from system.running import ROOT, Up, headcount
from system.senders import SITE, spot
from waiting import LIMIT_S, wait_until

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "reference" / "asyncapi.yaml").read_text())
ZONE = "glucksman-library"

pytestmark = pytest.mark.slow


class Client:
    """An MQTT client that keeps every message."""

    def __init__(self, port: int, user: str, password: str, client_id: str) -> None:
        """Connect."""
        self.received: list[paho.MQTTMessage] = []
        self.refused: dict[int, bool] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311)
        self._client.username_pw_set(user, password)
        self._client.on_message = lambda _client, _data, message: self.received.append(message)
        self._client.on_subscribe = self._on_subscribe
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_until(self._client.is_connected, f"{client_id} connects")

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, codes: list[Any], _properties: Any) -> None:
        self.refused[mid] = codes[0].is_failure

    def subscribe(self, topic: str) -> bool:
        """Subscribe with QoS 1; whether the broker permits it."""
        _, mid = self._client.subscribe(topic, 1)
        assert mid is not None
        wait_until(lambda: mid in self.refused, f"an answer for {topic}")
        return not self.refused[mid]

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1, and wait for the acknowledgement."""
        self._client.publish(topic, payload, 1).wait_for_publish(LIMIT_S)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@dataclass
class System:
    """A running system with a device, a gateway, and programs."""

    up: Up
    api: httpx.Client
    device: str
    clients: dict[str, Client]

    def topic(self, channel: str, zone: str = ZONE) -> str:
        """The topic of a channel for the device and a zone."""
        address: str = DOCUMENT["channels"][channel]["address"]
        return address.format(site="ul", kind="person", device=self.device, zone=zone, user=self.device)

    def exact(self) -> tuple[int, int]:
        """People and vehicles in the zone now."""
        zone = self.api.get(f"/v1/sites/ul/zones/{ZONE}").json()
        return zone["person"]["count"], zone["vehicle"]["count"]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """`headcount up` with a client for each type of the document's permissions."""
    clients: dict[str, Client] = {}
    with Up(tmp_path_factory.mktemp("up"), open=False) as up:
        try:
            tokens = {}
            for role in ("viewer", "operator"):
                words = ("token", "add", role, "--role", role, "--data", up.data)
                made = headcount(*words, "--nats-port", str(up.ports["nats"]), cwd=up.folder)
                tokens[role] = next(w for w in made.stdout.split() if w.startswith("hc_"))
            api = httpx.Client(
                base_url=f"http://127.0.0.1:{up.ports['http']}",
                headers={"Authorization": f"Bearer {tokens['operator']}"},
                trust_env=False,
                timeout=60,
            )
            for name, gateway in (("device", False), ("gateway", True)):
                made_device = api.post("/v1/sites/ul/devices", json={"kind": "person", "gateway": gateway})
                assert made_device.status_code == 201, made_device.text
                device = made_device.json()
                clients[name] = Client(up.mqtt_port, device["id"], device["secret"], device["id"])
                if not gateway:
                    id_ = device["id"]
            for role, token in tokens.items():
                clients[f"program ({role})"] = Client(up.mqtt_port, "token", token, token.split("_")[1])
            yield System(up, api, id_, clients)
            api.close()
        finally:
            for client in clients.values():
                client.close()


def _example(channel: str, **changes: Any) -> bytes:
    payload = DOCUMENT["components"]["messages"][channel]["examples"][0]["payload"]
    if isinstance(payload, str):
        return payload.encode()
    return json.dumps(payload | changes).encode()


def _check(channel: str, messages: list[paho.MQTTMessage], *, retained: bool) -> None:
    """Messages of a channel are valid and came as the document describes."""
    (operation,) = [
        each for each in DOCUMENT["operations"].values() if each["channel"]["$ref"] == f"#/channels/{channel}"
    ]
    payload = DOCUMENT["components"]["messages"][channel]["payload"]
    validator = jsonschema.Draft7Validator({"components": DOCUMENT["components"], **payload})
    assert messages, channel
    for message in messages:
        validator.validate(json.loads(message.payload))
        assert message.qos == operation["bindings"]["mqtt"]["qos"], channel
        assert message.retain == (retained and operation["bindings"]["mqtt"]["retain"]), channel


def _messages(client: Client, topic: str) -> list[paho.MQTTMessage]:
    return [message for message in client.received if message.topic == topic]


def test_all_topics_carry_what_is_documented(system: System) -> None:
    """The examples of the document are counted, and everything that headcount sends is valid for its schema."""
    device, gateway = system.clients["device"], system.clients["gateway"]
    viewer, operator = system.clients["program (viewer)"], system.clients["program (operator)"]
    assert operator.subscribe(system.topic("events"))
    assert device.subscribe(system.topic("cmd"))
    lat, lon = spot(ZONE)
    here = {"lat": lat, "lon": lon}

    device.publish(system.topic("status"), _example("status"))
    device.publish(system.topic("fix"), _example("fix", **here, tst=int(time.time())))
    wait_until(lambda: system.exact() == (1, 0), "the device in the zone")
    for name, counts in (("carIotp", (1, 1)), ("mobileIotp", (2, 1))):
        gateway.publish(system.topic(name), _example(name, **here, t=int(time.time()), id=name))
        wait_until(lambda counts=counts: system.exact() == counts, name)  # type: ignore[misc]
    away = {"lat": lat + 1, "lon": lon, "t": None}
    device.publish(system.topic("owntracks"), _example("owntracks", **away, tst=int(time.time() + 20)))
    device.publish(
        system.topic("owntracksEvent"), _example("owntracksEvent", **here, tst=int(time.time() + 40))
    )
    _check_sent(system, viewer, operator)
    _check_commands(system, device)


def _check_sent(system: System, viewer: Client, operator: Client) -> None:
    """Counts and the site are retained; events are not."""
    wait_until(lambda: len(_messages(operator, system.topic("events"))) >= 3, "events")
    _check("events", _messages(operator, system.topic("events")), retained=False)
    for channel in ("counts", "exact", "site"):
        topic = system.topic(channel)
        assert viewer.subscribe(topic)
        wait_until(lambda topic=topic: _messages(viewer, topic), topic)  # type: ignore[misc]
        _check(channel, _messages(viewer, topic)[:1], retained=True)
    site = json.loads(_messages(viewer, system.topic("site"))[0].payload)
    assert len(site["features"]) == len(SITE["features"])


def _check_commands(system: System, device: Client) -> None:
    """A command of each type is valid, and its answer is accepted."""
    path = f"/v1/sites/ul/devices/{system.device}/commands"
    commands: list[dict[str, Any]] = [
        {"command": "report"},
        {"command": "interval", "interval_s": 30},
        {"command": "pause", "pause_s": 60},
        {"command": "message", "text": "Please charge me"},
    ]
    for command in commands:
        assert system.api.post(path, json=command).status_code == 201
    wait_until(
        lambda: (
            {json.loads(each.payload)["command"] for each in device.received}
            >= {c["command"] for c in commands}
        ),
        "the commands",
    )
    _check("cmd", device.received, retained=False)
    for id_ in {json.loads(each.payload)["id"] for each in device.received}:
        device.publish(system.topic("ack"), _example("ack", id=id_))
    wait_until(
        lambda: all(each["state"] == "acknowledged" for each in system.api.get(path).json()["commands"]),
        "the answers",
    )


def test_subscriptions_are_permitted_as_documented(system: System) -> None:
    """A client may subscribe to a topic exactly if the document lists its type."""
    for name, client in system.clients.items():
        if name == "gateway":
            continue  # its own topics are those of another device than `system.device`
        for channel, content in DOCUMENT["channels"].items():
            permitted = name in content["x-permissions"]["subscribe"]
            assert client.subscribe(system.topic(channel)) == permitted, (name, channel)
