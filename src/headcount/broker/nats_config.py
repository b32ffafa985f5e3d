"""The NATS server's configuration as text: of the core, which has the streams, and of a leaf, which hasn't.

A core is one server or three that hold each stream three times. A leaf takes devices in and passes
on: its MQTT side keeps sessions and what a PUBACK waits for in the core, over the link between them.

Users and their permissions:

    <id>       a device with an account, accepted by the auth service, with the rights of devices/permissions.py
    token.<id> a program with an API token, the same way: it subscribes, and publishes nothing
    device     any client on the MQTT and WebSocket ports, where `anonymous` is set. Publishes fixes, status,
               answers and foreign formats; subscribes to counts, events, sites and commands; nothing else.
    headcount  our own roles, with the password. Everything in the account.
    system     our own roles, with the same password. The server's own account ($SYS): connection counts.

The NATS, leaf and cluster ports require a password, and the MQTT port of a core that accepts no devices. No
user can use NATS over the WebSocket port. Without an auth service that answers, only our own roles and, with
`anonymous`, clients without an account can connect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote

from headcount.errors import SettingsError
from headcount.messages.topics import FOREIGN_PUBLISH, ID_PATTERN, INTERNAL
from headcount.settings.formats import Address, joined, local_host
from headcount.tls.tls_files import TlsFiles

#: Users of the server beside `INTERNAL`; `DEVICE` has no password.
DEVICE, SYSTEM = "device", "system"
#: The account that devices and roles share.
ACCOUNT = "HEADCOUNT"
#: The name under which leaves find the core's JetStream.
DOMAIN = "hub"

#: Of TLS 1.2 only those with forward secrecy and authenticated encryption; 1.3 has no others.
CIPHERS = tuple(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
)
MIB = 1 << 20
#: Seconds that a handshake may take; phones far away need some.
_HANDSHAKE_S = 5
_HOST = re.compile(r"[0-9A-Za-z.:%_-]+")
Sync = Literal["always", "1s", "10s", "2m"]

#: Subjects that a device may publish to, before and after their mapping.
DEVICE_PUBLISH = (
    "headcount.*.*.*.fix",
    "headcount.*.*.*.status",
    "headcount.*.*.*.ack",
    "fix.*.*.*.*",
    "fix.*.*.*.*.status",
    *FOREIGN_PUBLISH,
)
#: Subjects that a device may subscribe to; `counts/#` includes `counts`.
DEVICE_SUBSCRIBE = (
    "headcount.*.counts",
    "headcount.*.counts.>",
    "headcount.*.events",
    "headcount.*.events.>",
    "headcount.*.site",
    "headcount.*.*.*.cmd",
    "owntracks.*.*.cmd",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what one device, or all devices together, can use of the server."""

    max_connections: int = 65_536
    #: The largest message. Our own batches need it; the streams refuse fixes above 64 KiB.
    max_payload_bytes: int = 8 * MIB
    max_subscriptions: int = 1_000
    #: Bytes that wait for one slow subscriber before it is cut off.
    max_pending_bytes: int = 64 * MIB
    #: Unacknowledged QoS 1 messages towards one MQTT subscription.
    max_ack_pending: int = 1_024
    #: Seconds until an unacknowledged QoS 1 message is sent again.
    ack_wait_s: int = 30
    #: Seconds that a new connection has for its CONNECT.
    connect_timeout_s: int = 10
    #: Messages and bytes that wait for one stream; above that the server drops ("IPQ len limit").
    #: Both together in each of 16 streams is 1 GiB of memory: the worst case.
    max_buffered_messages: int = 500_000
    max_buffered_bytes: int = 64 * MIB
    #: Memory and disk that all streams together may reserve.
    max_memory_bytes: int = 1024 * MIB
    max_file_bytes: int = 1024 * 1024 * MIB
    #: The server's log is renamed at this size; this number of old ones is kept.
    max_log_bytes: int = 10 * MIB
    max_logs: int = 3


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Everything that decides how the NATS server runs.

    Ports are 1 to 65535. The server's HTTP monitor is off: it has no authentication. `host` is where devices
    reach the MQTT and WebSocket ports; all other ports are on `internal_host`. Without `devices` the MQTT
    port is there too, for our own user only, and there is no WebSocket port.

    With `leaf_port` it is a core that leaves can join; with `peers` one node of several, all of which
    are named there with their cluster ports. With `hub`, the leaf ports of a core, it is a leaf.

    Raises:
        SettingsError: a value can't be used.
    """

    data: Path
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    mqtt_port: int = 1883
    ws_port: int = 9001
    nats_port: int = 4222
    partitions: int = 16
    internal_host: str = "127.0.0.1"
    devices: bool = True
    #: Whether devices need no account.
    anonymous: bool = False
    #: With `anonymous`: origins that may connect; empty: this port's own, which libraries send. Others send none.
    origins: tuple[str, ...] = ()
    #: With it devices use TLS, 1.2 at least; without `devices` nothing is encrypted here.
    tls: TlsFiles | None = None
    #: Whether WebSocket is encrypted too, or by a balancer ahead.
    ws_tls: bool = True
    leaf_port: int | None = None
    cluster_port: int | None = None
    peers: tuple[Address, ...] = ()
    hub: tuple[Address, ...] = ()
    #: On how many nodes of the core each stream is.
    replicas: int = 1
    server_name: str = "headcount"
    sync_interval: Sync = "1s"
    limits: Limits = Limits()
    plugin_subjects: tuple[str, ...] = ()  # of installed formats
    #: Public key of the auth service; "" = derive it from the password.
    issuer: str = ""

    def __post_init__(self) -> None:
        ports = self.ports()
        numbers = [port for *_, port in ports]
        hosts = (self.host, self.internal_host, *(host for host, _ in (*self.peers, *self.hub)))
        checks = (
            *((1 <= n <= 65535, name, f"{n} is no port, use 1 to 65535") for _, name, _, n in ports),
            (len(set(numbers)) == len(numbers), "--mqtt-port", f"the ports {numbers} must differ"),
            (1 <= self.partitions <= 1024, "--partitions", f"{self.partitions} is not within 1 to 1024"),
            (len(self.password) >= 16, "password", "needs at least 16 characters"),
            (self.password.isprintable(), "password", "has a character that can't be printed"),
            *((_HOST.fullmatch(host), "listen address", f"{host!r} is no address or name") for host in hosts),
            (not (self.hub and self.peers), "peers", "a leaf has none"),
            (not self.peers or self.cluster_port is not None, "peers", "need a cluster port"),
            (re.fullmatch(ID_PATTERN, self.server_name), "server_name", "is no name"),
            (self.sync_interval in get_args(Sync), "sync_interval", f"use one of {get_args(Sync)}"),
        )
        for holds, name, problem in checks:
            if not holds:
                raise SettingsError(name, problem)

    @property
    def log_file(self) -> Path:
        """The file of the NATS server's log, see `log`."""
        return self.data / "broker.log"

    @property
    def mqtt_host(self) -> str:
        """Where the MQTT port listens."""
        return self.host if self.devices else self.internal_host

    @property
    def mqtt_tls(self) -> TlsFiles | None:
        """The certificate of the MQTT port; None where only our own user connects, from inside."""
        return self.tls if self.devices else None

    @property
    def local_host(self) -> str:
        """Where we reach the inside ports from this machine."""
        return local_host(self.internal_host)

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Purpose, option, host and port of each listener."""
        inside = self.internal_host
        every = (
            ("MQTT", "--mqtt-port", self.mqtt_host, self.mqtt_port),
            ("WebSocket", "--ws-port", self.host, self.ws_port if self.devices else None),
            ("NATS", "--nats-port", inside, self.nats_port),
            ("leaf", "--leaf-port", inside, self.leaf_port),
            ("cluster", "--cluster-port", inside, self.cluster_port if self.peers else None),
        )
        return [(purpose, option, host, port) for purpose, option, host, port in every if port is not None]


def render(config: BrokerConfig, *, closed: bool = False) -> str:
    """The configuration file of the NATS server. It holds the password: write it for the owner only.

    While `closed`, only our own roles can connect, over NATS.
    """
    limits = config.limits
    return f"""\
