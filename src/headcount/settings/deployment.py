"""The settings of one deployment: what the operator of headcount sets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headcount.errors import SettingsError
from headcount.settings.bridge import BridgeSettings
from headcount.settings.environment import process_environment
from headcount.settings.formats import (
    ADDRESSES,
    HISTORY_PLACE,
    HOST,
    ISSUER,
    NAME,
    NETWORKS,
    ORIGINS,
    PUBLIC_URL,
    Address,
    addresses,
    local_host,
)
from headcount.settings.model import check_all, setting, settings_of
from headcount.settings.proxy import ProxySettings
from headcount.settings.retention_periods import RETAIN
from headcount.settings.scaling import ScaleSettings

#: Read by `headcount` where neither `--config` nor this variable names another file than headcount.toml.
CONFIG_VARIABLE = "HEADCOUNT_CONFIG"
LOOPBACK = "127.0.0.1"
#: Addresses that mean all addresses of this machine.
ANY = ("0.0.0.0", "::")
#: In the data folder: the NATS port of the core that runs there.
PORT_FILE = "broker.port"
#: Counts below this are not shown to the public.
SMALLEST_SHOWN = 5

STORAGE = "Site and storage"
NETWORK = "Ports and addresses"
TLS_GROUP = "TLS"
ACCESS = "Access and limits"
SIGN_IN = "Sign-in"
OPERATION = "Operation"
CLUSTER = "Cluster"
#: The groups of settings that each command for a deployment accepts.
DEPLOYMENT_GROUPS = (STORAGE, NETWORK, TLS_GROUP, ACCESS, SIGN_IN, OPERATION)

_storage = partial(setting, group=STORAGE)
_network = partial(setting, group=NETWORK)
_tls = partial(setting, group=TLS_GROUP)
_access = partial(setting, group=ACCESS)
_sign_in = partial(setting, group=SIGN_IN)
_operation = partial(setting, group=OPERATION)
_port = partial(setting, group=NETWORK, low=1, high=65_535)
_cluster = partial(setting, group=CLUSTER)


def machine_name() -> str:
    """This machine's name, cut to what names may hold."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or "headcount"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment. Each of its processes gets the same settings, except for its name and its own ports."""

    site: Path = _storage(Path("site.geojson"), "Site file (GeoJSON).")
    data: Path = _storage(
        Path("headcount-data"),
        "Folder for everything that is stored, and for the deployment's secret.",
        folder=True,
    )
    history: str = _storage(
        "",
        "Where the history is stored: s3://BUCKET/PREFIX, with endpoint and credentials in the usual AWS_* "
        "variables, or a folder.",
        format=HISTORY_PLACE,
        default_text="the folder history in the data folder",
    )
    partitions: int = _storage(
        16, "Number of log partitions; it cannot change once the data folder exists.", low=1, high=512
    )
    retain: str = _storage(
        "",
        "How long data sets of the history, and kinds in them, are kept, such as fixes=24h,fixes.vehicle=6h.",
        format=RETAIN,
        default_text="fixes, counts and events 24h, minutes and flows 400d",
    )
    host: str = _network(
        LOOPBACK,
        "Address that devices and browsers connect to; 0.0.0.0 for all of IPv4, :: for all addresses.",
        format=HOST,
    )
    mqtt_port: int = _port(None, "Port for MQTT, for devices.", default_text="1883, with TLS 8883")
    ws_port: int = _port(
        None, "Port for MQTT over WebSocket, for browsers.", default_text="9001, with TLS 9443"
    )
    http_port: int = _port(None, "Port for HTTP: map, API, metrics.", default_text="8080, with TLS 8443")
    nats_port: int = _port(4222, "Port for NATS, internal.")
    tls: Literal["auto", "on", "off", "proxy"] = _tls(
        "auto",
        "TLS for devices and browsers; auto: on unless host is a loopback address; "
        "proxy: on for MQTT, but a balancer in front ends it for HTTP and WebSocket.",
    )
    tls_cert: Path | None = _tls(
        None, "Certificate (PEM).", default_text="a self-signed one in the data folder"
    )
    tls_key: Path | None = _tls(
        None, "Private key of the certificate (PEM).", default_text="that of the self-signed one"
    )
    client_ca: Path | None = _tls(
        None, "CA (PEM) whose client certificates devices must present.", default_text="none"
    )
    open: bool = _access(
        False,
        "For evaluation only: devices need no account, programs on this machine have full access, "
        "and small counts are shown.",
    )
    mqtt_origins: str = _access(
        "",
        "Origins of web pages that may connect over MQTT with --open, beside public_url.",
        format=ORIGINS,
        default_text="none",
    )
    embed_origins: str = _access(
        "",
        "Origins of web pages that may show the map in a frame, such as https://www.example.edu.",
        format=ORIGINS,
        default_text="none",
    )
    suppress_below: int | None = _access(
        None,
        "The smallest count that is shown to the public.",
        low=1,
        high=1000,
        default_text="5, with --open 1",
    )
    device_fixes_per_s: float = _access(
        5.0,
        "Fixes per second above which a device with an account is blocked for a while; over HTTP it gets 429.",
        low=0.01,
        high=100_000,
    )
    device_bytes_per_s: int = _access(
        64 << 10,
        "Bytes per second above which a device with an account is blocked for a while.",
        low=1000,
        high=10**9,
    )
    requests_per_s: float = _access(
        100.0,
        "HTTP requests per second of each token and each address; bursts of five seconds' worth are allowed.",
        low=0.1,
        high=1_000_000,
    )
    public_url: str = _sign_in(
        "",
        "URL at which browsers and phones reach headcount, such as https://headcount.example.",
        format=PUBLIC_URL,
        default_text="the one of each request",
    )
    trusted_proxies: str = _sign_in(
        "",
        "Networks of balancers whose X-Forwarded-For header is trusted, such as 10.0.0.0/8,fd00::/8.",
        format=NETWORKS,
        default_text="this machine only",
    )
    oidc_issuer: str = _sign_in(
        "",
        "Issuer of the OpenID Connect identity provider that people sign in with.",
        format=ISSUER,
        default_text="none; sign-in is off",
    )
    oidc_client_id: str = _sign_in("headcount", "Client id at the identity provider.")
    oidc_client_secret_file: Path | None = _sign_in(None, "File with the client secret.", default_text="none")
    oidc_role_claim: str = _sign_in(
        "groups", "Claim of the ID token whose values headcount-ROLE and headcount-ROLE-SITE grant roles."
    )
    speed: float = _operation(
        1.0,
        "Time-lapse factor: hold times are divided by it, speed limits multiplied.",
        low=0.01,
        high=10_000,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = _operation(
        None, "Least severe messages that are logged.", default_text="INFO; for up and demo WARNING"
    )
    name: str = _cluster(
        None,
        "Unique name of this unit.",
        factory=machine_name,
        format=NAME,
        default_text="this machine's name",
    )
    internal_host: str = _cluster(
        LOOPBACK, "Address that the other units of the cluster connect to.", format=HOST
    )
    advertise: str = _cluster(
        "",
        "Host under which other units reach this one.",
        format=HOST,
        default_text="internal_host, or this machine's name",
    )
    core: str = _cluster(
        "", "NATS addresses of the core.", format=ADDRESSES, default_text="127.0.0.1 and the NATS port"
    )
    core_mqtt: str = _cluster(
        "",
        "MQTT addresses of the core.",
        format=ADDRESSES,
        default_text="the hosts of the core and the MQTT port",
    )
    peers: str = _cluster(
        "",
        "Addresses of the cluster ports of the core's three nodes.",
        format=ADDRESSES,
        default_text="none; the core is one node",
    )
    devices: bool = _cluster(True, "Whether the core itself accepts devices, and not brokers only.")
    leaf_port: int = _port(7422, "Port of the core for brokers.", group=CLUSTER)
    cluster_port: int = _port(6222, "Port of the core for its other nodes.", group=CLUSTER)
    health_port: int = _port(
        8081, "HTTP port for health and metrics of a broker, and of the balancer.", group=CLUSTER
    )
    api: str = _cluster(
        "api:8080",
        "Addresses at which the balancer finds the API; each address that a name resolves to is used.",
        format=ADDRESSES,
    )
    drain_s: float = _cluster(
        20.0, "Seconds over which a broker that stops disconnects its devices.", low=0, high=3600
    )
    stop_s: float = _cluster(
        10.0, "Seconds that a process may take to stop before it is killed.", low=0.1, high=3600
    )
    secret_file: Path | None = _cluster(
        None, "File with the secret that all units share.", default_text="secret in the data folder"
    )
    heartbeat_file: Path | None = _cluster(
        None,
        "File that `headcount run` touches each second, for the health check of a container "
        "(`python -m headcount.runtime.health`); the image sets it.",
        default_text="none",
    )
    scale: ScaleSettings = field(default_factory=ScaleSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    bridge: BridgeSettings = field(default_factory=BridgeSettings)

    def __post_init__(self) -> None:
        """Check the values, and choose the ports that are not set.

        Raises:
            SettingsError: a value is out of range, or two contradict each other.
        """
        check_all(self)
        self._choose_port("mqtt_port", 1883, 8883, encrypted=self.encrypted)
        self._choose_port("ws_port", 9001, 9443, encrypted=self.encrypts_http)
        self._choose_port("http_port", 8080, 8443, encrypted=self.encrypts_http)
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            raise SettingsError(missing, "is not set; tls_cert and tls_key belong together")
        if self.client_ca is not None and not self.encrypted:
            raise SettingsError("client_ca", "client certificates need TLS; set tls to on")
        if self.oidc_client_secret_file is not None and not self.oidc_issuer:
            raise SettingsError("oidc_client_secret_file", "has no effect without oidc_issuer; set both")
        if len(addresses(self.peers, self.cluster_port)) not in (0, 1, 3):
            raise SettingsError("peers", f"{self.peers!r} has the wrong number of nodes; use 1 or 3")
        if self.replicas > 1 and self.devices:
            raise SettingsError(
                "devices", "devices connect to a core of three nodes through brokers; use --no-devices"
            )
        self._check_ports()

    def _choose_port(self, name: str, plain: int, with_tls: int, *, encrypted: bool) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, with_tls if encrypted else plain)

    def _check_ports(self) -> None:
        taken: dict[int, str] = {}
        for name in ("mqtt_port", "ws_port", "http_port", "nats_port"):
            port = getattr(self, name)
            if port in taken:
                raise SettingsError(name, f"{port} is also the value of {taken[port]}; choose another port")
            taken[port] = name

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """Build the settings from values by key (`scale.max_workers`).

        Raises:
            SettingsError: a value is out of range, or two contradict each other.
        """
        sections: dict[str, dict[str, Any]] = {"": {}, "scale": {}, "proxy": {}, "bridge": {}}
        declared = settings_of(Settings)
        for key, value in values.items():
            sections[declared[key].section][declared[key].field] = value
        return cls(
            **sections[""],
            scale=ScaleSettings(**sections["scale"]),
            proxy=ProxySettings(**sections["proxy"]),
            bridge=BridgeSettings(**sections["bridge"]),
        )

    @property
    def smallest_shown(self) -> int:
        """The smallest count that is shown to the public (k); 1 = all, the default where everything is open."""
        if self.suppress_below is not None:
            return self.suppress_below
        return 1 if self.open else SMALLEST_SHOWN

    @property
    def encrypted(self) -> bool:
        """Whether devices connect over TLS: by default where they come from other machines."""
        return self.tls in ("on", "proxy") or (
            self.tls == "auto" and self.host not in (LOOPBACK, "localhost", "::1")
        )

    @property
    def encrypts_http(self) -> bool:
        """Whether the API itself, and not a balancer in front of it, ends TLS."""
        return self.encrypted and self.tls != "proxy"

    @property
    def core_takes_tls(self) -> bool:
        """Whether our own MQTT clients use TLS: where they share a port of this machine with devices."""
        return self.encrypted and self.devices and not self.core and not self.core_mqtt

    @property
    def advertised(self) -> str:
        """The host under which other units reach this one."""
        return self.advertise or (socket.gethostname() if self.internal_host in ANY else self.internal_host)

    @property
    def core_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core accept NATS clients."""
        return addresses(self.core, self.nats_port) or ((local_host(self.internal_host), self.nats_port),)

    @property
    def core_leaf_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core accept brokers."""
        return tuple((host, self.leaf_port) for host, _ in self.core_addresses)

    @property
    def core_mqtt_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core accept retained counts over MQTT."""
        if self.devices and not self.core and not self.core_mqtt:
            return ((local_host(self.host), self.mqtt_port),)  # the port of this machine that devices use
        return addresses(self.core_mqtt, self.mqtt_port) or tuple(
            (host, self.mqtt_port) for host, _ in self.core_addresses
        )

    @property
    def api_addresses(self) -> tuple[Address, ...]:
        """Where the balancer finds the API."""
        return addresses(self.api, self.http_port)

    @property
    def peer_addresses(self) -> tuple[Address, ...]:
        """Where the nodes of the core reach each other; none if there is only one."""
        peers = addresses(self.peers, self.cluster_port)
        return peers if len(peers) > 1 else ()

    @property
    def replicas(self) -> int:
        """The number of nodes of the core that store each stream."""
        return len(self.peer_addresses) or 1

    def environment(self) -> dict[str, str]:
        """These settings as variables, for a process of the same deployment; it reads no configuration file."""
        ours = {CONFIG_VARIABLE: os.devnull}
        for one in settings_of(Settings).values():
            holder = getattr(self, one.section) if one.section else self
            ours[one.variable] = one.text(getattr(holder, one.field))
        return {**process_environment(), **ours}
