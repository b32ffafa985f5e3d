"""Settings of a deployment of more than one machine: read, checked, handed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headcount.cli.main import main
from headcount.errors import SettingsError
from headcount.roles.api import oidc_provider_of
from headcount.roles.endpoints import health_url
from headcount.roles.secret import secret_of
from headcount.roles.server_config import core_config, origins_of
from headcount.settings.deployment import Settings, machine_name
from headcount.settings.environment import PREFIX
from headcount.settings.formats import addresses


def settings(**changes: Any) -> Settings:
    """Settings with some things changed."""
    return Settings(site=Path("site.geojson"), **changes)


def test_addresses_are_read() -> None:
    """Names, IPv4 and IPv6 addresses with or without ports; several with commas between."""
    assert addresses(" core-0:4222, 10.0.0.1 ,[::1]:5,", 7) == (
        ("core-0", 4222),
        ("10.0.0.1", 7),
        ("::1", 5),
    )
    for text in ("a b", "core:99999", "[nonsense]:1", "core:x", "::1"):
        with pytest.raises(ValueError, match=r".*"):
            addresses(text, 7)


def test_a_machine_is_a_cluster_of_one() -> None:
    """By default the core is this machine, one node that accepts devices."""
    alone = settings(nats_port=5222, mqtt_port=2883)
    assert alone.core_addresses == (("127.0.0.1", 5222),)
    assert alone.core_mqtt_addresses == (("127.0.0.1", 2883),)
    assert alone.core_leaf_addresses == (("127.0.0.1", 7422),)
    assert alone.replicas == 1
    assert alone.name == machine_name()


def test_three_nodes_keep_three_replicas() -> None:
    """Three peers are three replicas; their MQTT and leaf ports are on the hosts of the core."""
    three = settings(core="a,b:5222,c", peers="a,b,c", devices=False)
    assert three.replicas == 3
    assert three.peer_addresses == (("a", 6222), ("b", 6222), ("c", 6222))
    assert three.core_addresses == (("a", 4222), ("b", 5222), ("c", 4222))
    assert three.core_mqtt_addresses == (("a", 1883), ("b", 1883), ("c", 1883))
    assert three.core_leaf_addresses == (("a", 7422), ("b", 7422), ("c", 7422))


def test_where_others_reach_a_unit() -> None:
    """The advertised address is the setting, else the address that it listens on, else the host's name."""
    assert settings().advertised == "127.0.0.1"
    assert settings(internal_host="10.1.2.3").advertised == "10.1.2.3"
    assert settings(internal_host="0.0.0.0").advertised not in {"0.0.0.0", ""}
    assert settings(internal_host="0.0.0.0", advertise="broker-1").advertised == "broker-1"


@pytest.mark.parametrize(
    ("tls", "host", "encrypted", "http", "ports"),
    [
        ("auto", "127.0.0.1", False, False, (1883, 9001, 8080)),
        ("auto", "localhost", False, False, (1883, 9001, 8080)),
        ("auto", "0.0.0.0", True, True, (8883, 9443, 8443)),
        ("on", "127.0.0.1", True, True, (8883, 9443, 8443)),
        ("off", "0.0.0.0", False, False, (1883, 9001, 8080)),
        ("proxy", "127.0.0.1", True, False, (8883, 9001, 8080)),
    ],
)
def test_tls_decides_the_ports(
    tls: str, host: str, encrypted: bool, http: bool, ports: tuple[int, ...]
) -> None:
    """TLS is on where it is set, or where other machines connect; ports that are not set follow."""
    chosen = settings(tls=tls, host=host)
    assert (chosen.encrypted, chosen.encrypts_http) == (encrypted, http)
    assert (chosen.mqtt_port, chosen.ws_port, chosen.http_port) == ports
    assert settings(tls=tls, host=host, mqtt_port=7).mqtt_port == 7


def test_our_own_clients_meet_tls_where_devices_do() -> None:
    """On one machine they use the devices' port; a core of its own takes them unencrypted, inside."""
    assert settings(tls="on").core_takes_tls
    assert not settings(tls="off").core_takes_tls
    for elsewhere in ({"core": "core:4222"}, {"core_mqtt": "core:1883"}, {"devices": False}):
        assert not settings(tls="on", **elsewhere).core_takes_tls
    with pytest.raises(SettingsError, match="--no-devices"):
        core_config(settings(tls="on", internal_host="0.0.0.0"))


