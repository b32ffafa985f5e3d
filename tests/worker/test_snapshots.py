"""Saved states that are larger than a message, with a real NATS server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import FixColumns
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import SnapshotConflictError
from headcount.lab.figures.bench_fixes import campus, degrees, side
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import SNAPSHOT_BUCKET
from headcount.worker.snapshots import CHUNK_BYTES, Snapshots
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import BUSY_S, until

DEVICES = 250_000
NOW_S = 1_790_000_000.0
SITE = campus(20, seed=1)
#: The day's key, so that the engine that continues knows the same pseudonyms.
PSEUDONYMS = Pseudonyms({int(NOW_S // 86_400): b"k" * 32})
NAMES = PSEUDONYMS.on("s")
#: Saves a state, and stops before the chunk or the write that is named.
SAVE = """
import asyncio, sys
import nats
from headcount.messaging.connection import Connection
from headcount.worker.snapshots import Snapshots

async def main(url, password, state, revision, stop):
    client = await nats.connect(url, user="headcount", password=password)
    snapshots = Snapshots(Connection(client))
    bucket, chunks = snapshots._bucket, []
    put = bucket.put
    async def stopping_put(key, value):
        chunks.append(key)
        if len(chunks) == int(stop):
            print("stopped", flush=True)
            await asyncio.sleep(600)
        return await put(key, value)

    async def stopping_replace(key, value, revision):
        print("stopped", flush=True)
        await asyncio.sleep(600)
    bucket.put, bucket.replace = stopping_put, stopping_replace
    await snapshots.save(0, 1, open(state, "rb").read(), int(revision))

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class Store:
    """A broker with its snapshots."""

    data: Path
    url: str
    connection: Connection
    snapshots: Snapshots

    async def chunks(self) -> list[str]:
        """The keys of all chunks."""
        return await KvBucket(self.connection, SNAPSHOT_BUCKET).keys("p0.>")

    def on_disk(self, text: bytes) -> bool:
        """Whether any file of the broker contains it."""
        return any(text in path.read_bytes() for path in self.data.rglob("*") if path.is_file())


@asynccontextmanager
async def store(data: Path) -> AsyncIterator[Store]:
    """A broker without snapshots."""
    async with open_broker(data) as broker:
        client = await internal_client(broker)
        connection = Connection(client)
        yield Store(data, broker.url, connection, Snapshots(connection))
        await client.close()


def state_of(seq: int, seed: int) -> tuple[bytes, bytes]:
    """A state of several chunks that can't be compressed, and a part of its last chunk."""
    data = Random(seed).randbytes(2 * CHUNK_BYTES + 100_000)
    return msgspec.msgpack.encode([seq, data]), data[-5000:-4900]


def crowd() -> Engine:
    """An engine with the last positions of all devices."""
    engine, rng = Engine(SITE, names=NAMES), np.random.default_rng(1)
    slots = engine.slots([b"person.device%06d" % number for number in range(DEVICES)])
    half_m = side(20) / 2
    lat_deg, lon_deg = degrees(*rng.uniform(-half_m, half_m, (2, DEVICES)))
    t_s = NOW_S - rng.uniform(0, 60, DEVICES)
    acc_m = rng.uniform(1, 20, DEVICES)
    what = np.zeros(DEVICES, dtype=np.uint8)
    engine.step(FixColumns(what, np.full(DEVICES, NOW_S), t_s, lat_deg, lon_deg, acc_m), slots)
    return engine


