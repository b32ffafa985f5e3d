"""What an operator may set; flag > environment > file > default is click's work in `cli.py`."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from headcount.errors import SettingsError
from headcount.messages.topics import ID

DEFAULT_DATA = Path("headcount-data")
#: The site file where none is named.
DEFAULT_SITE = Path("site.geojson")
ENVIRONMENT = "HEADCOUNT_"
LOOPBACK = "127.0.0.1"
#: Addresses that mean "all of this machine's".
ANY = ("0.0.0.0", "::")
#: Counts below this aren't told to the public.
SMALLEST_SHOWN = 5

Address = tuple[str, int]


#: The ports of devices and browsers: plain, and with TLS (8883 is MQTT's own by IANA).
PUBLIC_PORTS = {"mqtt_port": (1883, 8883), "ws_port": (9001, 9443), "http_port": (8080, 8443)}


def wants_tls(tls: str, host: str) -> bool:
    """Whether a setting of `--tls` means it, where we listen on `host`."""
    return tls in ("on", "proxy") or (tls == "auto" and host not in (LOOPBACK, "localhost", "::1"))


def with_ports(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a command line with those ports that weren't given: the usual ones, with TLS or without."""
    encrypted = wants_tls(values["tls"], values["host"])
    usual = {
        name: ports[encrypted and (values["tls"] != "proxy" or name == "mqtt_port")]
        for name, ports in PUBLIC_PORTS.items()
    }
    return values | {name: values.get(name) or port for name, port in usual.items()}


