"""HAProxy's configuration as text.

    frontend   backend    mode   checked by                    what passes
    mqtt       mqtt       tcp    GET /healthz, health port     connections that begin with an MQTT CONNECT;
                                                               with `tls` TLS, untouched: brokers have the key
    ws         ws         http   the same                      WebSocket on /mqtt and nothing else
    http       api        http   GET /readyz, the API's port   everything but /metrics
               api_alive  http   GET /healthz, the API's port  the same, while no API is ready
    inside     -          http   -                             /healthz, /readyz, /metrics of the balancer

With `tls` the frontends ws and http end TLS here, for their rules look at requests; behind them it is
plain. All paths in it are relative to the folder in which HAProxy runs: the path of a Unix socket has 107
bytes at most, and nobody promises that for a data folder.
"""

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
#: The certificate with its key, whose certificates WebSockets must show, and which addresses are refused.
PEM_FILE, CLIENTS_FILE = "server.pem", "clients.pem"
BANNED_FILE = "banned.acl"
#: Of TLS 1.2 only those with forward secrecy and authenticated encryption; 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: The table of addresses that all public frontends share.
ADDRESSES = "addresses"
#: Where MQTT over WebSocket is; the same port of a broker speaks NATS on other paths.
WS_PATH = "/mqtt"

Backend = Literal["mqtt", "ws", "api", "api_alive"]
#: Backend → the path that its servers are checked at.
CHECKS: Mapping[Backend, str] = {
    "mqtt": "/healthz",
    "ws": "/healthz",
    "api": "/readyz",
    "api_alive": "/healthz",
}
DEVICE_BACKENDS: tuple[Backend, ...] = ("mqtt", "ws")

#: A proxied connection is two open files. HAProxy itself needs some: listeners, checks, threads.
FILES_OWN = 500
#: With more than this we would rather see a second balancer.
MOST_CONNECTIONS = 200_000
#: The address table's size: 1 000 000 entries are about 100 MB, this is a tenth of it.
ADDRESS_ENTRIES = 100_000


_DEFAULTS = ProxySettings()


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """What one address, or one connection, can take from the balancer.

    A whole campus may stand behind one address (NAT): per address the defaults are those of a
    campus, not of a person. Addresses in `unlimited` (networks like `10.0.0.0/8`) are never refused.
    """

    #: New connections of one address within 10 s; those above it are closed at once and not counted.
    new_per_address_10s: int = _DEFAULTS.new_per_address_10s
    #: Open connections of one address.
    open_per_address: int = _DEFAULTS.open_per_address
    unlimited: tuple[str, ...] = ()
    #: Open connections in all; None: what the limit of open files allows.
    max_connections: int | None = None
    #: Silence after which a device's connection is closed. 1.5 times the longest sensible keepalive:
    #: phones' apps go up to an hour, and 7 200 s let keepalives of 80 minutes live.
    device_idle_s: float = _DEFAULTS.device_idle_s
    #: Silence after which an HTTP connection is closed; the live stream says something each second.
    http_idle_s: float = 60.0
    #: A connection that hasn't sent its CONNECT, or its HTTP request, by then is closed.
    first_packet_s: float = 10.0
    #: After a reload the old process keeps its connections for so long.
    hard_stop_s: float = 86_400.0
    check_every_s: float = 0.5


def address_limits(settings: ProxySettings) -> ProxyLimits:
    """The limits that an operator set."""
    return ProxyLimits(
        new_per_address_10s=settings.new_per_address_10s,
        open_per_address=settings.open_per_address,
        unlimited=split(settings.unlimited),
        max_connections=settings.max_connections or None,
        device_idle_s=settings.device_idle_s,
    )


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Everything that decides how HAProxy runs; a port that is None leaves its frontend out.

    Raises:
        SettingsError: a value can't be used.
    """

    host: str = "127.0.0.1"
    mqtt_port: int = 1883
    ws_port: int | None = 9001
    http_port: int | None = 8080
    #: Health and metrics of the balancer itself, on `internal_host`.
    health_port: int | None = None
    internal_host: str = "127.0.0.1"
    #: Whether devices and browsers speak TLS; with `PEM_FILE` in the folder.
    tls: bool = False
    #: Whether WebSockets must show a certificate of `CLIENTS_FILE`. Over MQTT the brokers ask for it.
    client_certificates: bool = False
    balance: BalanceAlgorithm = _DEFAULTS.balance
    limits: ProxyLimits = ProxyLimits()

    def __post_init__(self) -> None:
        for _, option, _, port in self.ports():
            _require(1 <= port <= 65535, option, f"{port} is no port, use 1 to 65535")
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
            _require(_is_network(network), "--proxy-unlimited", f"{network!r} is no network like 10.0.0.0/8")

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Purpose, the option that changes it, host and port of everything that is listened on."""
        every = (
            ("MQTT", "--mqtt-port", self.host, self.mqtt_port),
            ("WebSocket", "--ws-port", self.host, self.ws_port),
            ("HTTP", "--http-port", self.host, self.http_port),
            ("health", "--health-port", self.internal_host, self.health_port),
        )
        return [(purpose, option, host, port) for purpose, option, host, port in every if port is not None]


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a backend. `address` is an IP address: HAProxy resolves no names for us.

    `check_port` is where its health is asked; a draining one gets no new connections and keeps the
    old ones; `unit` is whose it is.

    Raises:
        SettingsError: a name or address can't stand in a configuration.
    """

    name: str
    address: str
    port: int
    check_port: int
    unit: str = ""
    draining: bool = False

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"[A-Za-z0-9_.:-]{1,200}", self.name) is not None, "server", repr(self.name))
        _require(_is_network(self.address), "server address", f"{self.address!r} is no IP address")


#: Backend → its servers.
Pools = Mapping[Backend, Sequence[Server]]


def server_name(unit: str, address: str, port: int) -> str:
    """What a unit is called in HAProxy: one that comes back under another address is another server.

    Raises:
        SettingsError: the unit's name is none.
    """
    _require(re.fullmatch(ID_PATTERN, unit) is not None, "unit", f"{unit!r} is no name")
    return f"{unit}-{address}-{port}"


def weight(server: Server) -> int:
    """What a server has of new connections: HAProxy's name for draining is weight 0."""
    return 0 if server.draining else 1