# Written by headcount at every start: changes here are lost.
server_name: {_quote(config.server_name)}
listen: {_inside(config, config.nats_port)}
max_connections: {limits.max_connections}
max_payload: {limits.max_payload_bytes}
max_pending: {limits.max_pending_bytes}
max_subscriptions: {limits.max_subscriptions}
authorization {{
  timeout: {limits.connect_timeout_s}
{_callout(config) if config.devices else ""}}}

{_uplink(config) if config.hub else _storage(config)}
{_client_ports(config) if not closed else ""}
# For last wills only: the server maps their topic while it reads CONNECT, when it doesn't know the
# client's account yet and looks at the nameless account's mappings.
mappings {{
{_indent(mappings(config.partitions), 2)}
}}

system_account: SYS
accounts {{
  SYS {{ users: [ {{ {_login(config, SYSTEM, "STANDARD")} }} ] }}
  {ACCOUNT} {{
    {"" if config.hub else _ACCOUNT_STREAMS}
    mappings {{
{_indent(mappings(config.partitions), 6)}
    }}
    users: [
      {{ {_login(config, INTERNAL, "STANDARD", "MQTT", "LEAFNODE")} }}
{_anybody(config)}    ]
  }}
}}
"""


#: Streams need a limit. So the server can make none of those that its MQTT side wants, which would be on
#: disk with the ids of clients: until `fixlog.streams` has made them, it closes the connections of MQTT clients.
_ACCOUNT_STREAMS = "jetstream { max_bytes_required: true }"


def auth_issuer(password: str) -> str:
    """The public key with which the auth service signs its responses."""
    from headcount.devices.auth_callout import CalloutSigner  # noqa: PLC0415  # only a renderer needs keys

    return CalloutSigner(password, ACCOUNT).public


def _callout(config: BrokerConfig) -> str:
    """All clients except our own users are accepted by the auth service beside the server, or not at all."""
    users = ", ".join([INTERNAL, SYSTEM, *([DEVICE] if config.anonymous else [])])
    issuer = config.issuer or auth_issuer(config.password)
    return f"  auth_callout {{ issuer: {issuer}, account: {ACCOUNT}, auth_users: [{users}] }}\n"


def _login(config: BrokerConfig, user: str, *connections: str) -> str:
    password = _quote(config.password)
    return f"user: {user}, password: {password}, allowed_connection_types: [{_list(connections)}]"


def _anybody(config: BrokerConfig) -> str:
    if not config.anonymous:
        return ""
    may = f"publish: [{_list((*DEVICE_PUBLISH, *config.plugin_subjects))}], subscribe: [{_list(DEVICE_SUBSCRIBE)}]"
    return f"      {{ {_login(config, DEVICE, 'MQTT', 'MQTT_WS')}, permissions {{ {may} }} }}\n"


def _storage(config: BrokerConfig) -> str:
    """The parts of a core: streams, a port for leaves, links to its other nodes."""
    limits = config.limits
    domain = leaves = ""
    if config.leaf_port is not None:
        domain = f"  domain: {DOMAIN}\n"
        # clients use the addresses that they know: behind a container's network the server doesn't know its own
        leaves = f"leafnodes {{ listen: {_inside(config, config.leaf_port)}, no_advertise: true }}\n"
    return f"""\
