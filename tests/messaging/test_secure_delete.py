"""A value that is erased from a bucket is not on the disk any more."""

from __future__ import annotations

from pathlib import Path

from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from nats_fixture import internal_client, open_broker
from waiting import until

SECRETS = (b"first-Zaphod", b"second-Trillian", b"third-Marvin")


async def test_what_was_rewritten_or_erased_is_nowhere_on_disk(tmp_path: Path) -> None:
    """Replaced values are overwritten, an erased key leaves neither values nor its own name."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            bucket = KvBucket(Connection(client), DEVICE_BUCKET)
            revision = await bucket.replace("device.ford7prefect", SECRETS[0], 0)
            kept = await bucket.replace("device.other", b"stays-Arthur", 0)
            assert revision
            assert kept
            for secret in SECRETS[1:]:
                revision = await bucket.rewrite("device.ford7prefect", secret, revision)
                assert revision
            await until(lambda: scan(tmp_path, *SECRETS, b"stays-Arthur") == {SECRETS[2], b"stays-Arthur"})
            assert await bucket.erase("device.ford7prefect") == 1
            assert set(await bucket.newest()) == {"device.other"}
            await until(
                lambda: scan(tmp_path, *SECRETS, b"ford7prefect", b"stays-Arthur") == {b"stays-Arthur"}
            )
            await client.close()

    await run()


def scan(folder: Path, *needles: bytes) -> set[bytes]:
    """Which of these bytes are in any file."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {needle for needle in needles if any(needle in data for data in files)}
