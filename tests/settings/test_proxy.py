"""The settings of the balancer, as its configuration takes them."""

from __future__ import annotations

import pytest

from headcount.errors import SettingsError
from headcount.proxy.proxy_config import ProxyLimits, address_limits
from headcount.settings.proxy import ProxySettings


def test_limits_come_from_settings() -> None:
    """Each limit per address arrives in the configuration, and the defaults are the same on both sides."""
    assert address_limits(ProxySettings()) == ProxyLimits()
    limits = address_limits(
        ProxySettings(
            unlimited="10.0.0.0/8, fd00::/8", open_per_address=7, max_connections=9, device_idle_s=60.5
        )
    )
    assert limits == ProxyLimits(
        unlimited=("10.0.0.0/8", "fd00::/8"), open_per_address=7, max_connections=9, device_idle_s=60.5
    )


def test_networks_are_checked() -> None:
    """A text that is not a network is rejected with the key of the setting."""
    with pytest.raises(SettingsError, match=r"proxy\.unlimited: 'everybody' is not a valid list of networks"):
        ProxySettings(unlimited="everybody")