def test_health_is_asked_where_a_role_listens() -> None:
    """Each role is asked on its own address; where it listens on all, on the loopback one."""
    assert health_url("broker", settings()) == "http://127.0.0.1:8081/healthz"
    assert health_url("core", settings()) == ""
    assert health_url("proxy", settings(internal_host="::")) == "http://[::1]:8081/healthz"
    public = settings(internal_host="10.1.2.3", host="0.0.0.0")
    assert health_url("api", public) == "https://127.0.0.1:8443/healthz"
    assert health_url("api", replace(public, tls="proxy")) == "http://127.0.0.1:8443/healthz"
    assert health_url("count", settings()) == ""


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"client_ca": Path("ca.crt")}, "client_ca"),
        ({"tls_cert": Path("server.crt")}, "tls_key"),
        ({"name": "two words"}, "name"),
        ({"drain_s": -1}, "drain_s"),
        ({"peers": "a,b", "devices": False}, "peers"),
        ({"peers": "a,b,c"}, "devices"),
        ({"core": "a b"}, "core"),
        ({"core_mqtt": ":1"}, "core_mqtt"),
        ({"api": "a:b:c"}, "api"),
        ({"internal_host": 'x" port'}, "internal_host"),
        ({"advertise": "a b"}, "advertise"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], name: str) -> None:
    """Impossible values are refused immediately, with the name of the option."""
    with pytest.raises(SettingsError) as refused:
        settings(**changes)
    assert refused.value.name == name


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A role in a process of its own gets exactly the settings of its parent."""
    given = settings(
        data=tmp_path,
        core="a,b,c",
        peers="a,b,c",
        devices=False,
        name="core-1",
        drain_s=3.5,
        open=True,
        secret_file=tmp_path / "secret",
    )
    for variable, value in given.environment().items():
        if variable.startswith(PREFIX):
            monkeypatch.setenv(variable, value)
    found: list[Settings] = []

    async def role(taken: Settings, *_: object) -> None:
        found.append(taken)

    monkeypatch.setattr("headcount.roles.core.run", role)
    result = CliRunner().invoke(main, ["run", "core"], catch_exceptions=False)
    assert result.exit_code == 0
    assert found[0] == replace(given, site=given.site.resolve())


def test_origins_of_pages() -> None:
    """Pages of public_url and of `mqtt_origins` may connect over MQTT with --open."""
    given = settings(http_port=8090, public_url="https://a.example/", mqtt_origins="http://b.example:81")
    assert origins_of(given) == ("http://b.example:81", "https://a.example")


def test_a_secret_from_elsewhere(tmp_path: Path) -> None:
    """A secret file must be there and long enough; nothing is made in its place."""
    file = tmp_path / "secret"
    given = settings(data=tmp_path / "data", secret_file=file)
    with pytest.raises(SettingsError, match="secret_file"):
        secret_of(given)
    file.write_text("short\n")
    with pytest.raises(SettingsError, match="16"):
        secret_of(given)
    file.write_text("long enough for anybody\n")
    assert secret_of(given) == "long enough for anybody"
    assert not given.data.exists()


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"public_url": "headcount.example"}, "public_url"),
        ({"public_url": "https://a.example/path"}, "public_url"),
        ({"trusted_proxies": "proxy"}, "trusted_proxies"),
        ({"mqtt_origins": "https://page.example/path"}, "mqtt_origins"),
        ({"trusted_proxies": "10.0.0.0/99"}, "trusted_proxies"),
        ({"requests_per_s": 0.0}, "requests_per_s"),
        ({"oidc_issuer": "http://id.example"}, "oidc_issuer"),
        ({"oidc_client_secret_file": Path("secret")}, "oidc_client_secret_file"),
    ],
)
def test_settings_of_signing_in_are_checked(changes: dict[str, Any], option: str) -> None:
    """Invalid addresses, networks and unencrypted issuers are refused with the option's name."""
    with pytest.raises(SettingsError, match=option):
        settings(**changes)


def test_the_identity_provider_comes_from_settings(tmp_path: Path) -> None:
    """Its secret is read from its file and shown nowhere; without an issuer there are no logins."""
    assert oidc_provider_of(settings()) is None
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    given = settings(oidc_issuer="https://id.example", oidc_client_secret_file=file)
    provider = oidc_provider_of(given)
    assert provider is not None
    assert (provider.client_secret, provider.client_id, provider.role_claim) == (
        "s3cret",
        "headcount",
        "groups",
    )
    assert "s3cret" not in repr(provider)
    with pytest.raises(SettingsError, match="oidc_client_secret_file"):
        oidc_provider_of(replace(given, oidc_client_secret_file=tmp_path / "none"))
