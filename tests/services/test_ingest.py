"""Fixes of authenticated devices, stored in the log of a real broker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from headcount.broker.core import Broker
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoding import DecodedFix, DecodedStatus, DecodeError, Ignored
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.fixes import Fix
from headcount.messages.records import Device
from headcount.messages.topics import FIX_STREAM, partition_of
from headcount.messaging.connection import Connection, connected
from headcount.messaging.jetstream import StoredMessage, get_message, stream_info
from headcount.messaging.streams import DUPLICATE_WINDOW_S
from headcount.services.ingest import STORED, IngestService, Receipt
from nats_fixture import PASSWORD, endpoint_of, open_broker
from waiting import until

PHONE = Device(id="a" * 20, site="ul", kind="person", aliases=["iotp/ada"])
GATEWAY = Device(id="b" * 20, site="ul", kind="vehicle", gateway=True)
NOW_S = 1_790_000_000.0


def fix(t_s: float = NOW_S, name: str = "", lat: float = 52.67, lon: float = -8.57) -> DecodedFix:
    """A fix with what matters here."""
    return DecodedFix(name, t_s, lat, lon, kind="vehicle")


@asynccontextmanager
async def opened(broker: Broker) -> AsyncIterator[tuple[Connection, IngestService]]:
    """A connection to a broker, and the service over it."""
    cache = RegistryCache()
    cache.put(msgspec.structs.replace(PHONE))
    cache.put(Device(id="c" * 20, site="ul", kind="person", status="paused", aliases=["iotp/car-1"]))
    cache.put(Device(id="d" * 20, site="elsewhere", kind="person"))
    cache.ready.set()
    async with connected(endpoint_of(broker), "test") as connection:
        yield connection, IngestService(connection, PASSWORD, cache, lambda: NOW_S)


async def stored(connection: Connection, device: str, site: str = "ul") -> list[StoredMessage]:
    """The messages in the partition of a device."""
    stream = FIX_STREAM.format(partition=partition_of(site, device, 4))
    state = (await stream_info(connection, stream)).state
    found = [
        await get_message(connection, stream, {"seq": seq})
        for seq in range(max(1, state.first_seq), state.last_seq + 1)
    ]
    return [each for each in found if each is not None and device in each.subject]


async def test_fixes_are_stored_in_the_order_of_their_times(tmp_path: Path) -> None:
    """A backlog that starts with the newest fix is stored oldest first, each fix in its canonical form."""
    async with open_broker(tmp_path) as broker, opened(broker) as (connection, service):
        receipts = await service.store(PHONE, [fix(NOW_S - age_s, "any name") for age_s in range(600)])
        assert receipts == [STORED] * 600
        found = await stored(connection, PHONE.id)
        times = [msgspec.json.decode(message.data, type=Fix).tst for message in found]
        assert times == [NOW_S - age_s for age_s in reversed(range(600))]
        assert found[0].subject.endswith(f".ul.person.{PHONE.id}")


async def test_each_element_gets_its_verdict(tmp_path: Path) -> None:
    """Verdicts are those of rule 1 at their limits, and what is not stored leaves no trace in the log."""
    async with open_broker(tmp_path) as broker, opened(broker) as (connection, service):
        receipts = await service.store(
            PHONE,
            [
                fix(NOW_S + 60),
                fix(NOW_S + 60.5),
                fix(lat=90.5),
                fix(lon=-180.5),
                fix(lat=0, lon=0),
                fix(lat=float("nan")),
                DecodeError("no_time", "t is missing"),
                Ignored("card"),
                DecodedStatus("x", online=False),
            ],
        )
        assert [receipt.verdict for receipt in receipts] == [
            "stored",
            "future",
            "invalid",
            "invalid",
            "invalid",
            "malformed",
            "malformed",
            "ignored",
            "stored",
        ]
        assert receipts[6] == Receipt("malformed", "t is missing")
        found = await stored(connection, PHONE.id)
        assert [message.data for message in found[1:]] == [b"offline"]
        paused = msgspec.structs.replace(PHONE, status="paused")
        assert await service.store(paused, [fix()]) == [Receipt("inactive", "paused")]
        assert len(await stored(connection, PHONE.id)) == 2


async def test_only_gateways_send_for_others(tmp_path: Path) -> None:
    """A device sends its own fixes, a gateway those of devices that it names by id or alias, of its site."""
    async with open_broker(tmp_path) as broker, opened(broker) as (connection, service):
        names = ["", PHONE.id, "ada", "bob", GATEWAY.id]
        own = await service.store_named(PHONE, [fix(name=name) for name in names])
        assert [receipt.verdict for receipt in own] == ["stored"] * 3 + ["not_allowed"] * 2
        names = ["", PHONE.id, "ada", "car-7", "car-1", "d" * 20]
        of_others = await service.store_named(GATEWAY, [fix(NOW_S - 1, name) for name in names])
        assert [receipt.verdict for receipt in of_others] == ["stored"] * 4 + ["inactive", "stored"]
        assert len(await stored(connection, PHONE.id)) == 5
        assert len(await stored(connection, GATEWAY.id)) == 1
        derived = AliasResolver(PASSWORD, RegistryCache(), "ul").derived("iotp", "car-7", "vehicle")
        assert len(await stored(connection, derived.device)) == 1
        assert not await stored(connection, "d" * 20, "elsewhere")


async def test_a_repeated_request_stores_nothing_twice(tmp_path: Path) -> None:
    """Within the duplicate window a request id stores each fix once: over any connection, and after a kill -9."""
    async with open_broker(tmp_path) as broker:
        async with opened(broker) as (connection, service):
            await service.store(PHONE, [fix(NOW_S - 1), fix()], "request 1")
            await service.store(PHONE, [fix(NOW_S - 1), fix()], "request 1")
            info = await stream_info(connection, FIX_STREAM.format(partition=0))
            assert info.config["duplicate_window"] == DUPLICATE_WINDOW_S * 10**9
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: broker.pid not in (None, pid), "the broker is started again")
        async with opened(broker) as (connection, service):

            async def repeated() -> list[Receipt]:
                try:
                    return await service.store(PHONE, [fix(NOW_S - 1), fix()], "request 1")
                except LogError:
                    return []

            assert await until(repeated, "the log answers again") == [STORED, STORED]
            assert len(await stored(connection, PHONE.id)) == 2
            await service.store(PHONE, [fix()], "request 2")
            await service.store(PHONE, [fix()])
            assert len(await stored(connection, PHONE.id)) == 4


async def test_nothing_is_confirmed_without_the_log(tmp_path: Path) -> None:
    """While the core does not answer, there is an error in place of receipts."""
    async with open_broker(tmp_path) as broker, opened(broker) as (_, service):
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            with pytest.raises(LogError):
                await service.store(PHONE, [fix()])
            assert time.monotonic() - began_s < 30
        finally:
            os.kill(pid, signal.SIGCONT)
