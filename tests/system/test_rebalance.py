"""A new broker gets its share of long connections, through the real balancer."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headcount.messaging.connection import Connection
from headcount.messaging.units import Units
from system.judging import connect
from system.running import Up
from waiting import until, wait_until

DEVICES = 120
SCALE = {
    "HEADCOUNT_SCALE_INTERVAL_S": "0.5",
    "HEADCOUNT_SCALE_BROKER_CONNECTIONS": "80",
    "HEADCOUNT_SCALE_MAX_BROKERS": "2",
    "HEADCOUNT_SCALE_MAX_WORKERS": "1",
    "HEADCOUNT_SCALE_BROKER_CORES": "100",
    "HEADCOUNT_SCALE_FORECAST": "false",
    "HEADCOUNT_SCALE_REBALANCE_FOR_S": "3",
    "HEADCOUNT_SCALE_REBALANCE_PER_S": "0.1",
    "HEADCOUNT_DRAIN_S": "2",
}


class Device:
    """A silent MQTT connection that comes back, after a while of its own, when it is ended."""

    def __init__(self, port: int, number: int, random_: random.Random) -> None:
        """`number` makes the client's id."""
        self.connects = 0
        self._port = port
        self._id = f"quiet-{number}".encode()
        self._random = random_

    async def run(self) -> None:
        """Until cancelled."""
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(self._id).to_bytes(2, "big") + self._id
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(bytes([0x10, len(body)]) + body)
                    if (await reader.readexactly(4))[3] == 0:
                        self.connects += 1
                        await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(self._random.uniform(0.1, 1.0))  # as devices wait before they reconnect


@contextlib.asynccontextmanager
async def connected(port: int, seed: int) -> AsyncIterator[list[Device]]:
    """Connected devices for the time of the context."""
    random_ = random.Random(seed)
    devices = [Device(port, number, random_) for number in range(DEVICES)]
    tasks = [asyncio.create_task(device.run()) for device in devices]
    try:
        yield devices
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settle(up: Up) -> tuple[dict[str, int], list[int]]:
    """Connections by broker once they are even, and how often each device has connected."""
    client = await connect(up)
    units = Units(Connection(client))
    try:
        async with connected(up.mqtt_port, 1) as devices:
            worst = 0

            async def connections() -> dict[str, int]:
                return {name: unit.connections for name, unit in (await units.table()).alive().items()}

            async def is_even() -> bool:
                nonlocal worst
                here = await connections()
                if len(here) != 2:
                    return False
                worst = max(worst, *here.values())
                return sum(here.values()) >= DEVICES and max(here.values()) <= 1.15 * sum(here.values()) / 2

            await until(is_even, "the connections are even", every_s=0.5)
            await asyncio.sleep(3)  # time in which more devices could be moved
            here = await connections()
            print(f"fullest at first {worst}, at last {here}")
            return here, [device.connects for device in devices]
    finally:
        await client.close()


@pytest.mark.slow
def test_a_new_broker_gets_its_share(tmp_path: Path) -> None:
    """More devices than a broker should carry bring a second one, and it gets half of them; most move never or once."""
    with Up(tmp_path, arguments=["--elastic"], variables=SCALE) as up:
        wait_until(up.is_ready, "ready")
        here, connects = asyncio.run(settle(up))
        assert max(here.values()) <= 1.2 * sum(here.values()) / 2  # what is promised
        assert sum(here.values()) >= 0.9 * DEVICES  # some are just coming back
        moved = sum(connects) - DEVICES
        print(f"{moved} devices moved, {max(connects) - 1} times at most; half are {DEVICES // 2}")
        assert moved <= 1.5 * DEVICES / 2 + 5
