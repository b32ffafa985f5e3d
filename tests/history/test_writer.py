"""From the HISTORY stream into segments, over a real broker that is killed, and a writer that is."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client

from headcount.broker.core import Broker
from headcount.errors import DataFolderError
from headcount.history import intake as module
from headcount.history.catalog import Catalog
from headcount.history.hours import folder, hour_name
from headcount.history.intake import HistoryWriterStats
from headcount.history.members import Members
from headcount.history.objects import FolderStore, ObjectStore
from headcount.history.reader import scan
from headcount.history.retention import KEEP_S
from headcount.history.row_erasure import ErasedRows, erase_rows
from headcount.history.writer import run
from headcount.messages.counts import Event
from headcount.messages.history import EraseReply, EraseRequest, HistoryBatch
from headcount.messages.reports import HistoryReport
from headcount.messages.topics import (
    EVENT_STREAM,
    HISTORY_ERASE_SUBJECT,
    HISTORY_STREAM,
    HISTORY_SUBJECT,
    INTERNAL,
)
from headcount.messaging.connection import Connection
from headcount.runtime.tasks import cancel_all
from history_batches import (
    T0,
    Row,
    batch,
    pseudonym,
    random_rows,
    segment_files,
    stored_counts,
    stored_fixes,
    values,
    write,
)
from nats_fixture import internal_client, open_broker
from waiting import until

FAST_S = 0.05
PROGRAM = Path(__file__).resolve().parents[1] / "history_process.py"


async def publish(client: Client, *batches: HistoryBatch, pause_s: float = 0.0) -> None:
    """Send batches as a worker does; when this returns, the stream has them."""
    jetstream = client.jetstream()
    for one in batches:
        subject = HISTORY_SUBJECT.format(partition=one.partition)
        await asyncio.sleep(pause_s)  # spreads the batches over a time

        async def stored(subject: str = subject, one: HistoryBatch = one) -> bool:
            # A publish that timed out may have been stored: then it is one more repeat.
            with suppress(nats.errors.Error, TimeoutError):
                await jetstream.publish(subject, msgspec.msgpack.encode(one), timeout=2)
                return True
            return False

        await until(stored, f"a batch on {subject}", every_s=0.2)


async def until_stored(client: Client) -> None:
    """Wait until all rows are stored: then they have left the stream."""

    async def is_done() -> bool:
        with suppress(nats.errors.Error, TimeoutError):
            return not (await client.jetstream().stream_info(HISTORY_STREAM)).state.messages
        return False

    await until(is_done, "all batches are stored")


def objects(place: Path | ObjectStore) -> ObjectStore:
    """The store itself, or that of a data folder."""
    return FolderStore(folder(place)) if isinstance(place, Path) else place


@asynccontextmanager
async def writing(
    broker: Broker,
    place: Path | ObjectStore,
    flush_s: float = FAST_S,
    clock: Callable[[], float] = lambda: T0,
) -> AsyncIterator[tuple[Client, HistoryWriterStats]]:
    """A writer beside the test; it is stopped, and its errors are raised, at the end."""
    client = await internal_client(broker, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    stop, stats = asyncio.Event(), HistoryWriterStats()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                run(Connection(client), objects(place), stop=stop, flush_s=flush_s, clock=clock, stats=stats)
            )
            yield client, stats
            stop.set()
    finally:
        await client.close()


def sent(seed: int, partitions: int = 4, n: int = 300) -> tuple[list[list[Row]], list[HistoryBatch]]:
    """Rows over three hours, and the batches that carry them: repeats, overlaps, partitions interleaved."""
    rng = random.Random(seed)
    rows = [random_rows(rng, n, span_s=3 * 3600) for _ in range(partitions)]
    instants = [T0 + 10 * i for i in range(60)]
    queues: list[list[HistoryBatch]] = []
    for partition, all_rows in enumerate(rows):
        queue: list[HistoryBatch] = []
        at = told = 0
        while at < n or told < len(instants):
            stop, tell = at + rng.randrange(1, 20), told + rng.randrange(4)
            back = rng.randrange(10)
            part = all_rows[max(0, at - back) : stop]
            counts = [(t, values(2, partition)) for t in instants[max(0, told - back) : tell]]
            queue.append(batch(partition, part, counts, partitions=partitions))
            if rng.random() < 0.2:
                queue += queue[-rng.randrange(1, 4) :]
            at, told = stop, tell
        queues.append(queue)
    order = []
    while any(queues):
        order.append(rng.choice([queue for queue in queues if queue]).pop(0))
    return rows, order


def assert_all_once(data: Path | ObjectStore, rows: Sequence[Sequence[Row]]) -> None:
    """Each row of each partition, and each of the 60 instants, is in the segments exactly once."""
    everything = [(partition, row) for partition, part in enumerate(rows) for row in part]
    assert stored_fixes(data) == everything
    first = sum(range(len(rows)))
    site = [first + i * len(rows) for i in range(8)]
    counts = stored_counts(data)
    assert sorted({at for at, _ in counts}) == [T0 + 10 * i for i in range(60)]
    assert {tuple(numbers) for (_, zone), (numbers, _, _) in counts.items() if zone == "site"} == {
        tuple(site)
    }
    assert {(n, total) for _, n, total in counts.values()} == {(len(rows), len(rows))}


async def test_batches_become_segments_and_leave_the_stream(tmp_path: Path) -> None:
    """A published row is on disk, once, before it leaves the stream; a stop stores the rest."""
    rows, batches = sent(1)
    async with open_broker(tmp_path / "broker") as broker:
        async with writing(broker, tmp_path) as (client, stats):
            await publish(client, *batches)
            await until_stored(client)
            assert_all_once(tmp_path, rows)
            assert stats.fixes == sum(len(part) for part in rows)
            assert stats.repeated > 0
        async with writing(broker, tmp_path, flush_s=3600) as (client, stats):
            late = [replace(row, seq=row.seq + 10_000) for row in rows[0]]
            again = late[:10]
            await publish(client, batch(0, again, partitions=4), batch(0, late, partitions=4))
            await until(lambda: stats.repeated)
            assert_all_once(tmp_path, rows)
        assert len(stored_fixes(tmp_path)) == 4 * 300 + 300
        client = await internal_client(broker)
        await until_stored(client)
        await client.close()


async def test_a_batch_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Rubbish in the stream is counted, acknowledged, and stops nothing."""
    rows = random_rows(random.Random(1), 10)
    async with open_broker(tmp_path / "broker") as broker, writing(broker, tmp_path) as (client, stats):
        jetstream = client.jetstream()
        await jetstream.publish("history.0", b"\xc1 rubbish")
        await jetstream.publish("history.0", msgspec.msgpack.encode(batch(9, rows, partitions=4)))
        await publish(client, batch(0, rows, partitions=4))
        await until_stored(client)
        assert stats.refused == 2
        assert [row for _, row in stored_fixes(tmp_path)] == rows


