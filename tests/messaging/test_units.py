"""The bucket of unit states, against a real NATS server."""

from __future__ import annotations

from pathlib import Path

from headcount.messages.units import BrokerUnit, ScalingDecision, ScalingState, ScalingTarget
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import UNIT_BUCKET
from headcount.messaging.units import Units, UnitTable
from nats_fixture import internal_client, open_broker
from waiting import BUSY_S


def unit(name: str, connections: int = 0) -> BrokerUnit:
    """The state of a broker unit."""
    return BrokerUnit(name, "1", "2.15.1", "127.0.0.1", 1883, 9001, 8081, "up", connections, 0.0, 0.0, 0.0)


async def test_units_send_heartbeats_and_end(tmp_path: Path) -> None:
    """Each unit's newest word is in the table until it retires; words that can't be read are left out."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        units = Units(Connection(client))
        assert (await units.table()).units == {}
        await units.heartbeat(unit("b1", 1))
        await units.heartbeat(unit("b1", 2))
        await units.heartbeat(unit("b2"))
        await client.jetstream().publish(f"$KV.{UNIT_BUCKET}.broker.b3", b"of another version")
        table = await units.table()
        assert {name: one.connections for name, (one, _) in table.units.items()} == {"b1": 2, "b2": 0}
        assert all(0 <= table.now_s - spoke_s < BUSY_S for _, spoke_s in table.units.values())
        await units.remove("b1")
        assert set((await units.table()).units) == {"b2"}
        await client.close()


def test_who_is_silent_is_dead() -> None:
    """A unit whose last word is older than the limit isn't alive, by the server's clock."""
    table = UnitTable(100.0, {"old": (unit("old"), 94.9), "young": (unit("young"), 95.1)})
    assert set(table.alive()) == {"young"}


async def test_the_scaler_publishes_its_state(tmp_path: Path) -> None:
    """The scaler's last state can be read, with its age; before the first one there is nothing."""
    state = ScalingState(
        "s",
        1.0,
        "process",
        False,
        [ScalingTarget("count", 2, 1, 1, 4)],
        {"lag": 3.0, "latency_p99_s": None},
        [ScalingDecision(1.0, "count", 1, 2, "because")],
    )
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        units = Units(Connection(client))
        assert await units.scaling() is None
        await units.publish_scaling(state)
        told = await units.scaling()
        assert told is not None
        assert told[0] == state
        assert 0 <= told[1] < BUSY_S
        await client.close()


async def test_a_bucket_changes_by_compare_and_set(tmp_path: Path) -> None:
    """A key is replaced only where its revision is the one that was read."""
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        bucket = KvBucket(Connection(client), UNIT_BUCKET)
        first = await bucket.replace("k", b"1", 0)
        assert first is not None
        assert await bucket.replace("k", b"2", 0) is None
        assert await bucket.replace("k", b"3", first) is not None
        assert (await bucket.newest("k"))["k"].value == b"3"
        await client.close()
