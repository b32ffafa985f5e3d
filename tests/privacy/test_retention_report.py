"""The report on the age of stored data."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from nats.aio.client import Client

from headcount.history.catalog import Catalog
from headcount.history.hours import folder
from headcount.history.objects import FolderStore
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import request
from headcount.messaging.secure_delete import erase
from headcount.messaging.stream_files import first_record_s
from headcount.messaging.streams import LOG_AGE_S
from headcount.privacy.retention_report import SLACK_S, StoreAge, store_ages
from headcount.settings.retention_periods import DEFAULT_PERIODS
from history_batches import batch, random_rows, segment_files, write
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import until

HOUR_S = 3600


async def ages(client: Client, data: Path, now_s: float) -> list[StoreAge]:
    """The report with the default periods."""
    catalog = Catalog(FolderStore(folder(data)))
    return await store_ages(Connection(client), data, catalog, DEFAULT_PERIODS, now_s)


def of(found: list[StoreAge], store: str) -> StoreAge:
    """The report on one store."""
    return next(row for row in found if row.store == store)


async def test_each_store_is_judged_by_its_oldest_row(tmp_path: Path) -> None:
    """With a later clock, exactly the data that should have been removed by then is reported as too old."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        log = client.jetstream()
        began_s = time.time()
        await log.publish("fix.0.ul.person.a", b"{}")
        await log.publish("event.ul.library", b"{}")
        await log.publish("owntracks.a.b", b"{}")
        found = await ages(client, tmp_path, time.time())
        assert all(row.kept for row in found)
        for store in ("log of fixes", "events", "other formats"):
            age_s = of(found, store).age_s
            assert age_s is not None
            assert age_s <= time.time() - began_s + 1
        assert of(found, "commands").age_s is None
        later = await ages(client, tmp_path, time.time() + LOG_AGE_S + SLACK_S + 5)
        assert {row.store for row in later if not row.kept} == {
            "log of fixes",
            "events",
            "other formats",
        }
        await client.close()


async def test_the_logs_hour_is_enforced(tmp_path: Path) -> None:
    """Each stream of fixes has a maximum age of one hour, and the server enforces a stream's maximum age."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        for partition in range(broker.config.partitions):
            config = (await request(Connection(client), f"STREAM.INFO.FIX_{partition}"))["config"]
            assert config["max_age"] == HOUR_S * 10**9
        short = config | {"max_age": 10**9, "duplicate_window": 10**8}
        await client.jetstream().publish(f"fix.{partition}.ul.person.a", b"{}")
        connection = Connection(client)

        async def age_s() -> float | None:
            return of(await ages(client, tmp_path, time.time()), "log of fixes").age_s

        assert await age_s() is not None
        await request(connection, f"STREAM.UPDATE.{config['name']}", short)

        async def is_empty() -> bool:
            return await age_s() is None

        await until(is_empty, "the log is empty", every_s=0.2)
        await client.close()


async def test_the_row_counts_and_not_the_folders_name(tmp_path: Path) -> None:
    """A row of last week in a folder of this hour is reported, and the command exits with 1."""
    start_s = time.time() // HOUR_S * HOUR_S - 7 * 24 * HOUR_S
    rows = random_rows(random.Random(1), 20, start=start_s)
    write(tmp_path, batch(0, rows[:15]), batch(0, rows[15:], site="north"))
    [segment] = segment_files(tmp_path, "fixes")
    today = time.strftime("hour=%Y-%m-%dT%H", time.gmtime())
    manifest = tmp_path / "history" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(segment.parent.name, today))
    segment.parent.rename(segment.parent.with_name(today))
    (tmp_path / "secret").write_text(PASSWORD)

    async def check() -> tuple[list[StoreAge], int, str]:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            found = await ages(client, tmp_path, time.time())
            await client.close()
            port = str(broker.config.nats_port)
            command = [sys.executable, "-m", "headcount", "retention", "report", "--json"]
            ended = await asyncio.to_thread(
                subprocess.run,
                [*command, "--data", str(tmp_path), "--nats-port", port],
                capture_output=True,
                text=True,
                check=False,
                env={key: value for key, value in os.environ.items() if not key.startswith("HEADCOUNT_")},
            )
            return found, ended.returncode, ended.stdout

    found, code, output = await check()
    row = of(found, "history: fixes")
    assert row.age_s is not None
    assert row.age_s > 6.9 * 24 * HOUR_S
    assert row.note == "1 segments; 5 rows of north; 15 rows of ul"
    assert not row.kept
    assert code == 1
    reported = [msgspec.json.decode(line) for line in output.splitlines()]
    assert [one["store"] for one in reported if not one["kept"]] == ["history: fixes"]


async def test_overwritten_records_of_a_file_are_skipped(tmp_path: Path) -> None:
    """The time of a file of the log is that of its first message that is not overwritten."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        log = client.jetstream()
        stamps = []
        for _ in range(3):
            ack = await log.publish("fix.0.ul.person.a", b"{}")
            stamps.append((await log.get_msg(ack.stream, ack.seq)).time)
            await asyncio.sleep(0.1)  # so that the stamps differ
        assert stamps[0] is not None
        assert stamps[1] is not None
        first_s, second_s = stamps[0].timestamp(), stamps[1].timestamp()

        def begins_with(stamp_s: float) -> bool:
            [block] = tmp_path.rglob(f"{ack.stream}/msgs/*.blk")
            return abs((first_record_s(block) or 0) - stamp_s) < 1e-3

        await until(lambda: begins_with(first_s), "the block is synchronised")
        await erase(Connection(client), ack.stream, [1])
        await until(lambda: begins_with(second_s), "the first record is overwritten")
        await client.close()
