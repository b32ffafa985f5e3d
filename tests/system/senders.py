"""How users and mischief-makers send: their own programs, and bytes that no library would send."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
import pytest
import shapely
from paho.mqtt.enums import CallbackAPIVersion

from system.running import UL
from waiting import LIMIT_S

SITE = json.loads(UL.read_text())


def spot(zone: str) -> tuple[float, float]:
    """Latitude and longitude of a place well inside a zone of the University of Limerick."""
    shape = next(f["geometry"] for f in SITE["features"] if f["properties"].get("id") == zone)
    point = shapely.from_geojson(json.dumps(shape)).representative_point()
    return point.y, point.x


def fix(zone: str, **more: Any) -> bytes:
    """The payload of a fix there, now."""
    lat, lon = spot(zone)
    return json.dumps(
        {"_type": "location", "tst": int(time.time()), "lat": lat, "lon": lon, "acc": 5, **more}
    ).encode()


def program(name: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def mosquitto_pub(port: int, topic: str, payload: bytes, *options: str) -> None:
    """Publish with Mosquitto's client."""
    command = [program("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-s", *options]
    subprocess.run(command, input=payload, check=True, timeout=60)


def publish(
    port: int, topic: str, payload: bytes, *, qos: int = 1, websocket: bool = False, host: str = "127.0.0.1"
) -> None:
    """Publish with paho over MQTT 3.1.1, plain or over WebSocket, and wait for the broker's answer."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        protocol=paho.MQTTv311,
        transport="websockets" if websocket else "tcp",
    )
    if websocket:
        # paho's Origin is no valid one where the host is an IPv6 address
        headers = (lambda given: {k: v for k, v in given.items() if k != "Origin"}) if ":" in host else None
        client.ws_set_options(path="/mqtt", headers=headers)
    client.connect(host, port)
    client.loop_start()
    try:
        client.publish(topic, payload, qos=qos).wait_for_publish(20)
    finally:
        client.disconnect()
        client.loop_stop()


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length += bytes([digit | (128 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def send_raw(port: int, topic: bytes, payload: bytes, client_id: bytes = b"raw") -> None:
    """Publish with QoS 0 under any topic at all; the broker may answer by hanging up."""
    connect = _text(b"MQTT") + b"\x04\x02\x00\x3c" + _text(client_id)
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as sock:
        sock.sendall(_packet(0x10, connect))
        sock.recv(4)  # CONNACK
        sock.sendall(_packet(0x30, _text(topic) + payload) + _packet(0xC0, b""))
        sock.recv(2)  # PINGRESP: what was sent before has been read
        sock.sendall(_packet(0xE0, b""))


def send_bytes(port: int, data: bytes) -> None:
    """Connect and send these bytes, whatever they are."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as sock:
        sock.sendall(data)
        sock.settimeout(0.3)
        sock.recv(100)