jetstream {{
{domain}  store_dir: {_quote(str(config.data))}
  sync_interval: {config.sync_interval}
  max_memory_store: {limits.max_memory_bytes}
  max_file_store: {limits.max_file_bytes}
  max_buffered_msgs: {limits.max_buffered_messages}
  max_buffered_size: {limits.max_buffered_bytes}
}}
{leaves}{_links(config, config.cluster_port) if config.cluster_port and config.peers else ""}"""


def _links(config: BrokerConfig, port: int) -> str:
    return f"""\
cluster {{
  name: headcount
  listen: {_inside(config, port)}
  authorization {{ user: {INTERNAL}, password: {_quote(config.password)} }}
  no_advertise: true
  routes: [{_urls("nats-route", config, config.peers)}]
}}
"""


def _uplink(config: BrokerConfig) -> str:
    """The part of a leaf in place of streams: the link to any node of the core."""
    return f"""\
leafnodes {{
  reconnect: "1s"
  remotes: [ {{ urls: [{_urls("nats-leaf", config, config.hub)}], account: {ACCOUNT} }} ]
}}
"""


def _client_ports(config: BrokerConfig) -> str:
    limits = config.limits
    anybody = f"  no_auth_user: {DEVICE}\n" if config.devices and config.anonymous else ""
    domain = f"  js_domain: {DOMAIN}\n" if config.hub else ""
    return f"""\
