"""Heartbeats of broker units and the state of the scaler, in the bucket UNIT.

    broker.<name>   BrokerUnit, every second
    scaling.state   ScalingState, once per period of the leader

A unit is alive while its last heartbeat is at most UNIT_TIMEOUT_S old by the server's clock. A unit that ends
removes its key; that of a killed unit expires after UNIT_TTL_S.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from headcount.messages.units import BROKER_UNIT_KEY, SCALING_KEY, BrokerUnit, ScalingState
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket, KvEntry
from headcount.messaging.streams import UNIT_BUCKET

T = TypeVar("T")
_log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 1.0
#: A unit without a heartbeat for this long is considered dead.
UNIT_TIMEOUT_S = 5.0
#: The server removes a key without a heartbeat after this.
UNIT_TTL_S = 60
_BROKERS = BROKER_UNIT_KEY.format(name="")


@dataclass(frozen=True, slots=True)
class UnitTable:
    """The broker units at one moment, each with its last heartbeat, and the server's time (Unix seconds)."""

    now_s: float
    units: dict[str, tuple[BrokerUnit, float]]

    def alive(self, within_s: float = UNIT_TIMEOUT_S) -> dict[str, BrokerUnit]:
        """The units with a heartbeat within the last `within_s`."""
        return {
            name: unit
            for name, (unit, heartbeat_s) in self.units.items()
            if self.now_s - heartbeat_s <= within_s
        }


class Units:
    """The bucket over one connection; every call raises LogError if the core doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._bucket = KvBucket(connection, UNIT_BUCKET)

    async def heartbeat(self, unit: BrokerUnit) -> None:
        """Publish a unit's heartbeat."""
        key = BROKER_UNIT_KEY.format(name=unit.name)
        await self._bucket.put(key, msgspec.json.encode(unit), ttl_s=UNIT_TTL_S)

    async def remove(self, name: str) -> None:
        """Remove a unit that has ended."""
        await self._bucket.delete(BROKER_UNIT_KEY.format(name=name), ttl_s=UNIT_TTL_S)

    async def table(self) -> UnitTable:
        """All broker units with a recent heartbeat; entries that can't be decoded are left out."""
        entries = await self._bucket.newest(f"{_BROKERS}*")
        now_s = await self._bucket.now_s()
        units: dict[str, tuple[BrokerUnit, float]] = {}
        for key, entry in entries.items():
            if unit := _decode(key, entry, BrokerUnit):
                units[unit.name] = (unit, entry.stored_s)
        return UnitTable(now_s, units)

    async def publish_scaling(self, state: ScalingState) -> None:
        """Publish the state of the scaler."""
        await self._bucket.put(SCALING_KEY, msgspec.json.encode(state), ttl_s=UNIT_TTL_S)

    async def scaling(self) -> tuple[ScalingState, float] | None:
        """The scaler's last state and its age in seconds; None if there is no recent one."""
        entry = await self._bucket.get(SCALING_KEY)
        if entry is None or (state := _decode(SCALING_KEY, entry, ScalingState)) is None:
            return None
        return state, max(await self._bucket.now_s() - entry.stored_s, 0.0)


def _decode(key: str, entry: KvEntry, record: type[T]) -> T | None:
    try:
        return msgspec.json.decode(entry.value, type=record)
    except msgspec.MsgspecError as error:  # of another version
        _log.warning("%s in the bucket %s can't be decoded: %s", key, UNIT_BUCKET, error)
        return None
