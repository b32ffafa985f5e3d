"""The translator with a real broker: foreign MQTT messages arrive as canonical fixes in the log."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from decoders.faulty_plugin import install
from headcount.adapters import translator
from headcount.broker.core import Broker
from headcount.decoders import plugins
from headcount.decoders.device_aliases import AliasResolver
from headcount.devices.registry import Registry
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.fixes import Fix
from headcount.messages.topics import FIX_STREAM, FOREIGN_STREAM
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET, MQTT_RETAINED
from nats_fixture import endpoint_of, internal_client, open_broker
from waiting import LIMIT_S, until

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed"
)

LOCATION = b'{"_type":"location","lat":52.67,"lon":-8.57,"tst":1700000000,"acc":9}'


@asynccontextmanager
async def adapters(broker: Broker) -> AsyncIterator[None]:
    """Run the translator during the test."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        secret = broker.config.password
        tasks.create_task(translator.run(endpoint_of(broker), "ul", stop, secret=secret, worker="w1"))
        try:
            yield
        finally:
            stop.set()


async def mosquitto(broker: Broker, topic: str, message: bytes, *options: str) -> None:
    """Send one message with mosquitto_pub; repeat it while the broker is down."""
    command = (
        "mosquitto_pub",
        "-h",
        "127.0.0.1",
        "-p",
        str(broker.config.mqtt_port),
        "-t",
        topic,
        "-s",
        *options,
    )

    async def is_sent() -> bool:
        program = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await program.communicate(message)
        return program.returncode == 0

    await until(is_sent, "mosquitto_pub has sent it", every_s=0.1)


async def next_in_log(client: Client, number: int) -> list[tuple[str, bytes]]:
    """The first messages of the log in all partitions: subject without partition, and payload."""
    found: list[tuple[str, bytes]] = []

    async def read(partition: int) -> None:
        jetstream = client.jetstream()
        stream = FIX_STREAM.format(partition=partition)
        messages = await jetstream.subscribe(f"fix.{partition}.>", stream=stream, ordered_consumer=True)
        while len(found) < number:
            with suppress(nats.errors.TimeoutError):
                message = await messages.next_msg(timeout=0.1)
                found.append((message.subject.split(".", 2)[2], message.data))

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as readers:
        for partition in range(4):
            readers.create_task(read(partition))
    return found


async def test_foreign_messages_arrive_in_the_log(tmp_path: Path) -> None:
    """OwnTracks and iotp messages from mosquitto_pub become canonical fixes in the log, invalid ones do not."""
    async with open_broker(tmp_path) as broker, adapters(broker):
        client = await internal_client(broker)
        await mosquitto(broker, "owntracks/jane/phone", LOCATION, "-q", "1")
        await mosquitto(broker, "owntracks/jane.doe/car1", LOCATION)
        await mosquitto(broker, "owntracks/jane/phone/event", LOCATION.replace(b"location", b"transition"))
        await mosquitto(broker, "owntracks/jane/phone", b'{"_type":"lwt","tst":1}')
        await mosquitto(broker, "owntracks/jane/phone", b'{"_type":"card"}')
        await mosquitto(broker, "owntracks/jane/phone", b"\xff not json")
        await mosquitto(broker, "car-iotp", b'{"id":"c-7","lat":1,"lon":2,"t":5}')
        await mosquitto(broker, "mobile-iotp", b"eyJpZCI6InAiLCJsYXQiOjEsImxvbiI6Mn0=", "-q", "1")
        found = dict(await next_in_log(client, 6))
        names = AliasResolver(broker.config.password, RegistryCache(), "ul")
        phone = names.derived("owntracks", "jane/phone", "person").device
        car = names.derived("owntracks", "jane.doe/car1", "vehicle").device
        c7 = names.derived("iotp", "c-7", "vehicle").device
        assert set(found) == {
            f"ul.person.{phone}",
            f"ul.person.{phone}.status",
            f"ul.vehicle.{car}",
            f"ul.vehicle.{c7}",
            f"ul.person.{names.derived('iotp', 'p', 'person').device}",
        }
        assert found[f"ul.person.{phone}.status"] == b"offline"
        assert msgspec.json.decode(found[f"ul.vehicle.{c7}"], type=Fix).tst == 5
        await client.close()


async def test_names_are_removed_from_the_disk(tmp_path: Path) -> None:
    """Translated messages of any QoS, retained or invalid, are overwritten; fixes stay."""
    needles = (b"Zaphod", b"Trillian", b"tid-Ford", b"Slartibartfast")
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        jetstream = client.jetstream()
        registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), broker.config.password)
        device, _ = await registry.add("ul", "person")
        location = LOCATION.replace(b"}", b',"tid":"tid-Ford","topic":"owntracks/Zaphod/x"}')
        for topic in ("owntracks/Zaphod/Trillian", f"owntracks/{device.id}/Trillian"):
            for options in (("-q", "0"), ("-q", "1"), ("-q", "2"), ("-q", "1", "-r")):
                await mosquitto(broker, topic, location, *options)
        await mosquitto(broker, "car-iotp", b'{"id":"Slartibartfast","lat":1,"lon":2}', "-q", "1")
        await mosquitto(broker, "mobile-iotp", b'{"id":"Slartibartfast"}')
        await until(lambda: found_in(tmp_path, needles) == set(needles), "blocks are synchronised")
        async with adapters(broker):
            found = await next_in_log(client, 9)
            assert f"ul.person.{device.id}" in {subject for subject, _ in found}

            async def overwritten() -> bool:
                return not (await jetstream.stream_info(FOREIGN_STREAM)).state.messages

            await until(overwritten)
        await until(lambda: not found_in(tmp_path, needles), "index and blocks are synchronised")
        await client.close()
    assert found_in(tmp_path, needles) == set()