def machine_name() -> str:
    """This machine's name, cut to what names may hold."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or "headcount"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment; every role of it gets the same, but for its name and its own ports."""

    site: Path
    data: Path = DEFAULT_DATA
    mqtt_port: int = 1883
    ws_port: int = 9001
    http_port: int = 8080
    nats_port: int = 4222
    monitor_port: int = 8222
    partitions: int = 16
    host: str = LOOPBACK
    open: bool = False
    suppress_below: int | None = None
    tls: Literal["auto", "on", "off", "proxy"] = "auto"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    device_fixes_per_s: float = 5.0
    device_bytes_per_s: int = 64 << 10
    # --- signing in over HTTP
    public_url: str = ""
    trusted_proxies: str = ""
    requests_per_s: float = 100.0
    oidc_issuer: str = ""
    oidc_client_id: str = "headcount"
    oidc_client_secret_file: Path | None = None
    oidc_role_claim: str = "groups"
    speed: float = 1.0
    # --- more than one machine
    name: str = field(default_factory=machine_name)
    inside_host: str = LOOPBACK
    advertise: str = ""
    core: str = ""
    core_mqtt: str = ""
    peers: str = ""
    devices: bool = True
    leaf_port: int = 7422
    cluster_port: int = 6222
    health_port: int = 8081
    api: str = "api:8080"
    drain_s: float = 20.0
    stop_s: float = 10.0
    secret_file: Path | None = None

    def __post_init__(self) -> None:
        """Check what one value can't show by itself.

        Raises:
            SettingsError: if values are out of range or don't go together.
        """
        ranges = (
            ("--speed", self.speed, 0.01, 10_000),
            ("--device-fixes-per-s", self.device_fixes_per_s, 0.01, 100_000),
            ("--device-bytes-per-s", self.device_bytes_per_s, 1_000, 10**9),
            ("--requests-per-s", self.requests_per_s, 0.1, 1_000_000),
            ("--drain-s", self.drain_s, 0, 3600),
            ("--stop-s", self.stop_s, 0.1, 3600),
        )
        for option, value, least, most in ranges:
            if not least <= value <= most:
                raise SettingsError(option, f"{value:g} is not within {least:g} to {most:.0f}")
        if self.partitions < 1 or self.partitions > 512:
            raise SettingsError("--partitions", f"{self.partitions} is not within 1 to 512")
        if ID.fullmatch(self.name) is None:
            raise SettingsError("--name", f"{self.name!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
        if self.suppress_below is not None and not 1 <= self.suppress_below <= 1000:
            raise SettingsError("--suppress-below", f"{self.suppress_below} is not within 1 to 1000")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert", "a certificate and its key (--tls-key) go together")
        if self.client_ca is not None and not self.encrypted:
            raise SettingsError("--client-ca", "devices can only show a certificate over TLS: --tls on")
        hosts = {"--host": self.host, "--inside-host": self.inside_host, "--advertise": self.advertise}
        for option, host in hosts.items():
            if host and re.fullmatch(r"[0-9A-Za-z.:_-]+", host) is None:
                raise SettingsError(option, f"{host!r} is no address or name of a machine")
        self._check_ports()
        self._check_sign_in()
        addresses("--core", self.core, self.nats_port)
        addresses("--api", self.api, self.http_port)
        addresses("--core-mqtt", self.core_mqtt, self.mqtt_port)
        if len(addresses("--peers", self.peers, self.cluster_port)) not in (0, 1, 3):
            raise SettingsError("--peers", f"{self.peers!r}: a core is 1 node or 3")
        if self.replicas > 1 and self.devices:
            raise SettingsError(
                "--devices", "devices reach a core of three nodes through brokers: --no-devices"
            )

    def _check_sign_in(self) -> None:
        if self.public_url and re.fullmatch(r"https?://[0-9A-Za-z.:\[\]-]+/?", self.public_url) is None:
            raise SettingsError(
                "--public-url", f"{self.public_url!r}: use https://HOST or http://HOST:PORT, without a path"
            )
        try:
            for part in filter(None, self.trusted_proxies.split(",")):
                ipaddress.ip_network(part.strip(), strict=False)
        except ValueError as error:
            raise SettingsError("--trusted-proxies", str(error)) from error
        if (
            self.oidc_issuer
            and re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", self.oidc_issuer) is None
        ):
            raise SettingsError(
                "--oidc-issuer", f"{self.oidc_issuer!r}: use https://…; http:// on this machine only"
            )
        if self.oidc_client_secret_file is not None and not self.oidc_issuer:
            raise SettingsError("--oidc-client-secret-file", "is of no use without --oidc-issuer")

    def _check_ports(self) -> None:
        ports = {
            "--mqtt-port": self.mqtt_port,
            "--ws-port": self.ws_port,
            "--http-port": self.http_port,
            "--nats-port": self.nats_port,
            "--monitor-port": self.monitor_port,
        }
        taken: dict[int, str] = {}
        for option, port in ports.items():
            if port in taken:
                raise SettingsError(option, f"{port} is the port of {taken[port]} already")
            taken[port] = option

    @property
    def smallest_shown(self) -> int:
        """The smallest count that the public is told (k); 1 = all, as where everything is open."""
        return (
            self.suppress_below if self.suppress_below is not None else (1 if self.open else SMALLEST_SHOWN)
        )

    @property
    def encrypted(self) -> bool:
        """Whether devices and browsers speak TLS: by default where they come from other machines."""
        return wants_tls(self.tls, self.host)

    @property
    def encrypts_http(self) -> bool:
        """Whether the API itself speaks TLS, and not a balancer ahead of it."""
        return self.encrypted and self.tls != "proxy"

    @property
    def core_takes_tls(self) -> bool:
        """Whether our own MQTT clients meet TLS: where devices come to the same port of this machine."""
        return self.encrypted and self.devices and not self.core and not self.core_mqtt

    @property
    def advertised(self) -> str:
        """Under which other units reach this one."""
        return self.advertise or (socket.gethostname() if self.inside_host in ANY else self.inside_host)

    @property
    def core_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core are, for NATS clients."""
        return addresses("--core", self.core, self.nats_port) or ((LOOPBACK, self.nats_port),)

    @property
    def core_leaf_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core take brokers."""
        return tuple((host, self.leaf_port) for host, _ in self.core_addresses)

    @property
    def core_mqtt_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core take retained counts over MQTT."""
        return addresses("--core-mqtt", self.core_mqtt, self.mqtt_port) or tuple(
            (host, self.mqtt_port) for host, _ in self.core_addresses
        )

    @property
    def api_addresses(self) -> tuple[Address, ...]:
        """Where the balancer finds the API."""
        return addresses("--api", self.api, self.http_port)

    @property
    def peer_addresses(self) -> tuple[Address, ...]:
        """The nodes of the core as they reach each other; none where there is one."""
        peers = addresses("--peers", self.peers, self.cluster_port)
        return peers if len(peers) > 1 else ()

    @property
    def replicas(self) -> int:
        """On how many nodes of the core each stream is."""
        return len(self.peer_addresses) or 1

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a role in a process of its own."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in (
            "data", "site", "secret_file", "tls_cert", "tls_key", "client_ca", "oidc_client_secret_file",
        ):  # fmt: skip
            values[name] = values[name] and values[name].resolve()
        ours = {
            f"{ENVIRONMENT}{name.upper()}": str(value) for name, value in values.items() if value is not None
        }
        return {**os.environ, **ours}


def site_path(site: Path | None) -> Path | None:
    """The site file to use: `site`, else `site.geojson` in this folder if it exists."""
    here = Path("site.geojson")
    return site or (here if here.exists() else None)


def joined(*found: Address) -> str:
    """Addresses as a setting has them."""
    return ",".join(f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in found)


def addresses(option: str, text: str, port: int) -> tuple[Address, ...]:
    """`host:port,host` as addresses; `port` is for those that name none.

    Raises:
        SettingsError: if one can't be read.
    """
    return tuple(_address(option, part.strip(), port) for part in text.split(",") if part.strip())


def _address(option: str, text: str, port: int) -> Address:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::(\d{1,5}))?", text)
    if match is None or not 1 <= int(match[2] or port) <= 65535:
        raise SettingsError(option, f"{text!r}: use HOST:PORT, several with commas between")
    host = match[1].strip("[]")
    if match[1].startswith("["):
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise SettingsError(option, f"{text!r}: {error}") from error
    return host, int(match[2] or port)
