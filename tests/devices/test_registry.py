"""The device registry, with a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headcount.devices import credentials
from headcount.devices.device_fields import MAX_ALIASES, MAX_GROUPS, MAX_LABEL_CHARS
from headcount.devices.device_filter import MAX_PAGE_SIZE, DeviceFilter
from headcount.devices.registry import Registry, new_handle
from headcount.errors import DeviceError
from headcount.messages.records import ALIAS_KEY, DEVICE_KEY, Alias, Device, LastSeen
from headcount.messages.topics import HANDLE, KINDS
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET, SEEN_BUCKET
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import until


@asynccontextmanager
async def open_registry(folder: Path) -> AsyncIterator[tuple[Registry, KvBucket]]:
    """A registry with its own broker, and its bucket."""
    async with open_broker(folder) as broker:
        client = await internal_client(broker)
        bucket = KvBucket(Connection(client), DEVICE_BUCKET)
        yield Registry(bucket, PASSWORD, KvBucket(Connection(client), SEEN_BUCKET)), bucket
        await client.close()


def on_disk(folder: Path, *needles: bytes) -> set[bytes]:
    """Those of the byte strings that any file contains."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {needle for needle in needles if any(needle in data for data in files)}


async def test_a_device_is_registered_changed_and_rotated(tmp_path: Path) -> None:
    """The handle is random, the secret is returned once and stored as a hash, and rotation replaces it."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, bucket):
            device, secret = await registry.add("ul", "person", label="Ford Prefect", groups=("staff",))
            assert HANDLE.fullmatch(device.id)
            assert credentials.verify_secret(secret, device.secret)
            assert await registry.get(device.id) == device
            assert secret.encode() not in (await bucket.newest())[DEVICE_KEY.format(id=device.id)].value
            changed = await registry.change(device.id, label="Zaphod", gateway=True, firmware="1.2")
            assert (changed.label, changed.gateway, changed.groups) == ("Zaphod", True, ["staff"])
            assert changed.changed >= device.changed
            rotated, second = await registry.rotate(device.id)
            assert credentials.verify_secret(second, rotated.secret)
            assert not credentials.verify_secret(secret, rotated.secret)
            assert rotated.valid_from > device.created
            assert (await registry.change(device.id, status="disabled")).status == "disabled"
            paused = await registry.pause(device.id, 2e9)
            assert (paused.status, paused.resume) == ("paused", 2e9)
            enabled = await registry.enable(device.id)
            assert (enabled.status, enabled.resume) == ("active", None)

    await run()


async def test_replaced_and_removed_values_are_overwritten(tmp_path: Path) -> None:
    """Old labels, aliases and hashes are soon gone from the disk, and everything after `forget`."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, _):
            kept, _ = await registry.add("ul", "vehicle", label="Heart-of-Gold")
            device, _ = await registry.add(
                "ul", "person", label="First-Zaphod", aliases=["owntracks/zaphod/phone"]
            )
            hash_ = device.secret.encode()
            await registry.change(device.id, label="Second-Trillian", aliases=["iotp/trillian"])
            await registry.rotate(device.id)
            digest = registry.digest("owntracks/zaphod/phone").encode()
            gone = (b"First-Zaphod", b"owntracks/zaphod/phone", hash_, digest)
            await until(lambda: on_disk(tmp_path, *gone, b"Second-Trillian") == {b"Second-Trillian"})
            removed = await registry.remove(device.id)
            assert (removed.status, removed.label, removed.secret) == ("erasing", "", "")
            assert removed.aliases == ["iotp/trillian"]
            with pytest.raises(DeviceError, match="is not registered"):
                await registry.enable(device.id)
            await registry.forget(device.id)
            assert await registry.all() == {kept.id: kept}
            erased = (b"Second-Trillian", b"iotp/trillian", device.id.encode(), b"alias.")
            await until(lambda: on_disk(tmp_path, *erased, b"Heart-of-Gold") == {b"Heart-of-Gold"})

    await run()


async def test_an_alias_leads_to_one_device(tmp_path: Path) -> None:
    """An alias is rejected while another device has it, free once that device drops it, and its key reveals nothing."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, bucket):
            alias = "owntracks/arthur/phone"
            first, _ = await registry.add("ul", "person", aliases=[alias, "iotp/42"])
            assert await registry.by_alias(alias) == first.id
            assert await registry.by_alias("owntracks/arthur") is None
            assert not [key for key in await bucket.newest() if "arthur" in key]
            other, _ = await registry.add("ul", "person", aliases=["iotp/43"])
            with pytest.raises(DeviceError, match="leads to another device"):
                await registry.add("ul", "person", aliases=["iotp/44", alias])
            with pytest.raises(DeviceError, match="leads to another device"):
                await registry.change(other.id, aliases=["iotp/43", "iotp/44", alias])
            assert await registry.by_alias("iotp/44") is None
            await registry.change(first.id, aliases=["iotp/42"])
            assert await registry.by_alias(alias) is None
            await registry.change(other.id, aliases=[alias])
            assert await registry.by_alias(alias) == other.id
            assert await registry.by_alias("iotp/43") is None

    await run()


async def test_an_alias_of_an_interrupted_change_is_taken_over(tmp_path: Path) -> None:
    """An alias key without a device can be claimed once it is too old to be an unfinished change."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, bucket):
            key = ALIAS_KEY.format(digest=registry.digest("iotp/7"))
            await bucket.replace(key, msgspec.json.encode(Alias(new_handle())), 0)
            with pytest.raises(DeviceError, match="leads to another device"):
                await registry.add("ul", "person", aliases=["iotp/7"])
            registry.unfinished_claim_s = 0.0
            device, _ = await registry.add("ul", "person", aliases=["iotp/7"])
            assert await registry.by_alias("iotp/7") == device.id

    await run()


