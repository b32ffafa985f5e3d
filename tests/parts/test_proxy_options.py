"""The balancer's options from variables, and the table of units from a real core."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from pathlib import Path

import pytest

from headcount.broker.config import INTERNAL
from headcount.cluster.units import Units
from headcount.errors import LogError, SettingsError
from headcount.fixlog.connection import Endpoint
from headcount.proxy.options import ProxyOptions, variable
from headcount.proxy.source import CoreUnits
from headcount.wire import BrokerUnit
from nats_fixture import config_for, internal_client, open_broker


def test_options_come_from_variables() -> None:
    """Each variable is read as its kind; what isn't set has its default."""
    options = ProxyOptions.from_environment(
        {
            "HEADCOUNT_PROXY_APIS": "api:8080, other:80",
            "HEADCOUNT_PROXY_BALANCE": "source",
            "HEADCOUNT_PROXY_UNLIMITED": "10.0.0.0/8,fd00::/8",
            "HEADCOUNT_PROXY_OPEN_PER_ADDRESS": "7",
            "HEADCOUNT_PROXY_DEVICE_IDLE_S": "60.5",
        }
    )
    assert options.balance == "source"
    limits = options.limits()
    assert limits.unlimited == ("10.0.0.0/8", "fd00::/8")
    assert limits.open_per_address == 7
    assert limits.device_idle_s == 60.5
    assert limits.max_connections is None
    assert options.program_path() is None


def test_each_option_is_told_to_operators() -> None:
    """Every variable stands in the guide to operating."""
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "operate.md").read_text()
    names = {variable(field.name) for field in dataclasses.fields(ProxyOptions)}
    assert {name for name in names if f"`{name}`" not in guide} == set()


@pytest.mark.parametrize(
    ("name", "value"), [("BALANCE", "random"), ("OPEN_PER_ADDRESS", "many"), ("NEW_PER_ADDRESS_10S", "0")]
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    """The error names the variable."""
    with pytest.raises(SettingsError, match=name):
        ProxyOptions.from_environment({f"HEADCOUNT_PROXY_{name}": value})


def test_the_core_may_come_later_and_go(tmp_path: Path) -> None:
    """Without a core the table is a LogError each time; with one it is there, without a restart."""

    async def scenario() -> None:
        config = config_for(tmp_path)
        endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        async with CoreUnits(endpoint) as units:
            with pytest.raises(LogError):
                await units.table()
            async with open_broker(tmp_path, nats_port=config.nats_port) as core:
                client = await internal_client(core)
                unit = BrokerUnit("b1", "0", "2", "h", 1, 2, 3, "up", 0, 0.0, 0.0, 0.0)
                await Units(client, client.jetstream()).speak(unit)
                heard: set[str] = set()
                while not heard:
                    with suppress(LogError):
                        heard = set((await units.table()).alive())
                    await asyncio.sleep(0.1)
                assert heard == {"b1"}
                await client.close()
            with pytest.raises(LogError):
                await units.table()

    asyncio.run(scenario())
