"""Membership behind the balancer, and the commands for HAProxy."""

from __future__ import annotations

import asyncio

from headcount.messages.units import BrokerUnit
from headcount.messaging.units import UnitTable
from headcount.proxy.backends import NameResolver, servers_of_backends
from headcount.proxy.membership import Membership, ProxiedUnit, decode_units, encode_units
from headcount.proxy.proxy_config import BackendServers, HaproxyServer, ProxyConfig, server_name
from headcount.proxy.reconcile import MAX_LINGER_S, Reconciler
from headcount.proxy.runtime_api import HaproxyServerStatus

UP = HaproxyServerStatus("UP", 0, 1)


def table(*units: str, now_s: float = 100.0, silent_s: float = 0.0, draining: str = "") -> UnitTable:
    """A table of these units, all with a heartbeat `silent_s` ago."""
    return UnitTable(
        now_s,
        {
            name: (
                BrokerUnit(
                    *(name, "0", "2", "10.0.0.1", 1, 2, 3),
                    state="draining" if name == draining else "up",
                    connections=0,
                    messages_per_s=0,
                    cpu_s=0,
                    started_s=0,
                ),
                now_s - silent_s,
            )
            for name in units
        },
    )


def server(name: str = "b1", *, draining: bool = False) -> HaproxyServer:
    """The MQTT server of a unit."""
    return HaproxyServer(server_name(name, "10.0.0.1", 1883), "10.0.0.1", 1883, 8081, name, draining)


def test_a_draining_unit_stays_until_it_is_gone() -> None:
    """A draining unit stays as draining, and is removed with its key."""
    membership = Membership()
    membership.observe(table("b1", "b2", draining="b1"), 0.0)
    assert membership.units["b1"].draining
    membership.observe(table("b2"), 0.5)
    assert set(membership.units) == {"b2"}


def test_a_missing_unit_is_removed_after_a_while() -> None:
    """A unit that is missing for a moment stays; one that stays missing is removed."""
    membership = Membership()
    membership.observe(table("b1", "b2"), 0.0)
    membership.observe(table("b2"), 1.0)
    membership.observe(table("b1", "b2"), 2.0)
    membership.observe(table("b2"), 3.0)
    membership.observe(table("b2"), 5.5)
    assert set(membership.units) == {"b1", "b2"}
    membership.observe(table("b2"), 6.5)
    assert set(membership.units) == {"b2"}


def test_units_that_are_missing_together_stay() -> None:
    """When all reports are missing, as after a time without answers of the core, no unit is removed."""
    membership = Membership()
    membership.observe(table("b1", "b2"), 0.0)
    for now_s in (1.0, 5.0, 60.0):
        membership.observe(table(), now_s)
    assert set(membership.units) == {"b1", "b2"}
    membership.observe(table("b2"), 61.0)
    assert set(membership.units) == {"b2"}


def test_without_the_core_nothing_changes() -> None:
    """Without the core the units stay, and missed heartbeats do not count afterwards."""
    membership = Membership()
    membership.observe(table("b1", "b2"), 0.0)
    for second in range(1, 60):
        membership.observe(None, second)
    assert set(membership.units) == {"b1", "b2"}
    membership.observe(table("b1", "b2", silent_s=60), 60.0)
    assert membership.abandoned({"b1"}, 60.0) == set()


def test_an_unhealthy_unit_without_heartbeats_is_abandoned() -> None:
    """A unit is abandoned if heartbeats and checks fail, and only if another unit can take its devices."""
    membership = Membership()
    for second in range(8):
        heard = table("b2").units | table("b1", silent_s=second).units
        membership.observe(UnitTable(100.0, heard), second)
    assert membership.abandoned(set(), 20.0) == set()
    assert membership.abandoned({"b1"}, 20.0) == {"b1"}
    assert membership.abandoned({"b1", "b2"}, 20.0) == set()


def test_units_are_remembered() -> None:
    """Encoded units are decoded again, and an invalid file has no units."""
    unit = ProxiedUnit("b1", "host", 1, 2, 3, draining=True)
    assert decode_units(encode_units({"b1": unit})) == [unit]
    assert decode_units(b"{") == []


