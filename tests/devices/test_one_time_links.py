"""One-time links and claim codes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from headcount.devices import credentials
from headcount.devices.one_time_links import MAX_CLAIM_CODES, OneTimeLinks
from headcount.devices.registry import Registry
from headcount.errors import DeviceError
from headcount.messages.records import Device, OneTimeLink
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.site_store import SiteStore, StoredSite
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.services.actors import COMMAND_LINE
from headcount.services.container import Services
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import until


@asynccontextmanager
async def open_links(folder: Path) -> AsyncIterator[tuple[Registry, OneTimeLinks, KvBucket]]:
    """A registry and its links, with their own broker."""
    async with open_broker(folder) as broker:
        client = await internal_client(broker)
        bucket = KvBucket(Connection(client), DEVICE_BUCKET)
        registry = Registry(bucket, PASSWORD)
        yield registry, OneTimeLinks(bucket, registry, PASSWORD), bucket
        await client.close()


async def test_a_link_gives_new_credentials_once(tmp_path: Path) -> None:
    """The first use returns a new secret; then the link is used up, and nothing of it is stored."""

    async def run() -> None:
        async with open_links(tmp_path) as (registry, links, bucket):
            device, first = await registry.add("ul", "person", label="Ford")
            code, shown = await links.create_link(device.id)
            assert shown.id == device.id
            assert not [key for key in await bucket.newest() if code in key]
            assert not [each for each in (await bucket.newest()).values() if code.encode() in each.value]
            again, secret, *_ = await links.redeem(f" {code.upper()} ")
            assert again.id == device.id
            assert again.label == "Ford"
            assert credentials.verify_secret(secret, again.secret)
            assert not credentials.verify_secret(first, again.secret)
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(code)
            assert set(await bucket.newest()) == {f"device.{device.id}"}

    await run()


async def test_one_of_many_concurrent_uses_succeeds(tmp_path: Path) -> None:
    """Of twenty concurrent uses of a link one gets credentials, the others an error."""

    async def run() -> None:
        async with open_links(tmp_path) as (registry, links, _):
            device, _ = await registry.add("ul", "person")
            for _ in range(5):
                code, _ = await links.create_link(device.id)
                answers = await asyncio.gather(
                    *(links.redeem(code) for _ in range(20)), return_exceptions=True
                )
                assert sum(isinstance(answer, tuple) for answer in answers) == 1
                assert sum(isinstance(answer, DeviceError) for answer in answers) == 19

    await run()


async def test_each_claim_code_registers_one_device(tmp_path: Path) -> None:
    """A code may contain common typing mistakes, and registers one new device of its kind and groups."""

    async def run() -> None:
        async with open_links(tmp_path) as (registry, links, bucket):
            codes = await links.create_claim_codes("ul", "vehicle", 150, ["fleet"])
            assert len(set(codes)) == 150
            assert len(await bucket.newest("link.*")) == 150
            written = codes[0].upper().replace("-", " ").replace("O", "0").replace("L", "1").replace("B", "8")
            devices: list[Device] = []
            for text in (written, codes[1]):
                device, secret, *_ = await links.redeem(text)
                assert (device.kind, device.groups, device.label) == ("vehicle", ["fleet"], "")
                assert credentials.verify_secret(secret, device.secret)
                devices.append(device)
            assert set(await registry.all()) == {device.id for device in devices}
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(codes[0])
            for count in (0, MAX_CLAIM_CODES + 1):
                with pytest.raises(DeviceError, match="must be"):
                    await links.create_claim_codes("ul", "person", count)
            with pytest.raises(DeviceError, match="groups"):
                await links.create_claim_codes("ul", "person", 1, ["no good"])

    await run()


async def test_links_expire_and_can_be_revoked(tmp_path: Path) -> None:
    """A link expires by our clock, is removed by the server's, and can be revoked."""

    async def run() -> None:
        async with open_links(tmp_path) as (registry, links, bucket):
            device, _ = await registry.add("ul", "person")
            other, _ = await registry.add("ul", "person")
            code, _ = await links.create_link(device.id)
            kept, _ = await links.create_link(other.id)
            assert await registry.revoke_links(device.id) == 1
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(code)
            key = next(iter(await bucket.newest("link.*")))
            entry = (await bucket.newest(key))[key]
            await bucket.rewrite(key, entry.value, entry.revision, ttl_s=1)

            async def is_removed() -> bool:
                return not await bucket.newest(key)

            await until(is_removed, "the server removes the link", every_s=0.2)
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(kept)
            expired = OneTimeLink(site="ul", kind="person", device=other.id, expires=time.time() - 1)
            await bucket.put("link.expired", msgspec.json.encode(expired))
            lasting, _ = await links.create_link(other.id)
            assert await links.erase_expired() == 1
            assert "link.expired" not in await bucket.newest()
            assert (await links.redeem(lasting))[0].id == other.id
            for within_s in (5, 10**9):
                with pytest.raises(DeviceError, match="must be"):
                    await links.create_link(device.id, within_s)

    await run()


async def test_a_link_to_a_disabled_or_removed_device_is_rejected(tmp_path: Path) -> None:
    """A disabled or removed device gets no new link, and its earlier links are rejected."""

    async def run() -> None:
        async with open_links(tmp_path) as (registry, links, _):
            device, _ = await registry.add("ul", "person")
            code, _ = await links.create_link(device.id)
            other, _ = await links.create_link(device.id)
            await registry.rotate(device.id)
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(other)
            await registry.change(device.id, status="disabled")
            with pytest.raises(DeviceError, match="is disabled"):
                await links.create_link(device.id)
            with pytest.raises(DeviceError, match="unknown, used or expired"):
                await links.redeem(code)
            await registry.remove(device.id)
            for id_ in (device.id, "unknown", "*"):
                with pytest.raises(DeviceError, match="is not registered"):
                    await links.create_link(id_)
            for text in ("", "x" * 1000, ">", "a" * 16, "a" * 32, "\ud800"):
                with pytest.raises(DeviceError, match="unknown, used or expired"):
                    await links.redeem(text)

    await run()


async def test_a_code_of_a_removed_site_registers_no_device(tmp_path: Path) -> None:
    """After its site is removed a claim code is rejected; those of other sites are not."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        services, store = Services(Connection(client), PASSWORD), SiteStore(Connection(client))
        for site in ("ul", "harbour"):
            await store.add(StoredSite("a test", "", {}, 1, site=site, number=1))
        codes = {
            site: (await services.provisioning.claim_codes(COMMAND_LINE, site, "person", 1, [], 3600))[0]
            for site in ("ul", "harbour")
        }
        await store.add(StoredSite("a test", "", None, 1, site="ul", number=2))
        with pytest.raises(DeviceError, match="unknown, used or expired"):
            await services.provisioning.redeem(codes["ul"])
        device = (await services.provisioning.redeem(codes["harbour"])).device
        assert list(await services.registry.all()) == [device.id]
        await client.close()
