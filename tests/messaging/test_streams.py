"""The streams of the log: made, brought up to date, bounded, each with its own behaviour."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from headcount.broker.core import Broker
from headcount.broker.nats_config import Limits
from headcount.errors import LogError
from headcount.messages.topics import FOREIGN_SUBJECTS
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import request
from headcount.messaging.qos1 import with_stored
from headcount.messaging.streams import (
    LOG_AGE_S,
    MAX_DEVICE_MESSAGE_BYTES,
    MAX_MQTT_CONSUMERS,
    MQTT_STREAMS,
    SNAPSHOT_BUCKET,
    StreamSizes,
    ensure_streams,
    stream_configs,
)
from nats_fixture import internal_client, open_broker
from waiting import log_loop_errors, until


@asynccontextmanager
async def log_of(data: Path, **changes: Any) -> AsyncIterator[tuple[Broker, Client]]:
    """A broker with its streams, and a client with all rights."""
    async with open_broker(data, **changes) as broker:
        client = await internal_client(broker)
        try:
            yield broker, client
        finally:
            await client.close()


async def config(client: Client, stream: str) -> dict[str, Any]:
    """A stream's configuration as the server has it."""
    answer: dict[str, Any] = (await request(Connection(client), f"STREAM.INFO.{stream}"))["config"]
    return answer


async def messages(client: Client, stream: str) -> int:
    """How many messages a stream holds."""
    return int((await request(Connection(client), f"STREAM.INFO.{stream}"))["state"]["messages"])


async def test_all_streams_are_there(tmp_path: Path) -> None:
    """A new folder gets each stream with its subjects, ages and limits."""
    async with log_of(tmp_path, partitions=3) as (_, client):
        names = set((await request(Connection(client), "STREAM.NAMES"))["streams"])
        assert {"FIX_0", "FIX_1", "FIX_2", "COUNT", "EVENT", "HISTORY", "FOREIGN"} <= names
        assert {"KV_SNAPSHOT", "KV_LEASE"} <= names
        assert "FIX_3" not in names
        for partition in range(3):
            fix = await config(client, f"FIX_{partition}")
            assert fix["subjects"] == [f"fix.{partition}.>", f"$MQTT.msgs.fix.{partition}.>"]
            assert fix["max_age"] == LOG_AGE_S * 10**9
        for name in names:
            stream = await config(client, name)
            assert stream["max_bytes"] > 0, f"{name} has no limit"
        assert (await config(client, "COUNT"))["storage"] == "memory"
        assert (await config(client, "FOREIGN"))["subjects"] == with_stored(FOREIGN_SUBJECTS)


async def test_once_more_changes_nothing(tmp_path: Path) -> None:
    """Making the streams again keeps their messages and sends the server no update."""
    async with log_of(tmp_path) as (_, client):
        await client.jetstream().publish("history.1", b"kept")
        changes = await client.subscribe("$JS.API.STREAM.>")
        before = [await config(client, name) for name in ("FIX_0", "EVENT", "HISTORY")]
        store_bytes = await _store_bytes(client)
        for _ in range(3):
            await ensure_streams(Connection(client), 4, store_bytes=store_bytes)
        assert await messages(client, "HISTORY") == 1
        assert [await config(client, name) for name in ("FIX_0", "EVENT", "HISTORY")] == before
        await client.flush()
        asked = {(await changes.next_msg()).subject.split(".")[3] for _ in range(changes.pending_msgs)}
        # Only the broker's own regular check purges; no other part requests anything here.
        assert {"NAMES", "INFO"} <= asked <= {"NAMES", "INFO", "PURGE"}


async def _store_bytes(client: Client) -> int:
    """The disk budget with which the streams were made, from one of its shares."""
    wanted = (await config(client, "HISTORY"))["max_bytes"]
    budget = int(wanted / 0.2)
    while StreamSizes.within(budget).history < wanted or StreamSizes.within(budget).fix % 4:
        budget += 1
    return budget


async def test_an_older_stream_is_brought_up_to_date(tmp_path: Path) -> None:
    """A stream of an earlier release gets today's limits and keeps its messages."""
    async with log_of(tmp_path) as (_, client):
        old = await config(client, "EVENT")
        await client.jetstream().publish("event.ul.library", b"kept")
        await request(
            Connection(client),
            "STREAM.UPDATE.EVENT",
            old | {"max_age": 10**12, "duplicate_window": 10**11},
        )
        await ensure_streams(Connection(client), 4)
        new = await config(client, "EVENT")
        assert (new["max_age"], new["duplicate_window"]) == (LOG_AGE_S * 10**9, LOG_AGE_S * 10**9)
        assert new["republish"] == old["republish"]
        assert await messages(client, "EVENT") == 1


