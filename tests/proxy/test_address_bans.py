"""A real HAProxy refuses banned addresses until their ban ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headcount.devices.bans import BanList, ban_key
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import BAN_BUCKET
from headcount.proxy.address_bans import AddressBans, normalise_address, watching_bans
from headcount.proxy.balancer import BANS_FILE
from nats_fixture import internal_client, open_broker
from proxy_fixture import Bench, Device, haproxy, scaled
from waiting import BUSY_S, until

US = "127.0.0.1"


@pytest.fixture(autouse=True, scope="module")
def _program() -> None:
    haproxy()


async def test_a_ban_holds_over_a_reload_and_ends(tmp_path: Path) -> None:
    """A banned address is disconnected and refused, also after a reload, and accepted when the ban ends."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        client = await internal_client(one)
        bans = BanList(KvBucket(Connection(client), BAN_BUCKET))
        device = await bench.device()
        async with watching_bans(Connection(client), bench.bans):
            await bans.add(US, 3600, "test")
            await bans.add("2001:db8::1", 3600, "test")

            async def is_disconnected() -> bool:
                await role.step()
                return not await device.alive()

            async def banned(number: int) -> bool:
                await role.step()
                return len(await role.haproxy.runtime.banned()) == number

            await until(is_disconnected, "the device is disconnected")
            assert await bench.try_device() is None
            await until(lambda: banned(2), "both bans")
            await role.haproxy.reload()
            assert await bench.try_device() is None
            assert await role.haproxy.runtime.banned() == {US, "2001:db8::1"}
            ban = await bans.add(US, 1, "test")
            again = await _let_in(bench, role.step)
            assert time.time() >= ban.until - 0.1
            await bans.lift("2001:db8::1")
            await until(lambda: banned(0), "no bans")
            assert await again.alive()
        await client.close()


async def _let_in(bench: Bench, step: Callable[[], Awaitable[None]]) -> Device:
    async def attempt() -> Device | None:
        await step()
        return await bench.try_device()

    device: Device = await until(attempt, "a device is let in", every_s=0.05)
    return device


async def test_every_port_and_both_families(tmp_path: Path) -> None:
    """A banned address has its MQTT connections closed and its WebSocket and HTTP requests rejected, over IPv4 and IPv6."""

    async def scenario(host: str, folder: Path) -> None:
        async with Bench(folder, host=host) as bench, bench.balancer() as role:
            ports = (bench.config.mqtt_port, bench.ws_port, bench.config.http_port or 0)
            opened = [await asyncio.open_connection(host, port) for port in ports]
            bench.bans.replace({ban_key(host): b'{"until":%d,"reason":""}' % (time.time() + 100)})
            await role.step()
            async with asyncio.timeout(BUSY_S):
                for reader, writer in opened:
                    with contextlib.suppress(ConnectionError):
                        writer.write(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")
                        assert await reader.read() == b""
                    writer.close()

    for host, name in ((US, "four"), ("::1", "six")):
        await scenario(host, tmp_path / name)


async def test_bans_are_kept_without_the_core(tmp_path: Path) -> None:
    """A balancer that starts without the core refuses the same addresses as before."""
    folder = tmp_path / "proxy"
    folder.mkdir()
    (folder / BANS_FILE).write_bytes(b'{"192.0.2.7":%d,"192.0.2.8":1}' % (time.time() + 100))
    async with Bench(tmp_path) as bench:
        bench.core_away = True
        async with bench.balancer() as role:
            assert await role.haproxy.runtime.banned() == {"192.0.2.7"}


def test_addresses_follow_the_bucket() -> None:
    """Mapped IPv4 is IPv4; keys of devices, invalid addresses and invalid bans are ignored."""
    bans = AddressBans()
    value = b'{"until":50,"reason":""}'
    bans.replace(
        {
            ban_key("::ffff:192.0.2.1"): value,
            ban_key("2001:db8::1"): value,
            ban_key("d1"): value,
            ban_key("192.0.2.2"): b"nonsense",
            "address." + b"a\nb".hex(): value,
        }
    )
    assert bans.active(49) == {"192.0.2.1", "2001:db8::1"}
    bans.update(ban_key("2001:db8::1"), None)
    assert bans.active(49) == {"192.0.2.1"}
    assert bans.active(50) == frozenset()
    assert normalise_address("fe80::1%eth0") is None
