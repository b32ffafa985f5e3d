"""HAProxy's configuration, checked by a real HAProxy, and its validation."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from headcount.errors import HeadcountError, SettingsError
from headcount.proxy.haproxy_config import MAX_CONNECTIONS, max_connections, render
from headcount.proxy.proxy_config import (
    BANNED_FILE,
    CLIENTS_FILE,
    PEM_FILE,
    BackendServers,
    HaproxyServer,
    ProxyConfig,
    ProxyLimits,
    server_name,
)
from headcount.settings.proxy import BalanceAlgorithm
from headcount.tls.certificates import ensure_server_certificate
from proxy_fixture import haproxy

V4 = HaproxyServer("b1-10.0.0.1-1883", "10.0.0.1", 1883, 8081, "b1")
V6 = HaproxyServer(server_name("b2", "fd00::1", 1883), "fd00::1", 1883, 8081, "b2", draining=True)
POOLS: BackendServers = {"mqtt": [V4, V6], "ws": [V6], "api": [V4], "api_alive": [V4]}


@pytest.mark.parametrize(
    "config",
    [
        ProxyConfig(),
        ProxyConfig(tls=True, health_port=8404),
        ProxyConfig(tls=True, client_certificates=True),
        ProxyConfig(host="::", internal_host="::1", health_port=8404),
        ProxyConfig(ws_port=None, http_port=None),
        ProxyConfig(limits=ProxyLimits(unlimited=("10.0.0.0/8", "fd00::/8"))),
        *(ProxyConfig(balance=balance) for balance in get_args(BalanceAlgorithm)),
    ],
)
@pytest.mark.parametrize("pools", [{}, POOLS], ids=["nobody", "servers"])
def test_haproxy_accepts_it(config: ProxyConfig, pools: BackendServers, tmp_path: Path) -> None:
    """HAProxy accepts each configuration without warnings."""
    program = haproxy()
    text = render(config, pools, files=20_000, prometheus=program.prometheus)
    (tmp_path / "haproxy.cfg").write_text(text)
    (tmp_path / "servers.state").write_text("1\n")
    (tmp_path / BANNED_FILE).write_text("192.0.2.1\n2001:db8::1\n")
    certificate, key = ensure_server_certificate(tmp_path, ["localhost"])
    (tmp_path / PEM_FILE).write_bytes(certificate.read_bytes() + key.read_bytes())
    (tmp_path / CLIENTS_FILE).write_bytes(certificate.read_bytes())
    answer = subprocess.run(
        [program.path, "-c", "-f", "haproxy.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = answer.stdout + answer.stderr
    assert answer.returncode == 0, said + text
    assert "[WARNING]" not in said, said


@pytest.mark.parametrize(
    "change",
    [
        {"mqtt_port": 0},
        {"ws_port": 1883},
        {"host": "a b"},
        {"internal_host": "x\n"},
        {"balance": "random"},
        {"limits": ProxyLimits(unlimited=("everybody",))},
    ],
)
def test_invalid_values_are_rejected(change: dict[str, Any]) -> None:
    """An invalid value is an error before HAProxy starts."""
    with pytest.raises(SettingsError):
        ProxyConfig(**change)


@pytest.mark.parametrize(("name", "address"), [("b 1", "10.0.0.1"), ("b1\n", "10.0.0.1"), ("b1", "host")])
def test_nothing_gets_into_the_file_through_a_unit(name: str, address: str) -> None:
    """A unit's report cannot inject anything into the configuration."""
    with pytest.raises(HeadcountError):
        HaproxyServer(name, address, 1883, 8081)
    if address != "host":
        with pytest.raises(HeadcountError):
            server_name(name, address, 1883)


def test_connections_follow_the_limit_of_files() -> None:
    """Each connection needs two files, which limits a larger setting but not a smaller one."""
    assert max_connections(ProxyConfig(), 20_500) == 10_000
    assert max_connections(ProxyConfig(limits=ProxyLimits(max_connections=50)), 20_500) == 50
    assert max_connections(ProxyConfig(limits=ProxyLimits(max_connections=10**6)), 20_500) == 10_000
    assert max_connections(ProxyConfig(), 1 << 30) == MAX_CONNECTIONS


def test_it_contains_no_absolute_path() -> None:
    """The folder may be moved and its path may be long: the file refers to nothing outside of it."""
    text = render(ProxyConfig(health_port=8404), POOLS, files=1000, prometheus=True)
    assert [word for word in text.split() if word.startswith("/")] == [
        *("/mqtt", "/metrics", "/metrics", "/healthz", "/readyz", "/readyz"),
        *("/healthz", "/healthz", "/readyz", "/healthz"),
    ]