async def test_a_half_made_log_is_completed(tmp_path: Path) -> None:
    """Where a start was interrupted between two streams, the next one makes the rest."""
    async with log_of(tmp_path) as (_, client):
        for name in ("FIX_2", "FIX_3", "HISTORY"):
            await request(Connection(client), f"STREAM.DELETE.{name}")
        await client.jetstream().delete_key_value(SNAPSHOT_BUCKET)
        await ensure_streams(Connection(client), 4)
        assert {"FIX_2", "FIX_3", "HISTORY", "KV_SNAPSHOT"} <= set(
            (await request(Connection(client), "STREAM.NAMES"))["streams"]
        )


@pytest.mark.parametrize("partitions", [1, 3, 5, 64])
async def test_another_number_of_partitions_is_refused(tmp_path: Path, partitions: int) -> None:
    """A log made with 4 partitions is not opened with another number; the error names both ways out."""
    async with log_of(tmp_path) as (_, client):
        with pytest.raises(LogError) as info:
            await ensure_streams(Connection(client), partitions)
        assert "--partitions 4" in str(info.value)
        assert "jetstream" in str(info.value)
        assert len(await _fix_streams(client)) == 4


async def _fix_streams(client: Client) -> list[str]:
    names = (await request(Connection(client), "STREAM.NAMES"))["streams"]
    return [name for name in names if name.startswith("FIX_")]


async def test_a_smaller_disk_forgets_nothing(tmp_path: Path) -> None:
    """A limit never goes below what a stream holds already."""
    async with log_of(tmp_path) as (_, client):
        for _ in range(100):
            await client.jetstream().publish("history.0", b"x" * 50_000)
        await ensure_streams(Connection(client), 4, store_bytes=1 << 20)
        assert await messages(client, "HISTORY") == 100
        assert (await config(client, "HISTORY"))["max_bytes"] >= 100 * 50_000


def test_shares_fit_into_the_disk() -> None:
    """The limits of all streams on disk together stay within the budget."""
    for budget in (1 << 30, 16 << 30, 123_456_789_012):
        sizes = StreamSizes.within(budget)
        streams = stream_configs(16, sizes)
        stored = sum(stream["max_bytes"] for stream in streams if stream["storage"] == "file")
        assert stored <= budget


@pytest.mark.parametrize("subject", ["fix.0.ul.person.d", "car-iotp"])
async def test_a_message_that_is_too_large_hurts_nothing(tmp_path: Path, subject: str) -> None:
    """A message that is too large is refused with the limit's name and not stored; the next one is stored."""
    async with log_of(tmp_path, partitions=1) as (_, client):
        jetstream = client.jetstream()
        with pytest.raises(APIError, match="size"):
            await jetstream.publish(subject, b"x" * (MAX_DEVICE_MESSAGE_BYTES + 1))
        ack = await jetstream.publish(subject, b"x" * 60_000)
        assert ack.seq == 1


async def test_count_keeps_the_newest_of_each_partition(tmp_path: Path) -> None:
    """A late reader gets one message per partition, the last one."""
    async with log_of(tmp_path) as (_, client):
        jetstream = client.jetstream()
        for number in range(10):
            for partition in range(4):
                await jetstream.publish(f"count.{partition}.ul", str(number).encode())
        assert await messages(client, "COUNT") == 4
        newest = await jetstream.get_last_msg("COUNT", "count.2.ul")
        assert newest.data == b"9"


async def test_an_event_is_stored_once_even_over_a_crash(tmp_path: Path) -> None:
    """The server knows an event's id again after kill -9: a replayed stretch repeats none."""
    async with log_of(tmp_path) as (broker, client):
        header = {"Nats-Msg-Id": "enter-1"}
        first = await client.jetstream().publish("event.ul.library", b"1", headers=header)
        assert not first.duplicate
        old = broker.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        again = await until_acknowledged(client, "event.ul.library", header)
        assert (again.duplicate, again.seq) == (True, first.seq)
        assert await messages(client, "EVENT") == 1


async def until_acknowledged(client: Client, subject: str, header: dict[str, str]) -> Any:
    """Publish until the server, which has just been killed, answers."""

    async def acknowledgement() -> Any:
        with suppress(nats.errors.Error, OSError):
            return await client.jetstream().publish(subject, b"1", headers=header, timeout=1)
        return None

    return await until(acknowledgement, f"an acknowledgement on {subject}", every_s=0.05)


