"""The days' keys against a real server: the same for everybody, made ahead of time, destroyed on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headcount.counting.pseudonym_source import DAY_S
from headcount.devices.pseudonym_keys import KEY_RETENTION_S, PseudonymKeys, is_expired
from headcount.devices.pseudonyms import Pseudonyms
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import DAYKEY_BUCKET
from nats_fixture import internal_client, open_broker

Scenario = Callable[[list[PseudonymKeys], Bucket], Awaitable[None]]


def _with_keepers(folder: Path, scenario: Scenario) -> None:
    """Three who use keys over connections of their own, and the bucket itself."""

    async def play() -> None:
        async with open_broker(folder) as broker:
            clients = [await internal_client(broker) for _ in range(3)]
            keepers = [PseudonymKeys(client, client.jetstream(timeout=5)) for client in clients]
            await scenario(keepers, Bucket(clients[0], clients[0].jetstream(), DAYKEY_BUCKET))
            for client in clients:
                await client.close()

    asyncio.run(play())


def _on_disk(folder: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_everybody_has_the_same_keys(tmp_path: Path) -> None:
    """Whoever needs a day first makes its key; all who want it at the same moment have one and the same."""

    async def scenario(keepers: list[PseudonymKeys], bucket: Bucket) -> None:
        today = int(await bucket.now_s() // DAY_S)
        days = [today - 1, today, today + 1]
        await asyncio.gather(*(each.need(days) for each in keepers))
        assert keepers[0].keys == keepers[1].keys == keepers[2].keys
        assert sorted(keepers[0].keys) == days
        assert {len(key) for key in keepers[0].keys.values()} == {32}
        assert len(set(keepers[0].keys.values())) == 3
        before = dict(keepers[0].keys)
        await keepers[1].tend(await bucket.now_s())
        await keepers[2].load()
        assert keepers[2].keys == before
        names = await keepers[2].pseudonyms_of("person", "a")
        assert names == {day: Pseudonyms(before).of(b"person.a", day) for day in days}

    _with_keepers(tmp_path, scenario)


def test_tomorrows_key_is_there_today(tmp_path: Path) -> None:
    """The loop makes today's and tomorrow's at its start, and ends when it is told to."""

    async def scenario(keepers: list[PseudonymKeys], bucket: Bucket) -> None:
        stop = asyncio.Event()
        loop = asyncio.create_task(keepers[0].keep(stop))
        async with asyncio.timeout(10):
            while len(await bucket.newest()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        today = int(await bucket.now_s() // DAY_S)
        stop.set()
        await loop
        assert {f"day.{today}", f"day.{today + 1}"} <= set(await bucket.newest())

    _with_keepers(tmp_path, scenario)


def test_a_key_that_is_over_is_destroyed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """26 hours after its day it is on no disk and with nobody who looks; it isn't made again, and no log tells it."""
    caplog.set_level(logging.INFO)

    async def scenario(keepers: list[PseudonymKeys], bucket: Bucket) -> None:
        keeper, other, _ = keepers
        today = int(await bucket.now_s() // DAY_S)
        await keeper.need([today])
        await other.load()
        key = keeper.keys[today]
        await asyncio.sleep(1.2)
        assert _on_disk(tmp_path, key)
        end_s = (today + 1) * DAY_S + KEY_RETENTION_S
        await keeper.tend(end_s)
        assert keeper.keys[today] == key
        await keeper.tend(end_s + 1)
        assert today not in keeper.keys
        await asyncio.sleep(1.2)
        assert not _on_disk(tmp_path, key)
        await other.load()
        assert sorted(other.keys) == [today + 2, today + 3]
        said = caplog.text
        assert "is destroyed" in said
        assert key.hex() not in said
        assert repr(key) not in said

    _with_keepers(tmp_path, scenario)


def test_a_day_that_is_over_gets_no_key(tmp_path: Path) -> None:
    """Whoever needs a day of last week stays without its key, and names it at random, as nobody else does."""

    async def scenario(keepers: list[PseudonymKeys], bucket: Bucket) -> None:
        now_s = await bucket.now_s()
        old = int(now_s // DAY_S) - 7
        assert is_expired(old, now_s)
        await keepers[0].need([old])
        assert keepers[0].keys == {}
        assert await bucket.newest() == {}
        one, other = (Pseudonyms(each.keys) for each in keepers[:2])
        assert not one.knows(old)
        assert one.of(b"person.a", old) == one.of(b"person.a", old) != other.of(b"person.a", old)
        assert "day" not in repr(keepers[0]).removeprefix("DayKeys")

    _with_keepers(tmp_path, scenario)
