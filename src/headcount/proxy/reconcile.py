"""What HAProxy must be told so that it serves those who belong behind it. Pure: time comes in.

It compares what should be with what HAProxy says is, each time anew: so a HAProxy that was started
again, loaded its file again or was changed by hand comes right by the next comparison.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from headcount.proxy.haproxy_config import Backend, Pools, Server, server_arguments, weight
from headcount.proxy.runtime_api import Standing, Status

#: A server that doesn't belong any more may keep connections for so long.
LINGER_S = 30.0


@dataclass(slots=True)
class Plan:
    """Commands of the runtime API, from comparison to comparison."""

    check_every_s: float
    _gone_since: dict[tuple[str, str], float] = field(default_factory=dict)

    def commands(
        self, pools: Pools, standing: Standing, abandoned: Collection[str], now_s: float
    ) -> list[str]:
        """What to tell HAProxy now; `abandoned` are names of units."""
        told: list[str] = []
        gone: dict[tuple[str, str], float] = {}
        for backend, servers in pools.items():
            there = standing.get(backend, {})
            for server in servers:
                told += self._wanted(backend, server, there.get(server.name))
                if server.unit in abandoned and server.name in there and there[server.name].sessions:
                    told.append(f"shutdown sessions server {backend}/{server.name}")
            for name in set(there) - {server.name for server in servers}:
                since_s = self._gone_since.get((backend, name), now_s)
                gone[backend, name] = since_s
                told += _unwanted(f"{backend}/{name}", there[name], now_s - since_s)
        self._gone_since = gone
        return told

    def _wanted(self, backend: Backend, server: Server, status: Status | None) -> list[str]:
        name = f"{backend}/{server.name}"
        # a new server begins in maintenance and unchecked
        begin = [f"enable health {name}", f"set server {name} state ready"]
        if status is None:
            return [f"add server {name} {server_arguments(server, self.check_every_s)}", *begin]
        told = begin if status.status.startswith("MAINT") else []
        if status.weight != weight(server):
            told = [f"set server {name} weight {weight(server)}", *told]
        return told


def _unwanted(name: str, status: Status, gone_s: float) -> list[str]:
    """In maintenance it gets nothing new; it can be deleted when its last connection has ended."""
    told = [] if status.status.startswith("MAINT") else [f"set server {name} state maint"]
    if status.sessions and gone_s < LINGER_S:
        return told
    if status.sessions:
        return [*told, f"shutdown sessions server {name}"]
    return [*told, f"del server {name}"]
