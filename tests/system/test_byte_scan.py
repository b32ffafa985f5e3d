"""A scan of every byte on the disk of a real system that people with names have used."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import nats
import paho.mqtt.client as paho
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from disk_scan import scan, store_of
from headcount.devices.commands import CommandStore
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.messages.records import Device
from headcount.messages.topics import AUDIT_STREAM, EVENT_STREAM, FIX_STREAM, INTERNAL
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import COMMAND_BUCKET, DEVICE_BUCKET, SEEN_BUCKET
from system.running import Up, headcount
from waiting import LIMIT_S, wait_until

T = TypeVar("T")
#: In the site of sites/ul.geojson.
PLACE = {"lat": 52.6738, "lon": -8.5725}
#: Names in the input: they are kept in the registry only, and those in invalid input nowhere.
NAMES = {
    "label": b"Zaphod Beeblebrox",
    "group": b"crew-heart-of-gold",
    "alias user": b"Trillian.Astra",
    "alias device": b"Marvins-telephone",
    "iotp id": b"Slartibartfast:42",
}
NOWHERE = {
    "OwnTracks device": b"Dents-dressing-gown",
    "tracker id": b"tid-Fenchurch",
    "payload's topic": b"Hotblack-Desiato",
    "wrong user": b"Eddie-the-computer",
    "wrong password": b"hunter2-Vogon-poetry",
    "wrong token": b"Krikkit-one-and-only",
    "client id": b"lig-lury-junior",
}
COMMAND_TEXT = b"dont panic and take a towel"


# --- the scanner has teeth -----------------------------------------------------------------------------
def plants(secret: bytes) -> dict[str, bytes]:
    """A secret in every form that the scanner must see through."""
    text = secret.decode()
    return {
        "raw": b"\0\1" + secret + b"\2",
        "zstd": b"before" + pa.compress(b"x" * 100 + secret, codec="zstd", asbytes=True) + b"behind",
        "zstd in zstd": pa.compress(
            b"a" + pa.compress(secret, codec="zstd", asbytes=True), codec="zstd", asbytes=True
        ),
        "gzip": gzip.compress(secret),
        "hex": secret.hex().encode(),
        "upper hex": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret),
        "base64, shifted by one": base64.b64encode(b"a" + secret),
        "base64, shifted by two": base64.b64encode(b"ab" + secret + b"c"),
        "base64 for URLs": base64.urlsafe_b64encode(b"\xff\xfe" + secret),
        "utf-16": text.encode("utf-16-le"),
        "utf-16 big": text.encode("utf-16-be"),
        "json": json.dumps({"name": text}).encode(),
        "number": secret[::-1],
    }


@pytest.mark.parametrize("form", sorted(plants(b"x")))
def test_the_scanner_finds_what_is_planted(tmp_path: Path, form: str) -> None:
    """Each form in which something might be hidden is found, and nothing is where there is nothing."""
    secret = "Müller the Ünseen".encode() if form == "json" else b"Agrajag the reborn"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file.bin").write_bytes(os.urandom(10_000) + plants(secret)[form])
    if form == "gzip":
        (tmp_path / "deep" / "er" / "file.bin").write_bytes(plants(secret)[form])
    hits = scan(tmp_path, {"it": secret, "not it": b"Agrajag the unborn"})
    assert hits == {"it": {"deep/er/file.bin"}, "not it": set()}


def test_the_scanner_finds_parquet_and_names(tmp_path: Path) -> None:
    """A needle in a column or in the name of a file is found."""
    table = pa.table({"device": ["0011223344556677"] * 10_000})
    pq.write_table(table, tmp_path / "segment.parquet", compression="zstd")
    (tmp_path / "Deep-Thought.log").write_bytes(b"")
    hits = scan(tmp_path, {"column": b"0011223344556677", "name": b"Deep-Thought"})
    assert hits == {"column": {"segment.parquet"}, "name": {"Deep-Thought.log"}}


# --- the system --------------------------------------------------------------------------------------
@dataclass
class Campus:
    """A system with devices, and what is known of them."""

    up: Up
    secrets: dict[str, str] = field(default_factory=dict)
    connections: list[paho.Client] = field(default_factory=list)

    def inside(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """Ask the system from inside."""

        async def asked() -> T:
            url = f"nats://127.0.0.1:{self.up.ports['nats']}"
            client = await nats.connect(url, user=INTERNAL, password=self.up.password)
            try:
                return await ask(client)
            finally:
                await client.close()

        return asyncio.run(asked())

    def registry(self, client: Client) -> Registry:
        """The registry over a connection."""
        seen = KvBucket(Connection(client), SEEN_BUCKET)
        return Registry(KvBucket(Connection(client), DEVICE_BUCKET), self.up.password, seen)

    def add(self, **fields: Any) -> Device:
        """Register a person."""

        async def create(client: Client) -> Device:
            device, secret = await self.registry(client).add("ul", "person", **fields)
            self.secrets[device.id] = secret
            return device

        return self.inside(create)

    def connect(
        self, device: Device, name: str = "", *, clean: bool = True, will: bool = False
    ) -> paho.Client:
        """A device's MQTT connection, as soon as it is let in."""

        def attempt() -> paho.Client | None:
            client_id = device.id + (f"-{name}" if name else "")
            client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean)
            client.username_pw_set(device.id, self.secrets[device.id])
            if will:
                client.will_set(f"headcount/ul/person/{device.id}/status", "offline", 1, retain=True)
            try:
                client.connect("127.0.0.1", self.up.mqtt_port)
            except OSError:
                return None
            client.loop_start()
            with suppress(AssertionError):
                wait_until(client.is_connected, "an answer", 15)
                self.connections.append(client)
                return client
            client.loop_stop()
            return None

        client = wait_until(attempt, "a device is let in", every_s=0.2)
        assert client is not None
        return client

    def refused(self, user: str, password: str, client_id: str) -> None:
        """An MQTT connection that isn't let in."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id)
        client.username_pw_set(user, password)
        refused: list[bool] = []
        client.on_connect = lambda _, __, ___, code, ____: refused.append(code.is_failure)
        client.connect("127.0.0.1", self.up.mqtt_port)
        client.loop_start()
        wait_until(lambda: refused, "an answer")
        assert all(refused)
        client.loop_stop()
        client.disconnect()

    def hang_up(self) -> None:
        """End all connections."""
        for client in self.connections:
            client.loop_stop()
            client.disconnect()
        self.connections.clear()

    def pseudonyms(self, device: Device) -> list[str]:
        """Those of the days that are kept."""

        async def known(client: Client) -> list[str]:
            return list(
                (
                    await PseudonymKeys(Connection(client)).pseudonyms_of(device.site, device.kind, device.id)
                ).values()
            )

        return self.inside(known)

    def messages(self, stream: str, subject: str = ">") -> int:
        """How many messages of a subject a stream holds."""

        async def counted(client: Client) -> int:
            info = await client.jetstream().stream_info(stream, subjects_filter=subject)
            return sum((info.state.subjects or {}).values())

        return self.inside(counted)


def location(t_s: float, **more: Any) -> bytes:
    """An OwnTracks location."""
    return json.dumps({"_type": "location", "tst": int(t_s), "t": t_s, "acc": 5, **PLACE, **more}).encode()


def live(campus: Campus, device: Device, gateway: Device | None) -> None:
    """Send all messages that a phone can send, on every path."""
    up = campus.up
    topic = f"headcount/ul/person/{device.id}"
    phone = campus.connect(device, "phone", clean=False, will=True)
    phone.subscribe(f"{topic}/cmd", 1)
    phone.subscribe("headcount/ul/counts/#", 2)
    sent = [
        phone.publish(f"{topic}/fix", location(time.time() + qos), qos, retain)
        for qos in (0, 1, 2)
        for retain in (False, True)
    ]
    sent.append(phone.publish(f"{topic}/status", "online", 1, retain=True))
    ours = {"tid": NOWHERE["tracker id"].decode(), "topic": NOWHERE["payload's topic"].decode()}
    dressing_gown = NOWHERE["OwnTracks device"].decode()
    sent += [
        phone.publish(f"owntracks/{device.id}/{dressing_gown}", location(time.time(), **ours), qos, retain)
        for qos in (0, 1, 2)
        for retain in (False, True)
    ]
    if gateway is not None:
        station = campus.connect(gateway)
        body = {"id": NAMES["iotp id"].decode(), "t": time.time(), **PLACE, "tid": ours["tid"]}
        encoded = json.dumps(body).encode()
        sent += [station.publish("mobile-iotp", encoded, qos) for qos in (0, 1)]
        sent.append(station.publish("car-iotp", base64.b64encode(encoded), 1))
    for one in sent:
        one.wait_for_publish(10)
    for partition in range(up.partitions):
        wait_until(lambda: not campus.messages("FOREIGN"), "everything is translated")
        del partition
    assert wait_until(lambda: logged(campus, device), "the log has fixes") >= 5
    sock = phone.socket()
    assert sock is not None
    phone.loop_stop()
    sock.close()  # no DISCONNECT: the last will is sent
    campus.connections.remove(phone)


def logged(campus: Campus, device: Device) -> int:
    """Messages of a device in the log."""
    subject = f"fix.*.ul.{device.kind}.{device.id}"
    return sum(campus.messages(FIX_STREAM.format(partition=p), subject) for p in range(campus.up.partitions))


def command(campus: Campus, device: Device) -> None:
    """A message for a person."""

    async def create(client: Client) -> None:
        commands = CommandStore(KvBucket(Connection(client), COMMAND_BUCKET))
        await commands.add(
            "ul", device.kind, device.id, "message", now_s=time.time(), text=COMMAND_TEXT.decode()
        )

    campus.inside(create)


def forms_of(pseudonyms: list[str]) -> dict[str, bytes]:
    """Pseudonyms as text and as bytes."""
    texts = {f"pseudonym {i} as text": name.encode() for i, name in enumerate(pseudonyms)}
    return texts | {f"pseudonym {i}": bytes.fromhex(name) for i, name in enumerate(pseudonyms)}


def stores(hits: dict[str, set[str]]) -> dict[str, set[str]]:
    """Needle → the stores that have it, without needles that were not found."""
    return {name: {store_of(place) for place in places} for name, places in hits.items() if places}


def use_api(campus: Campus, person: Device) -> str:
    """Use the API as an operator, and with an invalid token; names are in addresses and bodies. The operator's token."""
    up = campus.up
    port = str(up.ports["nats"])
    arguments = ("token", "add", "an operator", "--role", "admin", "--data", up.data, "--nats-port", port)
    token = headcount(*arguments, cwd=up.folder).stdout.strip()
    assert token.startswith("hc_")
    text = NAMES["label"].decode().split()[0]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{up.ports['http']}", trust_env=False, timeout=LIMIT_S
    ) as api:
        for word, expected in ((token, 200), (f"hc_{NOWHERE['wrong token'].decode()}", 401)):
            api.headers = {"Authorization": f"Bearer {word}", "Headcount-Reason": "somebody has asked"}
            found = api.get("/v1/sites/ul/devices", params={"text": text})
            assert found.status_code == expected, found.text
            assert (person.id in found.text) == (expected == 200)
            for path in (f"person/{person.id}", f"person/{person.id}/trace"):
                api.get(f"/v1/sites/ul/devices/{path}")
    return token