def server_arguments(server: Server, check_every_s: float) -> str:
    """A server's address and options, for the file as for `add server`, which knows no defaults.

    Down after two failed checks, up after two good ones.
    """
    address = f"[{server.address}]" if ":" in server.address else server.address
    return (
        f"{address}:{server.port} weight {weight(server)} "
        f"check port {server.check_port} inter {_ms(check_every_s)} fall 2 rise 2"
    )


def max_connections(config: ProxyConfig, files: int) -> int:
    """How many connections are let in, where the process may have so many open files."""
    affordable = max(100, (files - FILES_OWN) // 2)
    return min(config.limits.max_connections or MOST_CONNECTIONS, affordable)


def render(config: ProxyConfig, pools: Pools, *, files: int, prometheus: bool) -> str:
    """The configuration file, with all servers known now; nothing in it is secret.

    `files` is the process's limit of open files; `prometheus`: this HAProxy can tell its figures.
    """
    frontends = [
        _mqtt(config),
        _websocket(config),
        _http(config),
        _inside(config, prometheus=prometheus),
    ]
    backends = [
        _backend(config, backend, pools.get(backend, ())) for backend in CHECKS if _used(config, backend)
    ]
    sections = [_head(config, files), *(text for text in frontends if text), *backends]
    return "# Written by headcount whenever a server comes or goes: changes here are lost.\n" + "\n".join(
        sections
    )


def _used(config: ProxyConfig, backend: Backend) -> bool:
    port = {"mqtt": config.mqtt_port, "ws": config.ws_port}
    return port.get(backend, config.http_port) is not None


def _head(config: ProxyConfig, files: int) -> str:
    limits = config.limits
    return f"""\
global
  maxconn {max_connections(config, files)}
  stats socket unix@{SOCKET_FILE} mode 600 level admin expose-fd listeners
  stats timeout 30s
  server-state-file {STATE_FILE}
  hard-stop-after {_ms(limits.hard_stop_s)}
{_TLS if config.tls else ""}
defaults
  timeout connect 5s
  timeout check 2s
  timeout queue 5s
  # half a connection is of no use to MQTT, and keeps its server from being deleted
  timeout client-fin 5s
  timeout server-fin 5s
  timeout http-request {_ms(limits.first_packet_s)}
  timeout http-keep-alive 30s
  load-server-state-from-file global
  # a broker that refuses is no reason to refuse the device
  retries 3
  option redispatch 1

# who connects how often, and has how many connections now
backend {ADDRESSES}
  stick-table type ipv6 size {ADDRESS_ENTRIES} expire 60s store conn_rate(10s),conn_cur
"""


_TLS = f"""\
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  ssl-default-bind-ciphers {CIPHERS}
"""


def _front(name: str, mode: str, bind: str, idle_s: float) -> str:
    return f"frontend {name}\n  mode {mode}\n  bind {bind}\n  timeout client {_ms(idle_s)}\n"


def _limited(limits: ProxyLimits) -> str:
    """Refuse before counting: what is refused doesn't count.

    Otherwise a campus whose devices all try again every few seconds would stay above the limit by
    being refused. So the limit is a rate of admission: a storm comes in at this pace and is over.
    """
    free = f"  acl unlimited src {' '.join(limits.unlimited)}\n" if limits.unlimited else ""
    unless = " !unlimited" if limits.unlimited else ""
    return f"""\
  tcp-request connection reject if {{ src -f {BANNED_FILE} }}
{free}\
  tcp-request connection reject if {{ src_conn_rate({ADDRESSES}) ge {limits.new_per_address_10s} }}{unless}
  tcp-request connection reject if {{ src_conn_cur({ADDRESSES}) ge {limits.open_per_address} }}{unless}
  tcp-request connection track-sc0 src table {ADDRESSES}
"""


#: A device that vanished without a word is found after a quarter of an hour and some: often enough to
#: free its place, seldom enough not to wake phones that are silent on purpose.
_DEVICE_ALIVE = """\
  option clitcpka
  clitcpka-idle 900s
  clitcpka-intvl 30s
  clitcpka-cnt 3
"""
#: A broker that was cut off from the network is found after 25 s, and its devices come back to others.
_BROKER_ALIVE = """\
  option srvtcpka
  srvtcpka-idle 10s
  srvtcpka-intvl 5s
  srvtcpka-cnt 3
"""


#: What a connection must begin with. The first byte tells a stranger at once; the rest may come in pieces.
_CONNECT = """\
  tcp-request content reject unless { req.payload(0,1) -m bin 10 }
  tcp-request content reject unless { req.payload(0,0),mqtt_is_valid }
"""
_HELLO = "  tcp-request content reject unless { req.ssl_hello_type 1 }\n"


#: A connection that waits for its next request is no session that could be shut down.
_IDLE = f"  http-request reject if {{ src -f {BANNED_FILE} }}\n"


def _mqtt(config: ProxyConfig) -> str:
    limits = config.limits
    return f"""\
{_front("mqtt", "tcp", _bind(config.host, config.mqtt_port), limits.device_idle_s)}\
{_DEVICE_ALIVE}{_limited(limits)}\
  tcp-request inspect-delay {_ms(limits.first_packet_s)}
{_HELLO if config.tls else _CONNECT}\
  default_backend mqtt
"""


def _websocket(config: ProxyConfig) -> str:
    if config.ws_port is None:
        return ""
    return f"""\
{_front("ws", "http", _secure(config, config.ws_port, devices=True), config.limits.http_idle_s)}\
{_DEVICE_ALIVE}{_limited(config.limits)}{_IDLE}\
  http-request deny deny_status 404 unless {{ path {WS_PATH} }}
  http-request set-header X-Forwarded-For %[src]
  default_backend ws
"""


def _http(config: ProxyConfig) -> str:
    """The API. It shows positions to this machine only and trusts no request with this header."""
    if config.http_port is None:
        return ""
    return f"""\
{_front("http", "http", _secure(config, config.http_port), config.limits.http_idle_s)}\
{_limited(config.limits)}{_IDLE}\
  http-request deny deny_status 404 if {{ path,url_dec -m str /metrics }} !{{ src 127.0.0.0/8 ::1 }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto {"https" if config.tls else "http"}
  use_backend api_alive if {{ nbsrv(api) eq 0 }}
  default_backend api
"""


def _inside(config: ProxyConfig, *, prometheus: bool) -> str:
    if config.health_port is None:
        return ""
    figures = "  http-request use-service prometheus-exporter if { path /metrics }\n" if prometheus else ""
    no_broker = 'content-type text/plain string "no broker takes connections"'
    return f"""\
{_front("inside", "http", _bind(config.internal_host, config.health_port), 10)}\
{figures}\
  http-request return status 200 if {{ path /healthz }}
  http-request return status 503 {no_broker} if {{ path /readyz }} {{ nbsrv(mqtt) eq 0 }}
  http-request return status 200 if {{ path /readyz }}
  http-request return status 404
"""


def _backend(config: ProxyConfig, backend: Backend, servers: Sequence[Server]) -> str:
    limits = config.limits
    devices = backend in DEVICE_BACKENDS
    mode = "http" if backend in {"ws", "api", "api_alive"} else "tcp"
    idle_s = limits.http_idle_s if mode == "http" else limits.device_idle_s
    # only a consistent hash lets servers come and go at run time
    hashed = "  hash-type consistent\n" if devices and config.balance == "source" else ""
    lines = "".join(
        f"  server {server.name} {server_arguments(server, limits.check_every_s)}\n" for server in servers
    )
    return f"""\
backend {backend}
  mode {mode}
  balance {config.balance if devices else "leastconn"}
{hashed}\
  timeout server {_ms(idle_s)}
{f"  timeout tunnel {_ms(limits.device_idle_s)}" + chr(10) if mode == "http" else ""}\
{_BROKER_ALIVE if devices else ""}\
  option httpchk
  http-check send meth GET uri {CHECKS[backend]}
  http-check expect status 200
{lines}"""


def _bind(host: str, port: int) -> str:
    return f"ipv6@[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _secure(config: ProxyConfig, port: int, *, devices: bool = False) -> str:
    """Where to listen, and with which certificate; Upgrade exists in HTTP/1.1 only."""
    if not config.tls:
        return _bind(config.host, port)
    asked = f" ca-file {CLIENTS_FILE} verify required" if devices and config.client_certificates else ""
    return f"{_bind(config.host, port)} ssl crt {PEM_FILE} alpn {'' if devices else 'h2,'}http/1.1{asked}"


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise SettingsError(name, problem)