async def killed_while_saving(store: Store, file: Path, revision: int, stop: int) -> None:
    """Save the state in a file by another process, and kill it before it writes chunk `stop` or the head."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SAVE, store.url, PASSWORD, str(file), str(revision), str(stop)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), BUSY_S) == b"stopped\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()


@pytest.mark.parametrize("stop", [2, 99], ids=["between two chunks", "before the state names its chunks"])
async def test_a_worker_killed_while_saving_leaves_the_last_state(tmp_path: Path, stop: int) -> None:
    """250 000 devices in one partition survive a kill in the middle of a save; the half-written state is erased."""
    engine = await asyncio.to_thread(crowd)
    engine.advance(NOW_S)
    counts = engine.counts(NOW_S)
    state = msgspec.msgpack.encode([1, engine.snapshot()])
    newer, part = state_of(2, seed=2)
    (tmp_path / "newer").write_bytes(newer)
    async with store(tmp_path / "broker") as saved:
        revision = await saved.snapshots.save(0, 1, state, 0)
        before = await saved.chunks()
        assert len(before) > 1
        await killed_while_saving(saved, tmp_path / "newer", revision, stop)
        assert len(await saved.chunks()) > len(before)

        found = await Snapshots(saved.connection).load(0)
        assert (found.epoch, found.revision, await saved.snapshots.saved_seq(0)) == (1, revision, 1)
        assert found.state is not None
        restored = Engine.restore(SITE, msgspec.msgpack.decode(found.state)[1], names=NAMES)
        restored.advance(NOW_S)
        assert (restored.counts(NOW_S) == counts).all()
        assert counts[0, 0, 0] > 0.9 * DEVICES

        await Snapshots(saved.connection).save(0, 2, state, revision)
        assert len(await saved.chunks()) == len(before)
        assert not set(await saved.chunks()) & set(before)
        await until(lambda: not saved.on_disk(part), "the half-written state is overwritten")


async def test_a_replaced_state_is_overwritten(tmp_path: Path) -> None:
    """Each save removes the chunks of the one before from the disk; a small state leaves none."""
    first, part = state_of(1, seed=1)
    second, other_part = state_of(2, seed=2)
    async with store(tmp_path) as saved:
        revision = await saved.snapshots.save(0, 1, first, 0)
        await until(lambda: saved.on_disk(part), "the first state is on disk")
        revision = await saved.snapshots.save(0, 1, second, revision)
        await until(lambda: saved.on_disk(other_part), "the second state is on disk")
        await until(lambda: not saved.on_disk(part), "the first state is overwritten")
        found = await saved.snapshots.load(0)
        assert (found.state, found.revision) == (second, revision)
        await saved.snapshots.save(0, 1, msgspec.msgpack.encode([3, b"small"]), revision)
        assert await saved.chunks() == []
        await until(lambda: not saved.on_disk(other_part), "the second state is overwritten")


async def test_a_former_owner_saves_nothing(tmp_path: Path) -> None:
    """A worker that another one has replaced can't save, and leaves no chunks."""
    async with store(tmp_path) as saved:
        revision = await saved.snapshots.save(0, 1, state_of(1, seed=1)[0], 0)
        newest, _ = state_of(2, seed=2)
        await Snapshots(saved.connection).save(0, 2, newest, revision)
        chunks = await saved.chunks()
        late, part = state_of(3, seed=3)
        with pytest.raises(SnapshotConflictError):
            await saved.snapshots.save(0, 1, late, revision)
        assert await saved.chunks() == chunks
        assert (await saved.snapshots.load(0)).state == newest
        await until(lambda: not saved.on_disk(part), "what the former owner wrote is overwritten")


async def test_an_erasure_removes_what_a_kill_left(tmp_path: Path) -> None:
    """An erasure overwrites chunks of an interrupted save, but not those of a save that is in progress."""
    left, part = state_of(1, seed=1)
    (tmp_path / "left").write_bytes(left)
    async with store(tmp_path / "broker") as saved:
        await killed_while_saving(saved, tmp_path / "left", 0, 3)
        await saved.snapshots.erase_replaced(0)
        chunks = await saved.chunks()
        assert len(chunks) == 2
        # a worker that has just started knows of no earlier state, and its first one needs no chunks
        saved.snapshots._clean.add(0)
        await saved.snapshots.save(0, 2, msgspec.msgpack.encode([2, b""]), 0)
        bucket = KvBucket(saved.connection, SNAPSHOT_BUCKET)
        await bucket.put("p0.3-now.0", b"a save in progress")
        assert len(await saved.chunks()) == 3
        await saved.snapshots.erase_replaced(0)
        assert await saved.chunks() == ["p0.3-now.0"]
        await until(lambda: not saved.on_disk(part), "it is overwritten")


async def test_a_lost_chunk_makes_a_state_unusable(tmp_path: Path) -> None:
    """A state without one of its chunks counts as none, and can be replaced."""
    async with store(tmp_path) as saved:
        revision = await saved.snapshots.save(0, 1, state_of(1, seed=1)[0], 0)
        await KvBucket(saved.connection, SNAPSHOT_BUCKET).erase((await saved.chunks())[1])
        found = await saved.snapshots.load(0)
        assert (found.state, found.revision) == (None, revision)
        state, _ = state_of(2, seed=2)
        await saved.snapshots.save(0, 2, state, found.revision)
        assert (await saved.snapshots.load(0)).state == state
