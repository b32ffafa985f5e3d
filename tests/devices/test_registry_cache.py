"""The registry's copy in memory, beside a real registry."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec

from headcount.devices.device_filter import DeviceFilter
from headcount.devices.registry import Registry, new_handle
from headcount.devices.registry_cache import RegistryCache
from headcount.messages.records import Device, LastSeen
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET, SEEN_BUCKET
from headcount.runtime.tasks import cancel_all
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import until


async def test_the_copy_follows_the_registry(tmp_path: Path) -> None:
    """Existing devices and all later changes, connections and erasures are in the copy; hashes are not."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            watching = await internal_client(broker)
            seen = KvBucket(Connection(client), SEEN_BUCKET)
            registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD, seen)
            first, _ = await registry.add("ul", "person", label="First", aliases=["iotp/1"])
            await seen.put(first.id, msgspec.json.encode(LastSeen(1.0, False, "a")))
            copy = RegistryCache()
            running = asyncio.create_task(copy.run(Connection(watching)))
            await asyncio.wait_for(copy.ready.wait(), 120)
            kept = copy.get(first.id)
            assert kept is not None
            assert (kept.label, kept.secret) == ("First", "")
            assert copy.by_alias("iotp/1") == first.id
            assert copy.list(DeviceFilter("ul")).seen == {first.id: LastSeen(1.0, False, "a")}
            second, _ = await registry.add("ul", "vehicle", label="Second")
            await until(lambda: len(copy) == 2)
            await registry.change(first.id, aliases=["iotp/2"])
            await until(lambda: copy.by_alias("iotp/2") == first.id)
            assert copy.by_alias("iotp/1") is None
            assert [each.id for each in copy.list(DeviceFilter("ul")).devices] == sorted(
                [first.id, second.id]
            )
            await seen.put(second.id, msgspec.json.encode(LastSeen(2.0, True, "b")))
            await until(lambda: second.id in copy.seen)
            await registry.remove(first.id)
            await registry.forget(first.id)
            await until(lambda: len(copy) == 1)
            assert copy.by_alias("iotp/2") is None
            await cancel_all({running})
            await client.close()
            await watching.close()

    await run()


async def test_after_a_lost_connection_it_catches_up(tmp_path: Path) -> None:
    """Changes during an outage are in the copy once it is connected again."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            first, second = await internal_client(broker), await internal_client(broker)
            registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD)
            gone, _ = await registry.add("ul", "person")
            watching = Connection(first)
            copy = RegistryCache()
            running = asyncio.create_task(copy.run(watching))
            await until(lambda: len(copy) == 1)
            await first.close()
            added, _ = await registry.add("ul", "person")
            await registry.forget(gone.id)
            await watching.replace_client(second)
            await until(lambda: copy.get(added.id) is not None and copy.get(gone.id) is None)
            await cancel_all({running})
            await client.close()
            await second.close()

    await run()


def test_pages_of_the_copy_are_those_of_all_devices() -> None:
    """After any puts and drops, the copy returns the same pages as a sorted list of the devices."""
    chance = random.Random(5)
    copy, plain = RegistryCache(), dict[str, Device]()
    for _ in range(600):
        if plain and chance.random() < 0.3:
            id_ = chance.choice(list(plain))
            copy.drop(id_)
            del plain[id_]
        else:
            id_ = chance.choice(list(plain)) if plain and chance.random() < 0.2 else new_handle()
            site, label = chance.choice(["ul", "x"]), chance.choice(["Ann", "Bob"])
            plain[id_] = Device(id=id_, site=site, kind="person", label=label)
            copy.put(msgspec.structs.replace(plain[id_]))
    everything = [plain[id_] for id_ in sorted(plain)]
    after = ""
    while True:
        wanted = DeviceFilter("ul", text="ann", after=after, limit=7)
        found = copy.list(wanted)
        assert found == wanted.page(everything, {})
        after = found.after
        if not after:
            break
