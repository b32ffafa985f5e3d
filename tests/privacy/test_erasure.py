"""Erasure and pauses, with a real broker, worker and writer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.aio.msg import Msg

from disk_scan import scan, store_of
from headcount.access.audit_log import AuditLog
from headcount.cli.main import main
from headcount.counting.site_file import parse_site
from headcount.devices.commands import CommandStore
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.history import writer
from headcount.history.hours import folder
from headcount.history.objects import FolderStore
from headcount.messages.counts import decode_counts
from headcount.messages.fixes import encode_fix
from headcount.messages.records import Device
from headcount.messages.topics import COUNT_SUBJECTS, INTERNAL
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import BAN_BUCKET, COMMAND_BUCKET, DEVICE_BUCKET
from headcount.privacy import erasure
from headcount.runtime.tasks import cancel_all
from headcount.services.actors import COMMAND_LINE
from headcount.services.container import Services
from headcount.worker import loops as counting
from headcount.worker.snapshots import Snapshots
from history_batches import stored_counts, stored_fixes
from nats_fixture import PASSWORD, internal_client, open_broker
from small_site import small_site
from waiting import until

SITE = small_site()


class _Deployment:
    """A broker with a worker and a writer, and their counts."""

    def __init__(self, client: Client, partitions: int, data: Path, port: int) -> None:
        self.client = client
        self.log = client.jetstream()
        self.partitions = partitions
        self.data = data
        self.port = port
        self.registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD)
        self.counts: dict[tuple[str, int], int] = {}

    async def receive(self, message: Msg) -> None:
        for counts in decode_counts(message.data):
            self.counts[counts.site, counts.partition] = memoryview(counts.values).cast("i")[0]

    @property
    def people(self) -> int:
        return sum(self.counts.values())

    async def fix(self, device: Device) -> None:
        subject = f"headcount.{device.site}.{device.kind}.{device.id}.fix"
        payload = encode_fix(time.time(), SITE.lat0_deg, SITE.lon0_deg, acc=3)
        await self.log.publish(subject, payload)

    async def until_people(self, number: int) -> None:
        await until(lambda: self.people == number, f"{number} people")

    async def command(self, *words: str) -> str:
        """The output of a command on this deployment."""
        secret = self.data / "secret"
        await asyncio.to_thread(secret.write_text, PASSWORD)
        core = ("--secret-file", str(secret), "--nats-port", str(self.port))
        ended = await asyncio.to_thread(CliRunner().invoke, main, [*words, *core])
        assert ended.exit_code == 0, ended.output
        return ended.output

    def erasure(self) -> erasure.Erasure:
        services = Services(Connection(self.client), PASSWORD)
        return erasure.Erasure(services, self.partitions, Snapshots(Connection(self.client)))


@asynccontextmanager
async def deployment(data: Path) -> AsyncIterator[_Deployment]:
    """Everything that an erasure needs."""
    async with open_broker(data / "broker", partitions=2) as broker:
        client = await internal_client(broker)
        found = _Deployment(client, 2, data, broker.config.nats_port)
        await client.subscribe(COUNT_SUBJECTS, cb=found.receive)
        core = Endpoint((("127.0.0.1", broker.config.nats_port),), INTERNAL, PASSWORD)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as roles:
            roles.create_task(counting.run(counting.WorkerSettings(SITE, core, [], 2), stop))
            roles.create_task(
                writer.run(Connection(client), FolderStore(folder(data)), stop=stop, flush_s=0.5)
            )
            try:
                yield found
            finally:
                stop.set()
        await client.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No device has a connection to close."""
    monkeypatch.setattr(erasure, "DISCONNECT_S", 0.2)
    monkeypatch.setattr(erasure, "RETRY_INTERVAL_S", 0.3)


@pytest.mark.slow
async def test_an_interrupted_erasure_is_completed(tmp_path: Path) -> None:
    """However often an erasure is killed, in the end nothing of the device is stored, and everything of the other."""
    rng = Random(5)

    async def check() -> tuple[list[bytes], str]:
        async with deployment(tmp_path) as here:
            (gone, _), (stays, _) = [await here.registry.add(SITE.id, "person") for _ in range(2)]
            for _ in range(5):
                await here.fix(gone)
                await here.fix(stays)
                await asyncio.sleep(0.3)  # so that snapshots and segments fall in between
            await here.until_people(2)
            await KvBucket(Connection(here.client), BAN_BUCKET).put(f"device.{gone.id}", b"{}")
            commands = CommandStore(KvBucket(Connection(here.client), COMMAND_BUCKET))
            await commands.add(SITE.id, "person", gone.id, "report", now_s=time.time())
            names = await PseudonymKeys(Connection(here.client)).pseudonyms_of(SITE.id, "person", gone.id)
            await here.registry.remove(gone.id)
            kills = 0
            async with asyncio.timeout(500):
                while await here.registry.get(gone.id):
                    running = asyncio.create_task(here.erasure().run(asyncio.Event()))
                    await asyncio.sleep(rng.uniform(0.2, 0.6) if kills < 6 else 3 * (kills - 5))
                    await cancel_all({running})
                    kills += 1
            assert kills > 1
            assert not await KvBucket(Connection(here.client), BAN_BUCKET).newest()
            await here.until_people(1)
        forms = [form for name in names.values() for form in (name.encode(), bytes.fromhex(name))]
        return [gone.id.encode(), *forms], stays.id

    needles, other = await check()
    hits = scan(tmp_path, {str(i): needle for i, needle in enumerate(needles)} | {"other": other.encode()})
    assert {store_of(place) for place in hits.pop("other")} >= {f"KV_{DEVICE_BUCKET}"}
    assert not any(hits.values()), hits