async def test_a_stream_that_is_created_again_is_read_from_its_start(tmp_path: Path) -> None:
    """Sequences start again: rows that come again are recognised by their site's mark, new ones are stored."""
    rows, batches = sent(2, n=50)
    half = len(batches) // 2
    async with open_broker(tmp_path / "broker") as broker, writing(broker, tmp_path) as (client, _):
        await publish(client, *batches[:half])
        await until_stored(client)
        jetstream = client.jetstream()
        config = (await jetstream.stream_info(HISTORY_STREAM)).config
        await jetstream.delete_stream(HISTORY_STREAM)
        await asyncio.sleep(0.2)  # it is created later, while the writer waits
        await jetstream.add_stream(config)
        await publish(client, *batches[half // 2 :])
        await until_stored(client)
        assert_all_once(tmp_path, rows)


async def test_full_memory_is_flushed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows or many messages start a flush before its time."""
    monkeypatch.setattr(module, "FLUSH_ROWS", 100)
    monkeypatch.setattr(module, "FLUSH_MESSAGES", 50)
    rows, batches = sent(3, n=100)
    async with open_broker(tmp_path / "broker") as broker:
        async with writing(broker, tmp_path, flush_s=3600) as (client, stats):
            await publish(client, *batches)
            await until(lambda: stats.flushes >= 2)
        async with writing(broker, tmp_path) as (client, _):
            await until_stored(client)
        assert_all_once(tmp_path, rows)


async def test_a_flush_that_fails_loses_nothing(tmp_path: Path) -> None:
    """Where the disk refuses, the role ends with the reason, and the next one stores every row."""
    hour = tmp_path / "history" / "fixes" / hour_name(T0)

    rows = random_rows(random.Random(1), 50)

    async def fail(broker: Broker) -> None:
        async with writing(broker, tmp_path) as (client, _):
            await publish(client, batch(rows=rows))
            await asyncio.Event().wait()

    async with open_broker(tmp_path / "broker") as broker:
        hour.parent.mkdir(parents=True)
        hour.write_text("in the way")
        with pytest.raises(ExceptionGroup) as caught:
            await fail(broker)
        assert caught.group_contains(DataFolderError, match=hour_name(T0))
        hour.unlink()
        async with writing(broker, tmp_path) as (client, _):
            await until_stored(client)
    assert [row for _, row in stored_fixes(tmp_path)] == rows


async def test_expired_hours_are_dropped_at_the_start(tmp_path: Path) -> None:
    """A writer that starts a day later drops what has expired in the meantime."""
    write(tmp_path, batch(rows=random_rows(random.Random(1), 10)))
    async with (
        open_broker(tmp_path / "broker") as broker,
        writing(broker, tmp_path, clock=lambda: T0 + 3600 + KEEP_S) as (_, stats),
    ):
        await until(lambda: stats.upkeep.expired == 10)
    assert segment_files(tmp_path, "fixes") == []


async def test_a_killed_broker_costs_no_row(tmp_path: Path) -> None:
    """The broker is killed (-9) again and again: each row is stored once when it is back."""
    rows, batches = sent(5)
    async with open_broker(tmp_path / "broker") as broker, writing(broker, tmp_path) as (client, _):
        third = len(batches) // 3
        for part in (batches[:third], batches[third : 2 * third], batches[2 * third :]):
            sending = asyncio.create_task(publish(client, *part))
            await asyncio.sleep(0.15)  # a kill in the middle
            before = broker.restarts
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            await sending
            await until(lambda n=before: broker.restarts > n)  # type: ignore[misc]
        await until_stored(client)
        assert_all_once(tmp_path, rows)


@asynccontextmanager
async def writer_process(broker: Broker, store: ObjectStore) -> AsyncIterator[asyncio.subprocess.Process]:
    """The writer as a process, connected; killed (-9) at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), broker.url, INTERNAL, broker.config.password),
        *(store.url, "0.01", str(T0)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.slow
async def test_killed_writers_cost_no_row(tmp_path: Path, store: ObjectStore) -> None:
    """Of two writers, one after the other is killed (-9) at a random moment: each row is stored exactly once."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows, batches = sent(seed)
    async with open_broker(tmp_path / "broker") as broker:
        client = await internal_client(broker)
        size = len(batches) // 4 + 1

        async def kill_and_start_again() -> None:
            while True:
                async with writer_process(broker, store):
                    await asyncio.sleep(0.1 + rng.random())

        killing = [asyncio.create_task(kill_and_start_again()) for _ in range(2)]
        for start in range(0, len(batches), size):
            # Something is being stored at all times, so that kills hit commits.
            await publish(client, *batches[start : start + size], pause_s=2.0 / size)
        await cancel_all(killing)
        async with writing(broker, store):
            await until_stored(client)
        await client.close()
    assert_all_once(store, rows)


async def test_two_writers_store_each_row_once(tmp_path: Path, store: ObjectStore) -> None:
    """Two writers divide the partitions; when one ends, the other has all of them."""
    rows, batches = sent(7)
    half = len(batches) // 2
    async with open_broker(tmp_path / "broker") as broker, writing(broker, store) as (client, one):
        reports = await client.subscribe("metrics.history.*")
        await until(lambda: one.share, "the share of the only writer")
        whole = one.share
        async with writing(broker, store) as (_, other):
            await until(lambda: other.share and one.share + other.share == whole, "a share for each")
            assert abs(one.share - other.share) <= 1
            await publish(client, *batches[:half])
            await until(lambda: one.fixes and other.fixes, "both have stored rows")
            seen: set[str] = set()
            while len(seen) < 2:
                report = msgspec.json.decode((await reports.next_msg(30)).data, type=HistoryReport)
                if report.rows["fixes"] and report.segments:
                    seen.add(report.writer)
        await publish(client, *batches[half:])
        await until_stored(client)
    assert_all_once(store, rows)
    assert one.fixes + other.fixes == sum(map(len, rows))


async def test_writers_that_claim_the_same_partitions_store_each_row_once(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where heartbeats fail, both writers read everything, and the marks decide which of them stores it."""
    monkeypatch.setattr(Members, "share", everything)
    rows, batches = sent(8)
    async with (
        open_broker(tmp_path / "broker") as broker,
        writing(broker, store, 0.01) as (client, one),
        writing(broker, store, 0.01) as (_, other),
    ):
        await until(lambda: one.share == other.share > 0, "a share for each")
        await publish(client, *batches, pause_s=0.05)
        await until_stored(client)
    assert_all_once(store, rows)
    assert one.fixes + other.fixes == sum(map(len, rows))
    assert one.overtaken + other.overtaken


async def everything(self: Members) -> set[int]:
    """The share of a writer that knows no other."""
    return set(self._items)


async def test_what_is_written_is_not_in_the_stream_any_more(tmp_path: Path) -> None:
    """Rows are in one place: once they are in a segment, the stream's files hold none of them."""
    rows, batches = sent(5, n=50)
    async with open_broker(tmp_path / "broker") as broker, writing(broker, tmp_path) as (client, _):
        await publish(client, *batches)
        await until_stored(client)
        await until(lambda: not in_files(tmp_path / "broker", bytes.fromhex(rows[0][0].device)))
    assert_all_once(tmp_path, rows)


def in_files(folder: Path, needle: bytes) -> bool:
    """Whether any file below holds these bytes."""
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def publish_events(client: Client, devices: Sequence[str], again: int = 0) -> None:
    """Store an event of each device in the stream, `again` with another message id."""
    for number, device in enumerate(devices):
        event = Event(f"{number:024x}", "ul", "site", "enter", "person", device, T0 + number, "moved")
        headers = {"Nats-Msg-Id": f"{again}-{event.id}"}
        await client.jetstream().publish("event.ul.site", msgspec.json.encode(event), headers=headers)


def stored_events(data: Path) -> list[dict[str, object]]:
    """All stored events, by time."""
    store = objects(data)
    columns = ["t", "site", "zone", "device", "kind", "type", "reason", "id"]
    table = scan(store, Catalog(store).manifest(), "events", columns=columns)
    return sorted(table.to_pylist(), key=lambda event: event["id"])


async def test_events_are_stored_once(tmp_path: Path) -> None:
    """Events come back as they were; one that comes again, also in a new stream, is stored once."""
    devices = [pseudonym(number) for number in range(10)]
    async with open_broker(tmp_path / "broker") as broker, writing(broker, tmp_path) as (client, stats):
        await publish_events(client, devices[:6])
        await until(lambda: stats.events == 6)
        await publish_events(client, devices[:8], again=1)
        await until(lambda: stats.events == 8)
        jetstream = client.jetstream()
        config = (await jetstream.stream_info(EVENT_STREAM)).config
        await jetstream.delete_stream(EVENT_STREAM)
        await jetstream.add_stream(config)
        await publish_events(client, devices, again=2)
        await until(lambda: stats.events == 10)
    found = stored_events(tmp_path)
    assert [event["device"] for event in found] == devices
    assert {key: value for key, value in found[1].items() if key not in ("t", "device")} == {
        "site": "ul",
        "zone": "site",
        "kind": "person",
        "type": "enter",
        "reason": "moved",
        "id": f"{1:024x}",
    }


async def ask_to_erase(client: Client, names: Sequence[str] = (), site: str = "") -> EraseReply:
    """The writer's answer to a request to erase pseudonyms or a site."""
    body = msgspec.json.encode(EraseRequest(list(names), site))
    answer = await client.request(HISTORY_ERASE_SUBJECT, body, timeout=30)
    return msgspec.json.decode(answer.data, type=EraseReply)


async def test_erased_pseudonyms_are_nowhere(tmp_path: Path) -> None:
    """After the answer of one of two writers, no row or event of the pseudonyms is anywhere; all others are."""
    rows, batches = sent(6, n=100)
    gone = {row.device for row in rows[1][:3]}
    async with open_broker(tmp_path / "broker") as broker:
        async with (
            writing(broker, tmp_path, flush_s=30) as (client, one),
            writing(broker, tmp_path, 30) as (_, other),
        ):
            await publish(client, *batches)
            await publish_events(client, [*sorted(gone), rows[0][0].device])
            answer = await ask_to_erase(client, sorted(gone))
            assert (answer.error, answer.rows) == ("", one.erased + other.erased)
            assert (await ask_to_erase(client, sorted(gone))).rows == 0
            assert (await ask_to_erase(client, ["nobody"])).error
        kept = [[row for row in part if row.device not in gone] for part in rows]
        assert_all_once(tmp_path, kept)
        assert answer.rows == sum(map(len, rows)) - sum(map(len, kept)) + len(gone)
        assert [event["device"] for event in stored_events(tmp_path)] == [rows[0][0].device]
        await client_purged(broker)
    needles = [form for name in gone for form in (name.encode(), bytes.fromhex(name))]
    removed = {each.name for each in Catalog(objects(tmp_path)).manifest().removed}
    Catalog(objects(tmp_path)).store.delete(removed)  # the upkeep's part, 5 minutes later
    assert not [needle for needle in needles if in_files(tmp_path, needle)]


async def client_purged(broker: Broker) -> None:
    """Remove the events from their stream, as an erasure does before it asks for the rows."""
    client = await internal_client(broker)
    await client.jetstream().purge_stream(EVENT_STREAM)
    await client.close()


async def test_an_erased_site_is_nowhere(tmp_path: Path) -> None:
    """All rows of a site are erased, those that wait included, and none of another; repeated, nothing is left."""
    rows, batches = sent(12, n=100)
    others = [replace(row, seq=row.seq + 10_000, device=pseudonym(row.seq + 10_000)) for row in rows[0]]
    complete = [batch(p, counts=[(T0, values(2, 1))], partitions=4, site="north") for p in range(4)]
    waiting = batch(0, others, [(T0 + 10, values(2, 1))], partitions=4, site="north")
    async with open_broker(tmp_path / "broker") as broker:
        async with writing(broker, tmp_path, flush_s=0.3) as (client, stats):
            await publish(client, *complete, *batches, waiting)
            erased = (await ask_to_erase(client, site="north")).rows
            assert erased == stats.erased >= len(others) + 4  # counts may be in several rows
            assert (await ask_to_erase(client, site="north")).rows == 0
            assert (await ask_to_erase(client, site="no site")).error
            assert (await ask_to_erase(client, [others[0].device], site="north")).error
        assert_all_once(tmp_path, rows)
    assert not stored_fixes(tmp_path, "north")
    assert not stored_counts(tmp_path, "north")
    assert not in_files(tmp_path, bytes.fromhex(others[0].device))


def test_a_segment_without_other_devices_is_removed(tmp_path: Path) -> None:
    """Where no row is left there is no file."""
    rows = random_rows(random.Random(8), 20)
    write(tmp_path, batch(0, rows))
    request = EraseRequest(sorted({row.device for row in rows}))
    assert erase_rows(Catalog(objects(tmp_path)), request, T0) == ErasedRows(20, 0)
    assert not segment_files(tmp_path, "fixes")
