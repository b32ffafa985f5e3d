"""The units that belong behind the balancer, from their reports; pure.

    in the table, up             gets new connections
    in the table, draining       keeps its connections, gets no new ones
    missing from the table       the same for MISSING_S (after a restart, the core has the reports of all units
                                 within a second), then removed; a unit that drained is removed immediately
    all missing from the table   unchanged: a core that answers slowly loses the reports of all units
    no heartbeat and unhealthy   abandoned: its connections are closed, so that its devices reconnect to other
                                 units. A paused or disconnected unit would never end its TCP connections.
    no table (no core)           unchanged; health checks still decide about new connections

Missed heartbeats count only while the core is available without interruption: after an outage of the core, all
units miss heartbeats for a moment. No unit is abandoned if there is no other one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from headcount.messages.records import decode_or_none
from headcount.messaging.units import UNIT_TIMEOUT_S, UnitTable

MISSING_S = 3.0


class ProxiedUnit(msgspec.Struct, frozen=True):
    """The addresses of a broker unit; `host` may be a name."""

    name: str
    host: str
    mqtt_port: int
    ws_port: int
    health_port: int
    draining: bool = False


class Membership:
    """The units behind the balancer, updated by `observe`."""

    def __init__(self, known: Iterable[ProxiedUnit] = ()) -> None:
        self.units: dict[str, ProxiedUnit] = {unit.name: unit for unit in known}
        self._missing_since: dict[str, float] = {}
        self._no_heartbeat_since: dict[str, float] = {}

    def observe(self, table: UnitTable | None, now_s: float) -> None:
        """Update the units from their table at `now_s` (a monotonic clock); None: the core is unavailable."""
        if table is None:
            self._missing_since.clear()
            self._no_heartbeat_since.clear()
            return
        for name, (unit, _) in table.units.items():
            self.units[name] = ProxiedUnit(
                name, unit.host, unit.mqtt_port, unit.ws_port, unit.health_port, unit.state == "draining"
            )
        self._note(self._missing_since, set(self.units) - set(table.units), now_s)
        self._note(self._no_heartbeat_since, set(self.units) - set(table.alive()), now_s)
        for name, since_s in list(self._missing_since.items()):
            if self.units[name].draining or (table.units and now_s - since_s > MISSING_S):
                del self.units[name], self._missing_since[name]

    def abandoned(self, unhealthy: Collection[str], now_s: float) -> set[str]:
        """The units whose connections must be closed; `unhealthy` ones fail their health checks."""
        if not set(self.units) - set(self._no_heartbeat_since) - set(unhealthy):
            return set()
        return {
            name
            for name, since_s in self._no_heartbeat_since.items()
            if name in self.units and name in unhealthy and now_s - since_s >= UNIT_TIMEOUT_S
        }

    @staticmethod
    def _note(since_s: dict[str, float], names: set[str], now_s: float) -> None:
        for name in set(since_s) - names:
            del since_s[name]
        for name in names:
            since_s.setdefault(name, now_s)


def encode_units(units: Mapping[str, ProxiedUnit]) -> bytes:
    """Units as a file for the next start."""
    return msgspec.json.encode(sorted(units.values(), key=lambda unit: unit.name))


def decode_units(text: bytes) -> list[ProxiedUnit]:
    """The inverse of `encode_units`; no units if it is not valid."""
    return decode_or_none(text, list[ProxiedUnit]) or []