mqtt {{
  listen: {_quote(joined((config.mqtt_host, config.mqtt_port)))}
{anybody}{domain}  stream_replicas: {config.replicas}
  authorization {{ timeout: {limits.connect_timeout_s} }}
  ack_wait: "{limits.ack_wait_s}s"
  max_ack_pending: {limits.max_ack_pending}
  consumer_memory_storage: true
{_encrypted(config.mqtt_tls)}}}
{_websocket(config) if config.devices else ""}"""


def _websocket(config: BrokerConfig) -> str:
    return f"""
# Browsers use MQTT here, at the path /mqtt.
websocket {{
  listen: {_quote(joined((config.host, config.ws_port)))}
{_encrypted(config.tls if config.ws_tls else None) or "  no_tls: true" + chr(10)}\
  handshake_timeout: "{config.limits.connect_timeout_s}s"
{_origins(config)}}}
"""


def _origins(config: BrokerConfig) -> str:
    # with accounts, a page needs a password or token, which no browser adds by itself
    listed = f"allowed_origins: [{_list(config.origins)}]" if config.origins else "same_origin: true"
    return f"  {listed}\n" if config.anonymous else ""


def _encrypted(tls: TlsFiles | None) -> str:
    """The files, which the server reads again at SIGHUP. It requires a certificate from all clients or from none."""
    if tls is None:
        return ""
    clients = f"    ca_file: {_quote(str(tls.clients))}\n    verify: true\n" if tls.clients else ""
    return f"""\
  tls {{
    cert_file: {_quote(str(tls.certificate))}
    key_file: {_quote(str(tls.key))}
{clients}    min_version: "1.2"
    cipher_suites: [{_list(CIPHERS)}]
    timeout: {_HANDSHAKE_S}
  }}
"""


def mappings(partitions: int) -> dict[str, str]:
    """Subject as published → subject in the log.

    `fix.…` itself is mapped too: a sender who names a partition gets the right one all the same,
    otherwise one device could be counted twice.
    """
    by_topic, by_subject = f"{{{{partition({partitions},1,3)}}}}", f"{{{{partition({partitions},2,4)}}}}"
    parts = "{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
    shifted = "{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"
    return {
        "headcount.*.*.*.fix": f"fix.{by_topic}.{parts}",
        "headcount.*.*.*.status": f"fix.{by_topic}.{parts}.status",
        "fix.*.*.*.*": f"fix.{by_subject}.{shifted}",
        "fix.*.*.*.*.status": f"fix.{by_subject}.{shifted}.status",
    }


def _quote(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise SettingsError("--data", f"{text!r} has a character that can't be printed")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _urls(scheme: str, config: BrokerConfig, addresses: tuple[Address, ...]) -> str:
    login = f"{INTERNAL}:{quote(config.password, safe='')}"
    return _list(tuple(f"{scheme}://{login}@{joined(address)}" for address in addresses))


def _inside(config: BrokerConfig, port: int) -> str:
    return _quote(joined((config.internal_host, port)))


def _list(subjects: tuple[str, ...]) -> str:
    return ", ".join(_quote(subject) for subject in subjects)


def _indent(pairs: dict[str, str], spaces: int) -> str:
    return "\n".join(f"{' ' * spaces}{_quote(source)}: {_quote(target)}" for source, target in pairs.items())
