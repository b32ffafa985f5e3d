"""HAProxy's configuration as text; pure.

    frontend   backend    mode   health check                  passes
    mqtt       mqtt       tcp    GET /healthz, health port     connections that start with an MQTT CONNECT;
                                                               with `tls` TLS unchanged: brokers have the key
    ws         ws         http   the same                      WebSocket on /mqtt only
    http       api        http   GET /readyz, the API's port   everything except /metrics
               api_alive  http   GET /healthz, the API's port  the same, while no API is ready
    inside     -          http   -                             /healthz, /readyz, /metrics of the balancer

With `tls`, TLS of the frontends ws and http ends here, because their rules need the requests. All paths in the
configuration are relative to the folder in which HAProxy runs: the path of a Unix socket has up to 107 bytes,
which a data folder may exceed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headcount.proxy.proxy_config import (
    BANNED_FILE,
    CLIENTS_FILE,
    PEM_FILE,
    SOCKET_FILE,
    STATE_FILE,
    Backend,
    BackendServers,
    HaproxyServer,
    ProxyConfig,
    ProxyLimits,
)
from headcount.settings.formats import joined

#: TLS 1.2 ciphers with forward secrecy and authenticated encryption; TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: The tables of client addresses: of all public frontends, and of the frontend http alone.
ADDRESS_TABLE, HTTP_TABLE = "addresses", "http_addresses"
#: Share of all connections that HTTP may have, so that it cannot take those of devices, and share of these that one
#: address may have.
HTTP_SHARE, HTTP_ADDRESS_SHARE = 0.5, 0.25
#: Path of MQTT over WebSocket; the same port of a broker serves NATS on other paths.
WS_PATH = "/mqtt"
#: Backend → path of its health check.
HEALTH_PATHS: Mapping[Backend, str] = {
    "mqtt": "/healthz",
    "ws": "/healthz",
    "api": "/readyz",
    "api_alive": "/healthz",
}
DEVICE_BACKENDS: tuple[Backend, ...] = ("mqtt", "ws")

#: A proxied connection needs two open files, HAProxy itself some more: listeners, checks, threads.
OWN_FILES = 500
#: More connections than this need a second balancer.
MAX_CONNECTIONS = 200_000
#: Size of the address table: 1 000 000 entries need about 100 MB, this is a tenth of it.
ADDRESS_ENTRIES = 100_000


def server_weight(server: HaproxyServer) -> int:
    """A server's share of new connections: weight 0 means draining."""
    return 0 if server.draining else 1


def server_arguments(server: HaproxyServer, check_every_s: float) -> str:
    """A server's address and options, for the file and for `add server`, which has no defaults.

    A server is down after two failed checks, and up after two successful ones.
    """
    return (
        f"{joined((server.address, server.port))} weight {server_weight(server)} "
        f"check port {server.check_port} inter {_ms(check_every_s)} fall 2 rise 2"
    )


