"""The pseudonym keys with a real server: shared, created ahead of time, destroyed on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headcount.devices.pseudonym_keys import KEY_RETENTION_S, PseudonymKeys, is_expired
from headcount.devices.pseudonyms import Pseudonyms
from headcount.messages.times import DAY_S
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DAYKEY_BUCKET
from nats_fixture import internal_client, open_broker
from waiting import until

Scenario = Callable[[list[PseudonymKeys], KvBucket], Awaitable[None]]


async def _with_users(folder: Path, scenario: Scenario) -> None:
    """Run a scenario with three users of the keys, each with its own connection, and the bucket."""
    async with open_broker(folder) as broker:
        clients = [await internal_client(broker) for _ in range(3)]
        users = [PseudonymKeys(Connection(client)) for client in clients]
        await scenario(users, KvBucket(Connection(clients[0]), DAYKEY_BUCKET))
        for client in clients:
            await client.close()


def _on_disk(folder: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_all_users_have_the_same_keys(tmp_path: Path) -> None:
    """The first user of a day creates its key; concurrent users get the same one."""

    async def scenario(users: list[PseudonymKeys], bucket: KvBucket) -> None:
        today = int(await bucket.now_s() // DAY_S)
        days = [today - 1, today, today + 1]
        await asyncio.gather(*(each.ensure(days) for each in users))
        assert users[0].keys == users[1].keys == users[2].keys
        assert sorted(users[0].keys) == days
        assert {len(key) for key in users[0].keys.values()} == {32}
        assert len(set(users[0].keys.values())) == 3
        before = dict(users[0].keys)
        await users[1].rotate(await bucket.now_s())
        await users[2].load()
        assert users[2].keys == before
        names = await users[2].pseudonyms_of("campus", "person", "a")
        assert names == {day: Pseudonyms(before).on("campus").of(b"person.a", day) for day in days}

    await _with_users(tmp_path, scenario)


async def test_tomorrows_key_exists_today(tmp_path: Path) -> None:
    """At its start the task creates today's and tomorrow's keys, and it stops on request."""

    async def scenario(users: list[PseudonymKeys], bucket: KvBucket) -> None:
        stop = asyncio.Event()
        loop = asyncio.create_task(users[0].run(stop))

        async def are_created() -> bool:
            return len(await bucket.newest()) >= 2

        await until(are_created, "both keys")
        today = int(await bucket.now_s() // DAY_S)
        stop.set()
        await loop
        assert {f"day.{today}", f"day.{today + 1}"} <= set(await bucket.newest())

    await _with_users(tmp_path, scenario)


async def test_an_expired_key_is_destroyed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """26 hours after its day a key is on no disk and in no memory that was refreshed; it is not created again or logged."""
    caplog.set_level(logging.INFO)

    async def scenario(users: list[PseudonymKeys], bucket: KvBucket) -> None:
        user, other, _ = users
        today = int(await bucket.now_s() // DAY_S)
        await user.ensure([today])
        await other.load()
        key = user.keys[today]
        await until(lambda: _on_disk(tmp_path, key), "blocks are synchronised")
        end_s = (today + 1) * DAY_S + KEY_RETENTION_S
        await user.rotate(end_s)
        assert user.keys[today] == key
        await user.rotate(end_s + 1)
        assert today not in user.keys
        await until(lambda: not _on_disk(tmp_path, key), "it is overwritten")
        await other.load()
        assert sorted(other.keys) == [today + 2, today + 3]
        logged = caplog.text
        assert "destroyed the pseudonym key" in logged
        assert key.hex() not in logged
        assert repr(key) not in logged

    await _with_users(tmp_path, scenario)


async def test_an_expired_day_gets_no_key(tmp_path: Path) -> None:
    """An expired day gets no key, and its pseudonyms are random and private."""

    async def scenario(users: list[PseudonymKeys], bucket: KvBucket) -> None:
        now_s = await bucket.now_s()
        old = int(now_s // DAY_S) - 7
        assert is_expired(old, now_s)
        await users[0].ensure([old])
        assert users[0].keys == {}
        assert await bucket.newest() == {}
        one, other = (Pseudonyms(each.keys).on("campus") for each in users[:2])
        assert not one.knows(old)
        assert one.of(b"person.a", old) == one.of(b"person.a", old) != other.of(b"person.a", old)
        assert "day" not in repr(users[0]).removeprefix("PseudonymKeys")

    await _with_users(tmp_path, scenario)