@pytest.mark.slow
def test_names_and_handles_are_where_they_may_be_and_the_erased_nowhere(tmp_path: Path) -> None:
    """Names are in the registry only, handles in registry, commands and log; erased devices are nowhere."""
    with Up(tmp_path, open=False) as up:
        campus = Campus(up)
        try:
            _scan_a_life(campus, tmp_path)
        finally:
            campus.hang_up()


def _scan_a_life(campus: Campus, folder: Path) -> None:
    up = campus.up
    alias = b"/".join([b"owntracks", NAMES["alias user"], NAMES["alias device"]]).decode()
    person = campus.add(
        label=NAMES["label"].decode(),
        groups=[NAMES["group"].decode()],
        aliases=[alias, f"iotp/{NAMES['iotp id'].decode()}"],
    )
    other = campus.add(label="Ford Prefect from Betelgeuse")
    gateway = campus.add(label="station", gateway=True)
    live(campus, person, gateway)
    live(campus, other, None)
    for device in (person, other):
        command(campus, device)
    wrong = NOWHERE["wrong password"].decode()
    campus.refused(NOWHERE["wrong user"].decode(), wrong, NOWHERE["client id"].decode())
    campus.refused(person.id, wrong, f"{person.id}-{NOWHERE['client id'].decode()}")
    credentials = {
        "token": use_api(campus, person).encode(),
        "person's password": campus.secrets[person.id].encode(),
        "gateway's password": campus.secrets[gateway.id].encode(),
    }
    names = campus.pseudonyms(person)
    wait_until(lambda: campus.messages(EVENT_STREAM), "somebody has entered")
    for role in ("adapters", "count", "history", "devices", "broker"):
        up.kill9(role)
        time.sleep(0.5)  # a kill at a time
    wait_until(up.is_ready, "it counts again")
    live(campus, person, gateway)
    campus.hang_up()
    time.sleep(2)  # blocks of messages are synchronised every second
    up.stop()

    handles = {"handle": person.id.encode(), "other's handle": other.id.encode()}
    needles = NAMES | NOWHERE | handles | forms_of(names) | {"other": b"Ford Prefect from Betelgeuse"}
    found = stores(scan(folder, needles | {"command": COMMAND_TEXT}))
    assert [found.pop(name) for name in NAMES] == [{"KV_DEVICE"}] * len(NAMES)
    assert found.pop("other") == {"KV_DEVICE"}
    assert found.pop("command") == {"KV_COMMAND"}
    for name in handles:
        kept = {store for store in found.pop(name) if not store.startswith("FIX_")}
        assert kept == {"KV_DEVICE", "KV_COMMAND"}, name
    assert not set(NOWHERE) & set(found), found
    assert not any(scan(folder, credentials).values()), "credentials are kept as hashes"
    pseudonymous = set().union(*found.values())
    assert {"data", EVENT_STREAM} <= pseudonymous, (
        "segments and events hold pseudonyms, or this finds nothing"
    )
    assert not {place for place in pseudonymous if place.startswith("output")}, "no pseudonym in a log"

    up.start()
    wait_until(up.is_ready, "it counts again")

    async def still_there(client: Client) -> Device | None:
        return await campus.registry(client).get(person.id)

    port = str(up.ports["nats"])
    asked = headcount(
        "device", "remove", person.id, "--yes", "--data", up.data, "--nats-port", port, cwd=folder
    )
    assert asked.returncode == 0, asked.stderr
    wait_until(lambda: campus.inside(still_there) is None, "the person is erased", every_s=0.5)
    gone = NAMES | NOWHERE | {"handle": person.id.encode()} | forms_of(names)
    time.sleep(2)  # blocks of messages are synchronised every second
    # the server writes its list of a stream's subjects every two minutes, and when it ends
    running = {
        name: {place for place in places if not place.endswith("index.db")}
        for name, places in scan(folder, gone).items()
    }
    assert {store for found_in in stores(running).values() for store in found_in} <= {AUDIT_STREAM}
    up.stop()
    left = stores(scan(folder, gone))
    # removals are logged under the daily pseudonym, which can't be resolved without the day's key
    assert {store for found_in in left.values() for store in found_in} <= {AUDIT_STREAM}, left
    assert all(name.startswith("pseudonym") for name in left), left
    assert "KV_DEVICE" in stores(scan(folder, {"other": other.id.encode()}))["other"]