async def test_names_are_removed_while_a_decoder_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of other formats are translated and overwritten while a plug-in hangs, and its own ones wait."""
    packages, needles = tmp_path / "packages", (b"Zaphod", b"Trillian")
    packages.mkdir()
    install(packages)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    plugins.installed.cache_clear()
    async with open_broker(tmp_path / "data", plugin_subjects=plugins.plugin_subjects()) as broker:
        client = await internal_client(broker)
        for payload in (*["hang"] * 30, "last"):
            await mosquitto(broker, "faulty/1/up", payload.encode(), "-q", "1")
        await mosquitto(broker, "owntracks/Zaphod/Trillian", LOCATION, "-q", "1")
        await mosquitto(broker, "faulty-all", b"last", "-q", "1", "-r")

        async def retained() -> int:
            return (await client.jetstream().stream_info(MQTT_RETAINED)).state.messages

        assert await retained() == 1
        async with adapters(broker):
            await next_in_log(client, 1)
            await until(lambda: not found_in(tmp_path / "data", needles), "index and blocks are synchronised")
            waiting = (await client.jetstream().stream_info(FOREIGN_STREAM)).state.messages
            assert waiting > 2, "messages of the plug-in wait"

            async def removed() -> bool:
                return not await retained()

            await until(removed, "the retained message of the plug-in is removed")
        await client.close()
    plugins.installed.cache_clear()


def found_in(folder: Path, needles: tuple[bytes, ...]) -> set[bytes]:
    """Those of the byte strings that any file contains, except for the server's own log, which has client ids."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "broker.log"]
    return {needle for needle in needles if any(needle in data for data in files)}


async def test_metrics_count_the_outcomes_of_messages(tmp_path: Path) -> None:
    """Every second the translator reports the numbers of translated, ignored and rejected messages, with reasons."""
    async with open_broker(tmp_path) as broker, adapters(broker):
        client = await internal_client(broker)
        reports = await client.subscribe("metrics.adapters.w1")
        async with aiomqtt.Client("127.0.0.1", broker.config.mqtt_port) as device:
            for payload in (LOCATION, LOCATION, b'{"_type":"steps"}', b"{"):
                await device.publish("owntracks/a/b", payload, qos=1)
            await device.publish("car-iotp", b'{"lat":1,"lon":2}', qos=1)
        report: dict[str, Any] = {"rejected": {"iotp": {}}}
        while not report["rejected"]["iotp"]:
            report = msgspec.json.decode((await reports.next_msg(timeout=60)).data)
        await client.close()
    assert report == {
        "worker": "w1",
        "translated": {"owntracks": 2, "iotp": 0},
        "ignored": {"owntracks": {"steps": 1}, "iotp": {}},
        "rejected": {"owntracks": {"not_json": 1}, "iotp": {"no_id": 1}},
        "running": {},
    }


async def test_messages_received_during_an_outage_are_translated_later(tmp_path: Path) -> None:
    """Messages that arrive before the start, and after a stop, are translated once, in order."""
    async with (
        open_broker(tmp_path) as broker,
        aiomqtt.Client("127.0.0.1", broker.config.mqtt_port) as sender,
    ):
        client = await internal_client(broker)
        for round_ in range(2):
            for tst in range(50):
                payload = LOCATION.replace(b"1700000000", str(100 * round_ + tst).encode())
                await sender.publish("owntracks/a/b", payload, qos=1)
            async with adapters(broker):
                found = await next_in_log(client, 50 * (round_ + 1))
        times = [msgspec.json.decode(payload, type=Fix).tst for _, payload in found]
        assert times == [*range(50), *range(100, 150)]
        await client.close()


async def test_it_goes_on_after_the_broker_was_killed(tmp_path: Path) -> None:
    """The translator reconnects to a killed and restarted broker, and translates later messages."""

    async def scenario() -> list[tuple[str, bytes]]:
        async with open_broker(tmp_path) as broker, adapters(broker):
            await mosquitto(broker, "owntracks/a/before", LOCATION, "-q", "1")
            client = await internal_client(broker, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
            await next_in_log(client, 1)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            await until(lambda: broker.restarts, "a restart")
            await mosquitto(broker, "owntracks/a/after", LOCATION, "-q", "1")
            found = await next_in_log(client, 2)
            await client.close()
            return found

    assert len({subject for subject, _ in (await scenario())}) == 2


async def test_a_missing_stream_is_reported(tmp_path: Path) -> None:
    """A broker without the stream FOREIGN is a LogError, not an endless wait."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        await client.jetstream().delete_stream(FOREIGN_STREAM)
        with pytest.raises(LogError, match="FOREIGN"):
            await translator.run(endpoint_of(broker), "ul", asyncio.Event(), secret=broker.config.password)
        await client.close()


@given(st.lists(st.text(st.characters(exclude_characters="/+#\0 ")), min_size=1, max_size=4))
def test_topics_come_back_from_subjects(levels: list[str]) -> None:
    """A subject is converted back to its topic, including dots and empty levels."""
    subject = ".".join(level.replace(".", "//") or "/" for level in levels)
    assert translator.topic_of(subject) == "/".join(levels)