async def test_concurrent_changes(tmp_path: Path) -> None:
    """Concurrent changes all take effect, and one of many claims gets an alias."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, _):
            device, _ = await registry.add("ul", "person")
            fields: list[dict[str, Any]] = [
                {"label": "L"},
                {"firmware": "F"},
                {"app": "A"},
                {"gateway": True},
            ]
            await asyncio.gather(*(registry.change(device.id, **each) for each in fields))
            after = await registry.get(device.id)
            assert after is not None
            assert (after.label, after.firmware, after.app, after.gateway) == ("L", "F", "A", True)
            tries = [registry.add("ul", "person", aliases=["iotp/1"]) for _ in range(6)]
            answers = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(answer, tuple) for answer in answers) == 1
            assert all(isinstance(answer, tuple | DeviceError) for answer in answers)
            assert len(await registry.all()) == 2

    await run()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"label": "x" * (MAX_LABEL_CHARS + 1)}, "101 characters"),
        ({"label": "a\nb"}, "not printable"),
        ({"label": "a\u202eb"}, "not printable"),
        ({"label": " a"}, "starts or ends"),
        ({"label": 7}, "Expected `str`"),
        ({"groups": [f"g{i}" for i in range(MAX_GROUPS + 1)]}, "the maximum"),
        ({"groups": ["a b"]}, "A-Z a-z"),
        ({"groups": ["a", "a"]}, "duplicate"),
        ({"aliases": [f"iotp/{i}" for i in range(MAX_ALIASES + 1)]}, "the maximum"),
        ({"aliases": [""]}, "empty"),
        ({"certificate": "AB"}, "SHA-256"),
        ({"status": "erasing"}, "Remove the device"),
        ({"status": "odd"}, "Invalid enum value"),
        ({"secret": "mine"}, "cannot be changed"),
        ({"id": "mine"}, "cannot be changed"),
    ],
)
async def test_invalid_fields_are_rejected(fields: dict[str, Any], problem: str) -> None:
    """Every field has a limit; the error names the field and the limit, and nothing is written."""

    async def run() -> None:
        registry = Registry(None, PASSWORD)  # type: ignore[arg-type]  # it is rejected before
        with pytest.raises(DeviceError, match=problem):
            await registry.add("ul", "person", **fields)

    await run()


async def test_pages_of_a_filtered_list(tmp_path: Path) -> None:
    """Pages follow each other without gap or repetition, each filter applies, and last seen is included."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            seen = KvBucket(Connection(client), SEEN_BUCKET)
            registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD, seen)
            for number in range(7):
                kind = KINDS[number % 2 == 0]
                await registry.add("ul", kind, label=f"Device {number}", groups=["odd"] if number % 2 else [])
            await registry.add("elsewhere", "person", label="Device 1")
            ids: list[str] = []
            after = ""
            while True:
                found = await registry.list(DeviceFilter("ul", after=after, limit=3))
                ids += [device.id for device in found.devices]
                after = found.after
                if not after:
                    break
            assert len(ids) == 7
            assert ids == sorted(set(ids))
            assert len((await registry.list(DeviceFilter("ul", kind="person"))).devices) == 3
            assert len((await registry.list(DeviceFilter("ul", group="odd"))).devices) == 3
            assert [
                each.label for each in (await registry.list(DeviceFilter("ul", text="dEVICE 5"))).devices
            ] == ["Device 5"]
            await registry.change(ids[0], status="disabled")
            assert [
                each.id for each in (await registry.list(DeviceFilter("ul", status="disabled"))).devices
            ] == ids[:1]
            await seen.put(ids[1], msgspec.json.encode(LastSeen(5.0, True, "here")))
            assert (await registry.list(DeviceFilter("ul"))).seen == {ids[1]: LastSeen(5.0, True, "here")}
            await client.close()

    await run()


async def test_more_than_a_thousand_devices_are_all_read(tmp_path: Path) -> None:
    """Reading the whole registry works at any size."""

    async def run() -> None:
        async with open_registry(tmp_path) as (registry, bucket):
            devices = {
                id_: Device(id=id_, site="ul", kind="person") for id_ in (new_handle() for _ in range(2500))
            }
            for id_, each in devices.items():
                await bucket.put(DEVICE_KEY.format(id=id_), msgspec.json.encode(each))
            found = await registry.all()
            assert found == devices
            assert list(found) == sorted(found)
            assert len(DeviceFilter("ul", limit=10_000).page(found.values(), {}).devices) == MAX_PAGE_SIZE

    await run()
