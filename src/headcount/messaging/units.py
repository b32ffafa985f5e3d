"""What each unit of a cluster says about itself once a second, in the bucket UNIT of the log.

    broker.<name>   a broker unit: where it is reached, whether it drains, what it carries
    scaling.state   what the scaler has seen and done

A unit is alive while its last word is at most ALIVE_S old by the server's clock. One that ends
removes its key; that of one that was killed goes after KEPT_S.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from headcount.messages.units import BROKER_UNIT_KEY, SCALING_KEY, BrokerUnit, ScalingState
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import UNIT_BUCKET

_log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 1.0
#: A unit that says nothing for so long is taken for dead.
UNIT_TIMEOUT_S = 5.0
#: The server removes a key after this.
UNIT_TTL_S = 60
_BROKERS = BROKER_UNIT_KEY.format(name="")


@dataclass(frozen=True, slots=True)
class UnitTable:
    """The broker units at one moment: each with when it last spoke, and the server's time (Unix seconds)."""

    now_s: float
    units: dict[str, tuple[BrokerUnit, float]]

    def alive(self, within_s: float = UNIT_TIMEOUT_S) -> dict[str, BrokerUnit]:
        """The units that have spoken within the last `within_s`."""
        return {
            name: unit for name, (unit, spoke_s) in self.units.items() if self.now_s - spoke_s <= within_s
        }


class Units:
    """The bucket over one connection; every call raises LogError if the log doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._bucket = KvBucket(connection, UNIT_BUCKET)

    async def speak(self, unit: BrokerUnit) -> None:
        """Say what a broker unit is now."""
        key = BROKER_UNIT_KEY.format(name=unit.name)
        await self._bucket.put(key, msgspec.json.encode(unit), ttl_s=UNIT_TTL_S)

    async def retire(self, name: str) -> None:
        """Say that a broker unit has ended."""
        await self._bucket.delete(BROKER_UNIT_KEY.format(name=name), ttl_s=UNIT_TTL_S)

    async def table(self) -> UnitTable:
        """All broker units that have spoken lately; what can't be read is left out."""
        entries = await self._bucket.newest(f"{_BROKERS}*")
        now_s = await self._bucket.now_s()
        units: dict[str, tuple[BrokerUnit, float]] = {}
        for key, entry in entries.items():
            try:
                unit = msgspec.json.decode(entry.value, type=BrokerUnit)
            except msgspec.MsgspecError as error:  # of another version
                _log.warning("%s in the bucket %s can't be read: %s", key, UNIT_BUCKET, error)
                continue
            units[unit.name] = (unit, entry.stored_s)
        return UnitTable(now_s, units)

    async def tell_scaling(self, state: ScalingState) -> None:
        """Say what the scaler has seen and done."""
        await self._bucket.put(SCALING_KEY, msgspec.json.encode(state), ttl_s=UNIT_TTL_S)

    async def scaling(self) -> tuple[ScalingState, float] | None:
        """The scaler's last word and how many seconds ago it was; None if no scaler has spoken lately."""
        entry = await self._bucket.get(SCALING_KEY)
        if entry is None:
            return None
        try:
            state = msgspec.json.decode(entry.value, type=ScalingState)
        except msgspec.MsgspecError as error:
            _log.warning("%s in the bucket %s can't be read: %s", SCALING_KEY, UNIT_BUCKET, error)
            return None
        return state, max(await self._bucket.now_s() - entry.stored_s, 0.0)
