"""Bans of devices and addresses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.broker.core import Broker
from headcount.devices.bans import (
    MAX_BAN_S,
    MAX_REASON_CHARS,
    ActiveBan,
    BanList,
    active_ban,
    ban_key,
    banned_address,
)
from headcount.errors import DeviceError
from headcount.messages.records import Ban
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import BAN_BUCKET
from nats_fixture import internal_client, running_broker
from waiting import until


@pytest.mark.parametrize(
    ("who", "key"),
    [
        ("a2b3c4d5e6f7a2b3c4d5", "device.a2b3c4d5e6f7a2b3c4d5"),
        ("192.0.2.1", "address." + b"192.0.2.1".hex()),
        ("2001:DB8:0::1", "address." + b"2001:db8::1".hex()),
    ],
)
def test_keys(who: str, key: str) -> None:
    """An address has one key in any spelling, from which it can be read back; the key of a device has its id."""
    assert ban_key(who) == key
    address = banned_address(key)
    assert (address is None) == key.startswith("device.")
    if address is not None:
        assert ban_key(address) == key
    assert active_ban(key, Ban(5.0, "why")) == ActiveBan(None if address else who, address, 5.0, "why")


@pytest.mark.parametrize("who", ["", "a.b", "192.0.2.0/24", "*", ">", "a b", "x" * 65, "192.0.2.1:80"])
def test_neither_device_nor_address(who: str) -> None:
    """A text that is neither an id nor an address has no key."""
    with pytest.raises(DeviceError):
        ban_key(who)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for this file."""
    with running_broker(tmp_path_factory.mktemp("bans")) as running:
        yield running


async def test_add_lift_and_list(broker: Broker, tmp_path: Path) -> None:
    """Bans are listed in the order of their ends, a newer one replaces an older one, a lifted or ended one is gone."""
    del tmp_path
    client = await internal_client(broker)
    bans = BanList(KvBucket(Connection(client), BAN_BUCKET))
    assert await bans.all() == []
    began_s = time.time()
    first = await bans.add("d1", 1000, "a")
    await bans.add("192.0.2.1", 500, "b")
    assert began_s + 1000 <= first.until <= time.time() + 1000
    assert [(one.device, one.address) for one in await bans.all()] == [(None, "192.0.2.1"), ("d1", None)]
    await bans.add("192.0.2.1", 2000, "c")
    assert [one.reason for one in await bans.all()] == ["a", "c"]
    assert await bans.lift("d1")
    assert not await bans.lift("d1")
    await bans.add("d2", 1, "short")

    async def has_ended() -> bool:
        return all(one.device != "d2" for one in await bans.all())

    await until(has_ended, "the short ban ends")
    assert [one.address for one in await bans.all()] == ["192.0.2.1"]
    for for_s, reason in (
        (0.5, ""),
        (MAX_BAN_S + 1, ""),
        (float("nan"), ""),
        (5, "x" * (MAX_REASON_CHARS + 1)),
        (5, "\n"),
    ):
        with pytest.raises(DeviceError):
            await bans.add("d3", for_s, reason)
    await client.close()