def test_a_new_server_is_added_checked_and_made_ready() -> None:
    """HAProxy adds a server in maintenance and without checks: both are changed."""
    told = Reconciler(0.5).commands({"mqtt": [server()]}, {}, (), 0.0)
    assert told == [
        "add server mqtt/b1-10.0.0.1-1883 10.0.0.1:1883 weight 1 check port 8081 inter 500ms fall 2 rise 2",
        "enable health mqtt/b1-10.0.0.1-1883",
        "set server mqtt/b1-10.0.0.1-1883 state ready",
    ]


def test_no_commands_if_nothing_changed() -> None:
    """There is no command if HAProxy's servers are the wanted ones."""
    name = server().name
    assert Reconciler(0.5).commands({"mqtt": [server()]}, {"mqtt": {name: UP}}, (), 0.0) == []
    draining = HaproxyServerStatus("DRAIN", 7, 0)
    assert (
        Reconciler(0.5).commands({"mqtt": [server(draining=True)]}, {"mqtt": {name: draining}}, (), 0.0) == []
    )


def test_draining_is_a_weight() -> None:
    """A draining server gets weight 0, one that stops draining gets weight 1."""
    name = server().name
    down = Reconciler(0.5).commands({"mqtt": [server(draining=True)]}, {"mqtt": {name: UP}}, (), 0.0)
    assert down == [f"set server mqtt/{name} weight 0"]
    up = Reconciler(0.5).commands(
        {"mqtt": [server()]}, {"mqtt": {name: HaproxyServerStatus("DRAIN", 7, 0)}}, (), 0.0
    )
    assert up == [f"set server mqtt/{name} weight 1"]


def test_a_server_is_removed_when_its_connections_have_ended() -> None:
    """A removed server gets no new connections, and is deleted when the last one has ended or after a while."""
    plan, name = Reconciler(0.5), server().name
    busy, idle = HaproxyServerStatus("MAINT", 3, 1), HaproxyServerStatus("MAINT", 0, 1)
    assert plan.commands({"mqtt": []}, {"mqtt": {name: HaproxyServerStatus("UP", 3, 1)}}, (), 0.0) == [
        f"set server mqtt/{name} state maint"
    ]
    assert plan.commands({"mqtt": []}, {"mqtt": {name: busy}}, (), 1.0) == []
    late = plan.commands({"mqtt": []}, {"mqtt": {name: busy}}, (), MAX_LINGER_S + 0.5)
    assert late == [f"shutdown sessions server mqtt/{name}"]
    gone = plan.commands({"mqtt": []}, {"mqtt": {name: idle}}, (), MAX_LINGER_S + 1)
    assert gone == [f"del server mqtt/{name}"]


def test_an_abandoned_unit_loses_its_connections() -> None:
    """The sessions of an abandoned unit are closed in each backend."""
    name = server().name
    pools = {"mqtt": [server()], "ws": [server()]}
    standing = {
        "mqtt": {name: HaproxyServerStatus("DOWN", 5, 1)},
        "ws": {name: HaproxyServerStatus("DOWN", 0, 1)},
    }
    told = Reconciler(0.5).commands(pools, standing, {"b1"}, 0.0)  # type: ignore[arg-type]
    assert told == [f"shutdown sessions server mqtt/{name}"]


def test_a_server_that_returns_is_made_ready() -> None:
    """A wanted server in maintenance is made ready."""
    name = server().name
    told = Reconciler(0.5).commands(
        {"mqtt": [server()]}, {"mqtt": {name: HaproxyServerStatus("MAINT", 2, 1)}}, (), 0.0
    )
    assert told == [f"enable health mqtt/{name}", f"set server mqtt/{name} state ready"]


class _SlowResolver(NameResolver):
    """A resolver that answers only after `together` requests."""

    def __init__(self, together: int) -> None:
        """Count the requests."""
        super().__init__(lambda: 0.0)
        self._asked = asyncio.Barrier(together)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """An address with the host's number."""
        await self._asked.wait()
        return (f"10.0.0.{host[1:]}",)


async def test_names_are_resolved_concurrently() -> None:
    """A slow resolver delays only once, whatever the number of units and APIs."""
    units = {f"b{i}": ProxiedUnit(f"b{i}", f"h{i}", 1883, 9001, 8081) for i in (1, 2)}

    async def check() -> BackendServers:
        async with asyncio.timeout(120):
            return await servers_of_backends(ProxyConfig(), units, [("h3", 8080)], _SlowResolver(3))

    pools = await check()
    assert [server.address for server in pools["mqtt"]] == ["10.0.0.1", "10.0.0.2"]
    assert [server.address for server in pools["api"]] == ["10.0.0.3"]