async def test_snapshots_can_be_kept(tmp_path: Path) -> None:
    """A state of some megabytes can be stored and read, by compare-and-set."""
    async with log_of(tmp_path) as (_, client):
        jetstream = client.jetstream()
        states = await jetstream.key_value(SNAPSHOT_BUCKET)
        state = os.urandom(5_000_000)
        revision = await states.create("p0", b"first")
        newer = await states.update("p0", state, last=revision)
        with pytest.raises(APIError):
            await states.update("p0", b"other", last=revision)
        found = await states.get("p0")
        assert (found.revision, found.value) == (newer, state)


async def test_what_the_server_keeps_for_mqtt_is_not_on_disk(tmp_path: Path) -> None:
    """Its streams have limits and are in memory, also where clients hurry in while it is started again."""
    log_loop_errors()

    async def hurry(broker: Broker) -> None:
        while True:
            with suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1", broker.config.mqtt_port, identifier="Zaphod", clean_session=False
                ) as client:
                    await client.subscribe("headcount/ul/person/Zaphod/cmd", qos=1)
                    await client.publish("headcount/ul/person/Zaphod/ack", b"ok", qos=2)
            await asyncio.sleep(0.005)  # a pause between attempts

    async with log_of(tmp_path) as (broker, client):
        await _mqtt_is_in_memory(client)
        hurrying = asyncio.create_task(hurry(broker))
        await asyncio.sleep(0.5)  # clients hurry in before the kill
        old = broker.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await until(lambda: broker.restarts and broker.ready, "a restart")
        await asyncio.sleep(0.5)  # and after the restart
        hurrying.cancel()
    async with log_of(tmp_path) as (_, client):
        await _mqtt_is_in_memory(client)
    assert not about_mqtt(tmp_path)


def about_mqtt(folder: Path) -> list[Path]:
    """Files of the server's MQTT side, or with the name of a client; its own log is another matter."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "broker.log"]
    return [path for path in files if "MQTT" in str(path) or b"Zaphod" in path.read_bytes()]


async def _mqtt_is_in_memory(client: Client) -> None:
    for wanted in MQTT_STREAMS:
        present = await config(client, wanted["name"])
        assert {key: present[key] for key in wanted} == wanted


async def test_what_an_earlier_release_kept_for_mqtt_is_removed(tmp_path: Path) -> None:
    """Sessions on the disk, with the ids of clients, are gone after the next start."""
    async with log_of(tmp_path) as (_, client):
        for wanted in MQTT_STREAMS:
            await request(Connection(client), f"STREAM.DELETE.{wanted['name']}")
            await request(Connection(client), f"STREAM.CREATE.{wanted['name']}", wanted | {"storage": "file"})
        await client.jetstream().publish("$MQTT.sess.x", b"Zaphod")
    async with log_of(tmp_path) as (_, client):
        await _mqtt_is_in_memory(client)
        assert not about_mqtt(tmp_path)


async def test_a_stream_of_an_earlier_release_gets_its_number_of_consumers(tmp_path: Path) -> None:
    """A stream with the server's default of 1,000 consumers is updated at the next start."""
    async with log_of(tmp_path) as (_, client):
        (wanted,) = [each for each in MQTT_STREAMS if each["name"] == "$MQTT_msgs"]
        before = {name: value for name, value in wanted.items() if name != "max_consumers"}
        await request(Connection(client), "STREAM.DELETE.$MQTT_msgs")
        await request(Connection(client), "STREAM.CREATE.$MQTT_msgs", before)
        assert (await config(client, "$MQTT_msgs"))["max_consumers"] == -1
        await ensure_streams(Connection(client), 4)
        assert (await config(client, "$MQTT_msgs"))["max_consumers"] == MAX_MQTT_CONSUMERS
        assert 4 * Limits().max_connections <= MAX_MQTT_CONSUMERS


async def test_a_refusal_is_an_error_with_the_servers_words(tmp_path: Path) -> None:
    """The LogError contains the server's description of a refused request."""
    async with log_of(tmp_path) as (_, client):
        with pytest.raises(LogError, match="stream not found"):
            await request(Connection(client), "STREAM.INFO.NOTHING")
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info("NOTHING")


async def test_a_server_without_answers_is_an_error(tmp_path: Path) -> None:
    """A connection that can't reach JetStream gives a LogError that names the broker."""
    async with log_of(tmp_path) as (_, client):
        await client.close()
        with pytest.raises(LogError, match="Is the broker running"):
            await ensure_streams(Connection(client), 4)
