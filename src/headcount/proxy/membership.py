"""Who belongs behind the balancer, from what the units say. Pure: time comes in.

    in the table, up          new connections
    in the table, draining    keeps what it has, gets nothing new
    gone from the table       the same for MISSING_S (a core that lost its memory hears from all units
                              within a second), then out; one that drained before goes at once
    silent and unhealthy      abandoned: its connections are closed, so that its devices come back to
                              others. It may be paused or cut off, where no TCP connection ever ends.
    no table (core away)      as it was last; health checks still decide who gets connections

Silence counts only while we ourselves hear the core, without a break: after an outage of the core all
units seem silent for a moment. And nobody is abandoned when there is nobody else to go to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from headcount.messaging.units import ALIVE_S, UnitTable

MISSING_S = 3.0


class Unit(msgspec.Struct, frozen=True):
    """A broker unit as the balancer needs it; `host` may be a name."""

    name: str
    host: str
    mqtt_port: int
    ws_port: int
    health_port: int
    draining: bool = False


class Membership:
    """The units that belong behind the balancer, kept up to date by `observe`."""

    def __init__(self, known: Iterable[Unit] = ()) -> None:
        """Begin with the units known from before."""
        self.units: dict[str, Unit] = {unit.name: unit for unit in known}
        self._missing_since: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}

    def observe(self, table: UnitTable | None, now_s: float) -> None:
        """Take in what the units say at `now_s` (any clock that only grows); None: the core is away."""
        if table is None:
            self._missing_since.clear()
            self._silent_since.clear()
            return
        for name, (said, _) in table.units.items():
            self.units[name] = Unit(
                name, said.host, said.mqtt_port, said.ws_port, said.health_port, said.state == "draining"
            )
        self._note(self._missing_since, set(self.units) - set(table.units), now_s)
        self._note(self._silent_since, set(self.units) - set(table.alive()), now_s)
        for name, since_s in list(self._missing_since.items()):
            if self.units[name].draining or now_s - since_s > MISSING_S:
                del self.units[name], self._missing_since[name]

    def abandoned(self, unhealthy: Collection[str], now_s: float) -> set[str]:
        """The units whose connections are to be closed; `unhealthy` fail their health checks."""
        if not set(self.units) - set(self._silent_since) - set(unhealthy):
            return set()
        return {
            name
            for name, since_s in self._silent_since.items()
            if name in self.units and name in unhealthy and now_s - since_s >= ALIVE_S
        }

    @staticmethod
    def _note(since_s: dict[str, float], names: set[str], now_s: float) -> None:
        for name in set(since_s) - names:
            del since_s[name]
        for name in names:
            since_s.setdefault(name, now_s)


def heard_as(units: Mapping[str, Unit]) -> bytes:
    """Units as the file that a restart begins with."""
    return msgspec.json.encode(sorted(units.values(), key=lambda unit: unit.name))


def read_heard(text: bytes) -> list[Unit]:
    """The inverse of `heard_as`; nobody when it can't be read."""
    try:
        return msgspec.json.decode(text, type=list[Unit])
    except msgspec.MsgspecError:
        return []
