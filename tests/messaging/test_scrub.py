"""Replaced values that are still on the disk are found, and nothing else is touched."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headcount.messaging import secure_delete
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from nats_fixture import internal_client, open_broker
from waiting import until


def everything_in(folder: Path) -> bytes:
    """The bytes of all files."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_what_was_left_of_a_rewrite_is_overwritten(tmp_path: Path) -> None:
    """Values that were replaced without being overwritten are gone from the disk; the newest ones stay."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            bucket = KvBucket(Connection(client), DEVICE_BUCKET)
            for number in range(1500):
                await bucket.put(f"device.d{number}", b"kept-%d" % number)
            assert await secure_delete.overwrite_replaced(Connection(client), DEVICE_BUCKET) == 0
            revision = await bucket.replace("device.killed", b"First-Zaphod", 0)
            assert revision
            assert await bucket.replace("device.killed", b"Second-Trillian", revision)
            await bucket.put("device.d7", b"kept-anew")
            assert await secure_delete.overwrite_replaced(Connection(client), DEVICE_BUCKET) == 2
            entries = await bucket.newest()
            assert len(entries) == 1501
            assert entries["device.killed"].value == b"Second-Trillian"
            assert entries["device.d7"].value == b"kept-anew"
            await until(lambda: b"Second-Trillian" in everything_in(tmp_path), "blocks are synchronised")
            await until(lambda: b"First-Zaphod" not in everything_in(tmp_path), "it is overwritten")
            stop = asyncio.Event()
            keeping = asyncio.create_task(secure_delete.scrub(Connection(client), [DEVICE_BUCKET], stop))
            stop.set()
            await asyncio.wait_for(keeping, 120)
            await client.close()

    await run()