def max_connections(config: ProxyConfig, files: int) -> int:
    """The maximum number of connections with this limit of open files."""
    affordable = max(100, (files - OWN_FILES) // 2)
    return min(config.limits.max_connections or MAX_CONNECTIONS, affordable)


def render(config: ProxyConfig, pools: BackendServers, *, files: int, prometheus: bool) -> str:
    """The configuration file with all servers; it contains no secrets.

    `files` is the process's limit of open files; `prometheus`: this HAProxy exports metrics.
    """
    frontends = [
        _mqtt(config),
        _websocket(config),
        _http(config, max_connections(config, files)),
        _health_frontend(config, prometheus=prometheus),
    ]
    backends = [
        _backend(config, backend, pools.get(backend, ()))
        for backend in HEALTH_PATHS
        if _used(config, backend)
    ]
    sections = [_global_section(config, files), *(text for text in frontends if text), *backends]
    return "# Written by headcount whenever a server comes or goes: changes here are lost.\n" + "\n".join(
        sections
    )


def _used(config: ProxyConfig, backend: Backend) -> bool:
    port = {"mqtt": config.mqtt_port, "ws": config.ws_port}
    return port.get(backend, config.http_port) is not None


def _global_section(config: ProxyConfig, files: int) -> str:
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
  # a half-open connection is useless for MQTT, and its server could not be deleted
  timeout client-fin 5s
  timeout server-fin 5s
  timeout http-request {_ms(limits.first_packet_s)}
  timeout http-keep-alive 30s
  load-server-state-from-file global
  # another broker may accept the device
  retries 3
  option redispatch 1

# connection rate and open connections of each address
backend {ADDRESS_TABLE}
  stick-table type ipv6 size {ADDRESS_ENTRIES} expire 60s store conn_rate(10s),conn_cur

backend {HTTP_TABLE}
  stick-table type ipv6 size {ADDRESS_ENTRIES} expire 60s store conn_cur
"""


_TLS = f"""\
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  ssl-default-bind-ciphers {CIPHERS}
"""


def _frontend(name: str, mode: str, bind: str, idle_s: float) -> str:
    return f"frontend {name}\n  mode {mode}\n  bind {bind}\n  timeout client {_ms(idle_s)}\n"


def _address_limits(limits: ProxyLimits) -> str:
    """Reject before counting, so that rejected connections do not count.

    Otherwise a campus whose devices all retry every few seconds would exceed the limit by its rejected
    connections. So the limit is a rate of accepted connections: a burst is served at this pace.
    """
    free = f"  acl unlimited src {' '.join(limits.unlimited)}\n" if limits.unlimited else ""
    unless = " !unlimited" if limits.unlimited else ""
    return f"""\
  tcp-request connection reject if {{ src -f {BANNED_FILE} }}
{free}\
  tcp-request connection reject if {{ src_conn_rate({ADDRESS_TABLE}) ge {limits.new_per_address_10s} }}{unless}
  tcp-request connection reject if {{ src_conn_cur({ADDRESS_TABLE}) ge {limits.open_per_address} }}{unless}
  tcp-request connection track-sc0 src table {ADDRESS_TABLE}
"""


#: A device that disappeared is detected after about 16 minutes: soon enough to free its connection, and rare
#: enough not to wake sleeping phones.
_DEVICE_KEEPALIVE = """\
  option clitcpka
  clitcpka-idle 900s
  clitcpka-intvl 30s
  clitcpka-cnt 3
"""
#: A broker without network is detected after 25 s, and its devices reconnect to other brokers.
_BROKER_KEEPALIVE = """\
  option srvtcpka
  srvtcpka-idle 10s
  srvtcpka-intvl 5s
  srvtcpka-cnt 3
"""


#: The required start of a connection: the first byte is checked immediately, the rest may arrive in pieces.
_CONNECT = """\
  tcp-request content reject unless { req.payload(0,1) -m bin 10 }
  tcp-request content reject unless { req.payload(0,0),mqtt_is_valid }
"""
_TLS_HELLO = "  tcp-request content reject unless { req.ssl_hello_type 1 }\n"


#: A connection that waits for its next request is not a session that could be closed.
_REJECT_BANNED = f"  http-request reject if {{ src -f {BANNED_FILE} }}\n"


def _mqtt(config: ProxyConfig) -> str:
    limits = config.limits
    return f"""\
{_frontend("mqtt", "tcp", _bind(config.host, config.mqtt_port), limits.device_idle_s)}\
{_DEVICE_KEEPALIVE}{_address_limits(limits)}\
  tcp-request inspect-delay {_ms(limits.first_packet_s)}
{_TLS_HELLO if config.tls else _CONNECT}\
  default_backend mqtt
"""


#: TLS ends here: brokers get plain requests, for which the port's own origin with https:// is another one.
_OWN_ORIGIN = """\
  http-request set-var-fmt(txn.own_origin) https://%[req.hdr(Host)]
  http-request del-header Origin if { req.hdr(Origin),strcmp(txn.own_origin) eq 0 }
"""


def _websocket(config: ProxyConfig) -> str:
    if config.ws_port is None:
        return ""
    return f"""\
{_frontend("ws", "http", _tls_bind(config, config.ws_port, devices=True), config.limits.http_idle_s)}\
{_DEVICE_KEEPALIVE}{_address_limits(config.limits)}{_REJECT_BANNED}\
  http-request deny deny_status 404 unless {{ path {WS_PATH} }}
  http-request set-header X-Forwarded-For %[src]
{_OWN_ORIGIN if config.tls else ""}\
  default_backend ws
"""


def _http(config: ProxyConfig, connections: int) -> str:
    """The API; it serves metrics to this machine only, and replaces forwarded headers.

    A request is passed when its head and the first 16 KB of its body have arrived within `timeout http-request`, so
    that slow clients occupy no connections of the API.
    """
    if config.http_port is None:
        return ""
    limit = max(1, round(connections * HTTP_SHARE))
    per_address = max(1, round(limit * HTTP_ADDRESS_SHARE))
    unless = " !unlimited" if config.limits.unlimited else ""
    return f"""\
{_frontend("http", "http", _tls_bind(config, config.http_port), config.limits.http_idle_s)}\
  maxconn {limit}
  option http-buffer-request
{_address_limits(config.limits)}\
  tcp-request connection reject if {{ src_conn_cur({HTTP_TABLE}) ge {per_address} }}{unless}
  tcp-request connection track-sc1 src table {HTTP_TABLE}
{_REJECT_BANNED}\
  http-request deny deny_status 404 if {{ path,url_dec -m str /metrics }} !{{ src 127.0.0.0/8 ::1 }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto {"https" if config.tls else "http"}
  use_backend api_alive if {{ nbsrv(api) eq 0 }}
  default_backend api
"""


def _health_frontend(config: ProxyConfig, *, prometheus: bool) -> str:
    if config.health_port is None:
        return ""
    metrics = "  http-request use-service prometheus-exporter if { path /metrics }\n" if prometheus else ""
    no_broker = 'content-type text/plain string "no broker accepts connections"'
    return f"""\
{_frontend("inside", "http", _bind(config.internal_host, config.health_port), 10)}\
{metrics}\
  http-request return status 200 if {{ path /healthz }}
  http-request return status 503 {no_broker} if {{ path /readyz }} {{ nbsrv(mqtt) eq 0 }}
  http-request return status 200 if {{ path /readyz }}
  http-request return status 404
"""


def _backend(config: ProxyConfig, backend: Backend, servers: Sequence[HaproxyServer]) -> str:
    limits = config.limits
    devices = backend in DEVICE_BACKENDS
    mode = "http" if backend in {"ws", "api", "api_alive"} else "tcp"
    idle_s = limits.http_idle_s if mode == "http" else limits.device_idle_s
    # servers can be added at run time only with a consistent hash
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
{_BROKER_KEEPALIVE if devices else ""}\
  option httpchk
  http-check send meth GET uri {HEALTH_PATHS[backend]}
  http-check expect status 200
{lines}"""


def _bind(host: str, port: int) -> str:
    return f"ipv6@[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_bind(config: ProxyConfig, port: int, *, devices: bool = False) -> str:
    """The listener and its certificate; Upgrade exists in HTTP/1.1 only."""
    if not config.tls:
        return _bind(config.host, port)
    verify = f" ca-file {CLIENTS_FILE} verify required" if devices and config.client_certificates else ""
    return f"{_bind(config.host, port)} ssl crt {PEM_FILE} alpn {'' if devices else 'h2,'}http/1.1{verify}"


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
