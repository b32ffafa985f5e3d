"""The NATS server's configuration: its content, and that the server accepts it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from headcount.broker.nats_config import (
    DEVICE_PUBLISH,
    DEVICE_SUBSCRIBE,
    BrokerConfig,
    Limits,
    mappings,
    render,
)
from headcount.errors import SettingsError
from nats_fixture import PASSWORD, server_program

#: One node of three.
NODE: dict[str, Any] = {
    "leaf_port": 7422,
    "cluster_port": 6222,
    "peers": (("core-0", 6222), ("core-1", 6222), ("core-2", 6222)),
    "replicas": 3,
    "devices": False,
    "server_name": "core-0",
}


def config(data: Path, **changes: Any) -> BrokerConfig:
    """A configuration with one thing changed."""
    settings: dict[str, Any] = {"data": data, "password": PASSWORD, "anonymous": True}
    return BrokerConfig(**(settings | changes))


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        ("plain", {}),
        ('with "quotes", \\ and $dollars', {}),
        ("mit Umläuten ü", {"password": 'quote " and \\ and $x 1234'}),
        ("ipv6", {"host": "::1"}),
        ("public", {"host": "0.0.0.0", "partitions": 64}),
        ("safe", {"sync_interval": "always", "limits": Limits(max_connections=10)}),
        ("core", {"leaf_port": 7422, "internal_host": "0.0.0.0", "devices": False}),
        ("node", NODE),
        (
            "leaf",
            {"hub": (("core-0", 7422), ("::1", 7422)), "password": 'a/b@c:d "e" 1234', "server_name": "b1"},
        ),
    ],
)
def test_the_server_takes_it(tmp_path: Path, folder: str, changes: dict[str, Any]) -> None:
    """nats-server finds the rendered text valid, whatever is in names and passwords."""
    file = tmp_path / "broker.conf"
    file.write_text(render(config(tmp_path / folder, **changes)))
    checked = subprocess.run(
        [server_program(), "-t", "-c", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_same_settings_same_text(tmp_path: Path) -> None:
    """Rendering is a function of the settings alone."""
    assert render(config(tmp_path)) == render(config(tmp_path))


def test_nats_listens_on_loopback_only(tmp_path: Path) -> None:
    """Opening the ports for devices opens no other."""
    text = render(config(tmp_path, host="0.0.0.0", nats_port=4333))
    lines = text.splitlines()
    assert 'listen: "127.0.0.1:4333"' in lines
    assert not [line for line in lines if line.startswith(("http:", "https:", "monitor_port:"))]
    assert [line.strip() for line in lines if "0.0.0.0" in line] == [
        'listen: "0.0.0.0:1883"',
        'listen: "0.0.0.0:9001"',
    ]


def test_a_core_for_brokers_lets_in_no_device(tmp_path: Path) -> None:
    """Without devices, MQTT is inside and asks for a password, and there is no WebSocket."""
    text = render(config(tmp_path, devices=False, host="0.0.0.0", leaf_port=7422))
    assert "no_auth_user" not in text
    assert "websocket" not in text
    assert "0.0.0.0" not in text


def test_a_leaf_keeps_nothing(tmp_path: Path) -> None:
    """A leaf has no streams of its own: it uses those of the core, over the link."""
    text = render(config(tmp_path, hub=(("core-0", 7422),)))
    assert "jetstream" not in text
    assert "store_dir" not in text
    assert "js_domain: hub" in text
    assert "no_auth_user: device" in text


def test_a_node_does_not_reveal_its_addresses(tmp_path: Path) -> None:
    """Streams are three times there, and clients go on with the addresses that they were given."""
    text = render(config(tmp_path, **NODE))
    assert "stream_replicas: 3" in text
    assert text.count("no_advertise: true") == 2


def test_while_closed_no_device_gets_in(tmp_path: Path) -> None:
    """Until the streams are there, there is no MQTT port."""
    text = render(config(tmp_path), closed=True)
    assert "mqtt {" not in text
    assert "websocket {" not in text


def test_a_device_may_not_subscribe_to_positions() -> None:
    """No right of a device's covers a subject on which fixes travel, directly or by a wildcard."""
    for subject in DEVICE_SUBSCRIBE:
        first, *_, last = subject.split(".")
        assert first == "headcount" or subject == "owntracks.*.*.cmd"
        assert last in {"counts", "events", "site", "cmd", ">"}
        if last == ">":
            assert subject.split(".")[2] in {"counts", "events"}


def test_a_device_may_not_write_what_we_compute() -> None:
    """Counts, events, the site and the log's clock are not among what a device may publish."""
    assert all(">" not in subject for subject in DEVICE_PUBLISH)
    ends = {subject.split(".")[-1] for subject in DEVICE_PUBLISH if subject.startswith("headcount")}
    assert ends == {"fix", "status", "ack"}
    assert min(subject.count(".") for subject in DEVICE_PUBLISH if subject.startswith("fix")) == 4


def test_every_way_into_the_log_is_mapped() -> None:
    """Whether a sender names the topic or a partition, the partition is computed from site and device."""
    table = mappings(8)
    assert set(table) == {
        "headcount.*.*.*.fix",
        "headcount.*.*.*.status",
        "fix.*.*.*.*",
        "fix.*.*.*.*.status",
    }
    assert all(target.startswith("fix.{{partition(8,") for target in table.values())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"mqtt_port": 0}, "--mqtt-port"),
        ({"ws_port": 65536}, "--ws-port"),
        ({"nats_port": -1}, "--nats-port"),
        ({"leaf_port": 70000}, "--leaf-port"),
        ({"mqtt_port": 4222}, "--mqtt-port"),
        ({"partitions": 0}, "--partitions"),
        ({"partitions": 5000}, "--partitions"),
        ({"password": "short"}, "password"),
        ({"password": "line\nbreak and more characters"}, "password"),
        ({"server_name": "two words"}, "server_name"),
        ({"sync_interval": "sometimes"}, "sync_interval"),
        ({"host": 'x" port: 1'}, "listen address"),
        ({"internal_host": "a b"}, "listen address"),
        ({"hub": (('x"', 1),)}, "listen address"),
        ({"hub": (("core", 1),), "peers": (("core", 1),)}, "peers"),
        ({"peers": (("core", 1),)}, "peers"),
        ({"leaf_port": 4222}, "--mqtt-port"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    """Impossible settings are refused immediately, by the name of the option."""
    with pytest.raises(SettingsError) as refused:
        config(tmp_path, **changes)
    assert refused.value.name == name


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    """Printing a configuration, in a log or a traceback, does not print the password."""
    assert PASSWORD not in repr(config(tmp_path))
