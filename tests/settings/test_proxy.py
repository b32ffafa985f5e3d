"""The balancer's options, from variables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headcount.errors import SettingsError
from headcount.proxy.proxy_settings import ProxyOptions, variable


def test_options_come_from_variables() -> None:
    """Each variable is read as its kind; what isn't set has its default."""
    options = ProxyOptions.from_environment(
        {
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
    config = options.config("0.0.0.0", (1883, None, None), "127.0.0.1", 8081)
    assert (config.balance, config.limits, config.tls) == ("source", limits, False)


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
