"""The batch reader against a real NATS server."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from nats.aio.client import Client

import nats_fixture
from headcount.broker.core import Broker
from headcount.errors import LogError
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.log_reader import PULL, LogReader, open_reader
from waiting import until


def _endpoint(broker: Broker, password: str | None = None) -> Endpoint:
    return Endpoint((("127.0.0.1", broker.config.nats_port),), INTERNAL, password or broker.config.password)


async def _fill(client: Client, partition: int, start: int, count: int, payload: bytes = b"x") -> None:
    # four tokens: the broker's mapping of fixes would put them into their devices' partitions
    for number in range(start, start + count - 1):
        await client.publish(f"fix.{partition}.test.d{number}", payload)
    await client.jetstream().publish(f"fix.{partition}.test.d{start + count - 1}", payload)  # all are stored


async def _collect(reader: LogReader, count: int) -> dict[int, list[tuple[int, bytes, bytes]]]:
    found: dict[int, list[tuple[int, bytes, bytes]]] = {}
    total = 0
    async with asyncio.timeout(120):
        while total < count:
            for delivery in await reader.read():
                rows = zip(delivery.seq, delivery.subjects, delivery.payloads, strict=True)
                found.setdefault(delivery.partition, []).extend(rows)
                total += len(delivery.subjects)
    return found


async def test_everything_once_in_order_from_where_we_stopped(tmp_path: Path) -> None:
    """Each partition's messages come once, in order, from the sequence after the one named, and go on live."""
    async with nats_fixture.open_broker(tmp_path) as broker:
        client = await nats_fixture.internal_client(broker)
        n = 2 * PULL + 100
        await _fill(client, 0, 0, n)
        await _fill(client, 3, 0, 50, b"with\r\nCRLF and \r\n\r\n")
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            await reader.follow(0, 10)
            await reader.follow(3, 0)
            found = await _collect(reader, n - 10 + 50)
            assert [seq for seq, _, _ in found[0]] == list(range(11, n + 1))
            assert found[0][0][1] == b"fix.0.test.d10"
            assert {payload for _, _, payload in found[3]} == {b"with\r\nCRLF and \r\n\r\n"}
            await _fill(client, 0, n, 5)
            live = await _collect(reader, 5)
            assert [seq for seq, _, _ in live[0]] == list(range(n + 1, n + 6))
            await reader.leave(0)
            await _fill(client, 0, 0, 5)
            await _fill(client, 3, 0, 5)
            assert set(await _collect(reader, 5)) == {3}
        await client.close()


async def test_a_killed_server_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    """A reader raises an error when the server dies; a new one goes on after the last message read."""
    async with nats_fixture.open_broker(tmp_path) as broker:
        client = await nats_fixture.internal_client(broker)
        await _fill(client, 1, 0, 100)
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            await reader.follow(1, 0)
            await _collect(reader, 100)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            with pytest.raises(LogError, match=r"closed|lost"):
                await asyncio.wait_for(reader.read(), 120)
        await until(lambda: broker.restarts and client.is_connected, "a restart")
        await _fill(client, 1, 100, 7)
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            await reader.follow(1, 100)
            found = await _collect(reader, 7)
        assert [seq for seq, _, _ in found[1]] == list(range(101, 108))
        await client.close()


async def test_a_log_that_lost_its_end_is_read_from_there(tmp_path: Path) -> None:
    """Asked to go on after a sequence that the log doesn't have, the reader goes on after its last one."""
    async with nats_fixture.open_broker(tmp_path) as broker:
        client = await nats_fixture.internal_client(broker)
        await _fill(client, 2, 0, 5)
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            await reader.follow(2, 1_000)
            await _fill(client, 2, 5, 1)
            found = await _collect(reader, 1)
        assert [seq for seq, _, _ in found[2]] == [6]
        await client.close()


async def test_a_wrong_password_and_a_missing_stream_are_clear_errors(tmp_path: Path) -> None:
    """A wrong password and a missing partition are errors; neither contains the password."""
    async with nats_fixture.open_broker(tmp_path) as broker:
        client = await nats_fixture.internal_client(broker)
        with pytest.raises(LogError) as refused:
            async with open_reader(_endpoint(broker, "something wrong"), Connection(client)):
                pass
        assert "something wrong" not in str(refused.value)
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            with pytest.raises(LogError, match="FIX_99"):
                await reader.follow(99, 0)
        await client.close()


async def test_what_comes_when_waiting_ends_is_not_lost(tmp_path: Path) -> None:
    """Messages that arrive just as the time of a read is over come with a later one."""
    async with nats_fixture.open_broker(tmp_path) as broker:
        client = await nats_fixture.internal_client(broker)
        async with open_reader(_endpoint(broker), Connection(client)) as reader:
            await reader.follow(0, 0)
            found = 0
            for number in range(1500):
                await client.publish(f"fix.0.test.d{number}", b"x")
                await client.flush()
                found += sum(len(delivery.seq) for delivery in await reader.read(0.0002 * (number % 5)))
            async with asyncio.timeout(120):
                while found < 1500:
                    found += sum(len(delivery.seq) for delivery in await reader.read())
        assert found == 1500
        await client.close()
