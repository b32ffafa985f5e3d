"""Who belongs behind the balancer, and what HAProxy is told about it: pure, with a clock by hand."""

from __future__ import annotations

import asyncio

from headcount.messages.units import BrokerUnit
from headcount.messaging.units import UnitTable
from headcount.proxy.backends import pools_of
from headcount.proxy.haproxy_config import Pools, ProxyConfig, Server, server_name
from headcount.proxy.membership import Membership, Unit, heard_as, read_heard
from headcount.proxy.reconcile import LINGER_S, Plan
from headcount.proxy.resolver import Names
from headcount.proxy.runtime_api import Status

UP = Status("UP", 0, 1)


def table(*units: str, now_s: float = 100.0, silent_s: float = 0.0, draining: str = "") -> UnitTable:
    """These units, all having spoken `silent_s` ago."""
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


def server(name: str = "b1", *, draining: bool = False) -> Server:
    """The MQTT server of a unit."""
    return Server(server_name(name, "10.0.0.1", 1883), "10.0.0.1", 1883, 8081, name, draining)


def test_a_draining_unit_stays_until_it_is_gone() -> None:
    """A unit that says it drains is kept as draining, and dropped as soon as its key is."""
    membership = Membership()
    membership.observe(table("b1", "b2", draining="b1"), 0.0)
    assert membership.units["b1"].draining
    membership.observe(table("b2"), 0.5)
    assert set(membership.units) == {"b2"}


def test_a_missing_unit_has_a_moment() -> None:
    """A core that lost its table for a moment takes no unit out; one that stays missing goes."""
    membership = Membership()
    membership.observe(table("b1"), 0.0)
    membership.observe(table(), 1.0)
    membership.observe(table("b1"), 2.0)
    membership.observe(table(), 3.0)
    membership.observe(table(), 5.5)
    assert set(membership.units) == {"b1"}
    membership.observe(table(), 6.5)
    assert not membership.units


def test_without_the_core_nothing_changes() -> None:
    """While the core is away the units stay, and their silence isn't held against them afterwards."""
    membership = Membership()
    membership.observe(table("b1", "b2"), 0.0)
    for second in range(1, 60):
        membership.observe(None, second)
    assert set(membership.units) == {"b1", "b2"}
    membership.observe(table("b1", "b2", silent_s=60), 60.0)
    assert membership.abandoned({"b1"}, 60.0) == set()


def test_a_silent_and_unhealthy_unit_is_abandoned() -> None:
    """Only silence and failed checks together, and only where another unit can take its devices."""
    membership = Membership()
    for second in range(8):
        heard = table("b2").units | table("b1", silent_s=second).units
        membership.observe(UnitTable(100.0, heard), second)
    assert membership.abandoned(set(), 20.0) == set()
    assert membership.abandoned({"b1"}, 20.0) == {"b1"}
    assert membership.abandoned({"b1", "b2"}, 20.0) == set()


def test_units_are_remembered() -> None:
    """What is written is read again, and rubbish is nobody."""
    unit = Unit("b1", "host", 1, 2, 3, draining=True)
    assert read_heard(heard_as({"b1": unit})) == [unit]
    assert read_heard(b"{") == []


def test_a_new_server_is_added_checked_and_made_ready() -> None:
    """HAProxy begins with a new server in maintenance and without checks: both are switched on."""
    told = Plan(0.5).commands({"mqtt": [server()]}, {}, (), 0.0)
    assert told == [
        "add server mqtt/b1-10.0.0.1-1883 10.0.0.1:1883 weight 1 check port 8081 inter 500ms fall 2 rise 2",
        "enable health mqtt/b1-10.0.0.1-1883",
        "set server mqtt/b1-10.0.0.1-1883 state ready",
    ]


def test_no_commands_if_nothing_changed() -> None:
    """Where HAProxy has what it should have, there is no command."""
    name = server().name
    assert Plan(0.5).commands({"mqtt": [server()]}, {"mqtt": {name: UP}}, (), 0.0) == []
    draining = Status("DRAIN", 7, 0)
    assert Plan(0.5).commands({"mqtt": [server(draining=True)]}, {"mqtt": {name: draining}}, (), 0.0) == []


def test_draining_is_a_weight() -> None:
    """A server that begins to drain gets weight 0, one that is back gets weight 1."""
    name = server().name
    down = Plan(0.5).commands({"mqtt": [server(draining=True)]}, {"mqtt": {name: UP}}, (), 0.0)
    assert down == [f"set server mqtt/{name} weight 0"]
    up = Plan(0.5).commands({"mqtt": [server()]}, {"mqtt": {name: Status("DRAIN", 7, 0)}}, (), 0.0)
    assert up == [f"set server mqtt/{name} weight 1"]


def test_a_server_goes_when_its_connections_have_ended() -> None:
    """Out of service at once, deleted without connections, and not kept for ever by those that stay."""
    plan, name = Plan(0.5), server().name
    busy, idle = Status("MAINT", 3, 1), Status("MAINT", 0, 1)
    assert plan.commands({"mqtt": []}, {"mqtt": {name: Status("UP", 3, 1)}}, (), 0.0) == [
        f"set server mqtt/{name} state maint"
    ]
    assert plan.commands({"mqtt": []}, {"mqtt": {name: busy}}, (), 1.0) == []
    late = plan.commands({"mqtt": []}, {"mqtt": {name: busy}}, (), LINGER_S + 0.5)
    assert late == [f"shutdown sessions server mqtt/{name}"]
    gone = plan.commands({"mqtt": []}, {"mqtt": {name: idle}}, (), LINGER_S + 1)
    assert gone == [f"del server mqtt/{name}"]


def test_an_abandoned_unit_loses_its_connections() -> None:
    """Its sessions are shut down in each backend where it has some."""
    name = server().name
    pools = {"mqtt": [server()], "ws": [server()]}
    standing = {"mqtt": {name: Status("DOWN", 5, 1)}, "ws": {name: Status("DOWN", 0, 1)}}
    told = Plan(0.5).commands(pools, standing, {"b1"}, 0.0)  # type: ignore[arg-type]
    assert told == [f"shutdown sessions server mqtt/{name}"]


def test_one_that_comes_back_is_made_ready() -> None:
    """A server left in maintenance that belongs again is put into service."""
    name = server().name
    told = Plan(0.5).commands({"mqtt": [server()]}, {"mqtt": {name: Status("MAINT", 2, 1)}}, (), 0.0)
    assert told == [f"enable health mqtt/{name}", f"set server mqtt/{name} state ready"]


class _SlowNames(Names):
    """A resolver that answers nobody before it was asked for `together` names."""

    def __init__(self, together: int) -> None:
        """Count."""
        super().__init__(lambda: 0.0)
        self._asked = asyncio.Barrier(together)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """An address that has the host's number."""
        await self._asked.wait()
        return (f"10.0.0.{host[1:]}",)


async def test_names_are_asked_for_all_at_once() -> None:
    """A resolver that takes its time is waited for once, whatever the number of units and APIs."""
    units = {f"b{i}": Unit(f"b{i}", f"h{i}", 1883, 9001, 8081) for i in (1, 2)}

    async def check() -> Pools:
        async with asyncio.timeout(10):
            return await pools_of(ProxyConfig(), units, [("h3", 8080)], _SlowNames(3))

    pools = await check()
    assert [server.address for server in pools["mqtt"]] == ["10.0.0.1", "10.0.0.2"]
    assert [server.address for server in pools["api"]] == ["10.0.0.3"]
