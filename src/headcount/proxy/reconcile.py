"""Commands that bring HAProxy's servers in line with the wanted ones; pure.

Each comparison starts from HAProxy's actual state, so a HAProxy that was restarted, reloaded or changed by hand
is corrected by the next one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from headcount.proxy.haproxy_config import server_arguments, server_weight
from headcount.proxy.proxy_config import Backend, BackendServers, HaproxyServer
from headcount.proxy.runtime_api import HaproxyServerStatus, ServerStatuses

#: Time for which a removed server may keep its connections.
MAX_LINGER_S = 30.0


@dataclass(slots=True)
class Reconciler:
    """Compares wanted and actual servers, and remembers since when servers are unwanted."""

    check_every_s: float
    _gone_since: dict[tuple[str, str], float] = field(default_factory=dict)

    def commands(
        self, pools: BackendServers, standing: ServerStatuses, abandoned: Collection[str], now_s: float
    ) -> list[str]:
        """The commands to execute now; `abandoned` are names of units."""
        commands: list[str] = []
        gone: dict[tuple[str, str], float] = {}
        for backend, servers in pools.items():
            there = standing.get(backend, {})
            for server in servers:
                commands += self._wanted(backend, server, there.get(server.name))
                if server.unit in abandoned and server.name in there and there[server.name].sessions:
                    commands.append(f"shutdown sessions server {backend}/{server.name}")
            for name in set(there) - {server.name for server in servers}:
                since_s = self._gone_since.get((backend, name), now_s)
                gone[backend, name] = since_s
                commands += _unwanted(f"{backend}/{name}", there[name], now_s - since_s)
        self._gone_since = gone
        return commands

    def _wanted(
        self, backend: Backend, server: HaproxyServer, status: HaproxyServerStatus | None
    ) -> list[str]:
        name = f"{backend}/{server.name}"
        # a new server starts in maintenance and without checks
        start = [f"enable health {name}", f"set server {name} state ready"]
        if status is None:
            return [f"add server {name} {server_arguments(server, self.check_every_s)}", *start]
        commands = start if status.status.startswith("MAINT") else []
        if status.weight != server_weight(server):
            commands = [f"set server {name} weight {server_weight(server)}", *commands]
        return commands


def _unwanted(name: str, status: HaproxyServerStatus, gone_s: float) -> list[str]:
    """In maintenance it gets no new connections; it can be deleted once its last connection has ended."""
    commands = [] if status.status.startswith("MAINT") else [f"set server {name} state maint"]
    if status.sessions and gone_s < MAX_LINGER_S:
        return commands
    if status.sessions:
        return [*commands, f"shutdown sessions server {name}"]
    return [*commands, f"del server {name}"]