async def test_a_paused_device_leaves_the_counts_and_returns(tmp_path: Path) -> None:
    """A pause takes effect immediately, for that device alone, and ends when its time is over."""
    async with deployment(tmp_path) as here:
        (pauses, _), (stays, _) = [await here.registry.add(SITE.id, "person") for _ in range(2)]
        for device in (pauses, stays):
            await here.fix(device)
        await here.until_people(2)
        stop = asyncio.Event()
        running = asyncio.create_task(here.erasure().run(stop))
        await here.registry.pause(pauses.id, time.time() + 3600)
        await here.until_people(1)
        await here.registry.pause(pauses.id, time.time())

        async def is_active() -> bool:
            now = await here.registry.get(pauses.id)
            return now is not None and now.status == "active"

        await until(is_active, "the pause is over")
        await here.fix(pauses)
        await here.until_people(2)
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_removed_site_is_erased_from_the_history(tmp_path: Path) -> None:
    """Once its last rows are stored, all of them are erased, and those of the other site stay."""
    boundary, *zones = SITE.geojson["features"]
    own = {**boundary, "properties": {**boundary["properties"], "id": "north"}}
    other = parse_site({**SITE.geojson, "features": [own, *zones]}, "north")
    async with deployment(tmp_path) as here:
        connection = Connection(here.client)
        sites = Services(connection, PASSWORD).sites
        devices = [(await here.registry.add(site, "person"))[0] for site in (SITE.id, other.id)]
        await here.fix(devices[0])
        await here.until_people(1)
        await sites.add(COMMAND_LINE, other)

        async def both_are_stored() -> bool:
            for device in devices:
                await here.fix(device)
            return bool(stored_fixes(tmp_path, SITE.id) and stored_fixes(tmp_path, other.id))

        await until(both_are_stored, "fixes of both sites are in the history", every_s=0.5)

        async def keep_publishing() -> None:
            while True:
                await both_are_stored()
                await asyncio.sleep(0.2)  # also after the site is removed

        publishing = asyncio.create_task(keep_publishing())
        removed = await here.command("site", "remove", other.id, "--erase", "--yes")
        assert re.fullmatch(
            r"Site north is counted until .*\nErased [1-9]\d* rows of its history.\n", removed
        )
        await cancel_all({publishing})
        again = await here.command("site", "remove", other.id, "--erase")
        assert again == "Erased 0 rows of its history.\n"
    assert stored_fixes(tmp_path, SITE.id)
    assert not stored_fixes(tmp_path, other.id)
    assert not stored_counts(tmp_path, other.id)


async def test_a_site_is_erased_while_nothing_is_sent(tmp_path: Path) -> None:
    """Erasing a site has the workers save their states, which they seldom do without fixes."""
    async with deployment(tmp_path) as here:
        device, _ = await here.registry.add(SITE.id, "person")
        await here.fix(device)
        await here.until_people(1)
        connection = Connection(here.client)
        states = Snapshots(connection)

        async def is_stored() -> bool:
            return bool(stored_fixes(tmp_path, SITE.id))

        await until(is_stored, "the fix is in the history")
        for least in (1, 0):  # the counts of a site that is not removed go on
            assert (await erasure.erase_site(connection, SITE.id, time.time() - 1, states)).rows >= least
            assert not stored_fixes(tmp_path, SITE.id)


async def test_rows_under_a_legal_hold_are_reported(tmp_path: Path) -> None:
    """An erasure takes held rows out of every answer, keeps them, and records their number; so is the hold."""
    async with deployment(tmp_path) as here:
        connection = Connection(here.client)
        log = AuditLog(connection, PASSWORD)
        device, _ = await here.registry.add(SITE.id, "person")
        await here.fix(device)
        await here.until_people(1)
        await until(lambda: stored_fixes(tmp_path, SITE.id), "the fix is stored")
        span = ("--from", str(time.time() - 3600), "--to", str(time.time() + 3600))
        where = ("--history", str(folder(tmp_path)))
        hold = ("retention", "hold")
        placed = await here.command(*hold, "add", "--reason", "case 12", *span, *where)
        names = await PseudonymKeys(connection).pseudonyms_of(SITE.id, "person", device.id)
        await here.registry.remove(device.id)
        removed = await here.registry.get(device.id)
        assert removed is not None
        assert (await here.erasure().erase(removed)).held >= 1
        assert not [row for _, row in stored_fixes(tmp_path, SITE.id) if row.device in names.values()]
        (listed,) = (await here.command(*hold, "list", "--json", *where)).splitlines()
        found = msgspec.json.decode(listed)
        assert found["rows"] >= 1
        id_ = found["hold"]["id"]
        assert placed == f"{id_} is placed.\n"
        await here.command(*hold, "release", id_, "--reason", "closed", *where)
        assert await here.command(*hold, "list", "--json", *where) == ""
        entries, _ = await log.entries()
        by_action = {entry.action: entry.detail for entry in entries}
        assert int(by_action["device.erased"]["held"] or 0) >= 1
        assert by_action["hold.add"]["reason"] == "case 12"
        assert by_action["hold.release"]["reason"] == "closed"
