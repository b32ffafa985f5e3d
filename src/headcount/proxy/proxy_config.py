"""The configuration of the balancer: listeners, limits, and the servers of each backend; pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from headcount.errors import SettingsError
from headcount.messages.topics import ID_PATTERN
from headcount.settings.formats import split
from headcount.settings.proxy import BalanceAlgorithm, ProxySettings

#: Files in the balancer's folder.
CONFIG_FILE, SOCKET_FILE, STATE_FILE = "haproxy.cfg", "runtime.sock", "servers.state"
#: The certificate with its key, the accepted client certificates of WebSockets, and the banned addresses.
PEM_FILE, CLIENTS_FILE = "server.pem", "clients.pem"
BANNED_FILE = "banned.acl"
Backend = Literal["mqtt", "ws", "api", "api_alive"]
_DEFAULTS = ProxySettings()


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """Limits per address and per connection.

    A whole campus may have one address (NAT): the defaults per address are for a campus, not for a person.
    Addresses in `unlimited` (networks like `10.0.0.0/8`) are never rejected.
    """

    #: New connections of one address within 10 s; further ones are closed immediately and not counted.
    new_per_address_10s: int = _DEFAULTS.new_per_address_10s
    #: Open connections of one address.
    open_per_address: int = _DEFAULTS.open_per_address
    unlimited: tuple[str, ...] = ()
    #: Open connections in total; None: as many as the limit of open files allows.
    max_connections: int | None = None
    #: Idle time after which a device's connection is closed: 1.5 times the longest reasonable keepalive. Apps on
    #: phones use up to an hour; 7 200 s allow keepalives of 80 minutes.
    device_idle_s: float = _DEFAULTS.device_idle_s
    #: Idle time after which an HTTP connection is closed; the live stream sends every second.
    http_idle_s: float = 60.0
    #: Time for a connection to send its CONNECT or HTTP request.
    first_packet_s: float = 10.0
    #: Time for which the old process keeps its connections after a reload.
    hard_stop_s: float = 86_400.0
    check_every_s: float = 0.5


def address_limits(settings: ProxySettings) -> ProxyLimits:
    """The limits in the settings."""
    return ProxyLimits(
        new_per_address_10s=settings.new_per_address_10s,
        open_per_address=settings.open_per_address,
        unlimited=split(settings.unlimited),
        max_connections=settings.max_connections or None,
        device_idle_s=settings.device_idle_s,
    )


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The configuration of HAProxy; a port of None omits its frontend.

    Raises:
        SettingsError: a value is not valid.
    """

    host: str = "127.0.0.1"
    mqtt_port: int = 1883
    ws_port: int | None = 9001
    http_port: int | None = 8080
    #: Health and metrics of the balancer itself, on `internal_host`.
    health_port: int | None = None
    internal_host: str = "127.0.0.1"
    #: Whether devices and browsers use TLS; with `PEM_FILE` in the folder.
    tls: bool = False
    #: Whether WebSockets must present a certificate of `CLIENTS_FILE`. For MQTT, the brokers require it.
    client_certificates: bool = False
    balance: BalanceAlgorithm = _DEFAULTS.balance
    limits: ProxyLimits = ProxyLimits()

    def __post_init__(self) -> None:
        for _, option, _, port in self.ports():
            _require(1 <= port <= 65535, option, f"{port} is not a port, use 1 to 65535")
        numbers = [port for *_, port in self.ports()]
        _require(len(set(numbers)) == len(numbers), "--mqtt-port", f"the ports {numbers} must differ")
        for host in (self.host, self.internal_host):
            _require(re.fullmatch(r"[0-9A-Za-z.:%_-]+", host) is not None, "listen address", f"{host!r}")
        _require(
            self.balance in get_args(BalanceAlgorithm),
            "--proxy-balance",
            f"use one of {', '.join(get_args(BalanceAlgorithm))}",
        )
        for network in self.limits.unlimited:
            _require(
                _is_network(network), "--proxy-unlimited", f"{network!r} is not a network like 10.0.0.0/8"
            )

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Purpose, option, host and port of each listener."""
        every = (
            ("MQTT", "--mqtt-port", self.host, self.mqtt_port),
            ("WebSocket", "--ws-port", self.host, self.ws_port),
            ("HTTP", "--http-port", self.host, self.http_port),
            ("health", "--health-port", self.internal_host, self.health_port),
        )
        return [(purpose, option, host, port) for purpose, option, host, port in every if port is not None]


@dataclass(frozen=True, slots=True)
class HaproxyServer:
    """One server of a backend.

    `address` is an IP address: HAProxy resolves no names for us. `check_port` is the port of its health check. A
    draining server keeps its connections and gets no new ones. `unit` is the name of its unit.

    Raises:
        SettingsError: a name or address is not valid in a configuration.
    """

    name: str
    address: str
    port: int
    check_port: int
    unit: str = ""
    draining: bool = False

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"[A-Za-z0-9_.:-]{1,200}", self.name) is not None, "server", repr(self.name))
        _require(_is_network(self.address), "server address", f"{self.address!r} is not an IP address")


#: Backend → its servers.
BackendServers = Mapping[Backend, Sequence[HaproxyServer]]


def server_name(unit: str, address: str, port: int) -> str:
    """The name of a unit's server; a unit with a new address is another server.

    Raises:
        SettingsError: the unit's name is not valid.
    """
    _require(re.fullmatch(ID_PATTERN, unit) is not None, "unit", f"{unit!r} is not a valid name")
    return f"{unit}-{address}-{port}"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise SettingsError(name, problem)
