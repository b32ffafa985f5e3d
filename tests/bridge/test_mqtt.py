"""The bridge from a real Mosquitto, into a real log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from bridge_fixture import StallingProxy, bridge, fix, logged, numbers
from headcount.bridge import mqtt
from headcount.tls.authority import CertificateAuthority
from mosquitto_fixture import Mosquitto, needs_mosquitto
from nats_fixture import open_broker
from waiting import until

pytestmark = needs_mosquitto


async def test_messages_go_to_the_log_or_to_decoders(tmp_path: Path) -> None:
    """Fixes go to the log, other formats to FOREIGN, anything else and retained messages nowhere; in order."""
    now_s = time.time()
    with Mosquitto(tmp_path) as mosquitto:
        async with (
            open_broker(tmp_path / "core") as broker,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as device,
        ):
            await device.publish("headcount/ul/person/a/fix", fix(-1, now_s - 900), qos=1, retain=True)
            async with bridge(broker, f"mqtt://127.0.0.1:{mosquitto.port}"):
                for number in range(50):
                    await device.publish(
                        "headcount/ul/person/a/fix", fix(number, now_s + number / 100), qos=1
                    )
                await device.publish("headcount/ul/person/a/status", b"offline", qos=1)
                await device.publish("owntracks/jane.doe/phone", b"{}", qos=1)
                await device.publish("headcount/ul/counts/library", b"1", qos=1)
                await device.publish("headcount/ul/person/b/fix", b" " * 70_000, qos=1)

                async def complete() -> bool:
                    return len(await logged(broker)) >= 3

                await until(complete, "all are there", every_s=0.2)
            found = await logged(broker)
    assert set(found) == {"ul.person.a", "ul.person.a.status", "owntracks.jane//doe.phone"}
    assert numbers(found["ul.person.a"]) == list(range(50))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_nothing_is_lost_when_the_network_is_cut(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages sent while the network of the bridge was cut arrive later, those of each device in order."""
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 2)
    now_s, devices = time.time(), ("a", "b", "c")
    with Mosquitto(tmp_path) as mosquitto:
        async with (
            open_broker(tmp_path / "core") as broker,
            StallingProxy(mosquitto.port) as network,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as device,
            bridge(broker, f"mqtt://127.0.0.1:{network.port}", mqtt_version=version) as source,
        ):

            async def publish(first: int, last: int) -> None:
                for number in range(first, last):
                    for name in devices:
                        topic = f"headcount/ul/person/{name}/fix"
                        await device.publish(topic, fix(number, now_s - 700 + number), qos=1)

            async def arrived(last: int) -> bool:
                found = await logged(broker)
                return all(last in numbers(found.get(f"ul.person.{name}", [])) for name in devices)

            await publish(0, 20)
            await until(lambda: arrived(19), "the first", every_s=0.2)
            network.cut()
            await publish(20, 620)  # a fix per second for ten minutes
            await until(lambda: source.problem, "the bridge notices it")
            network.join()
            await until(lambda: arrived(619), "the last", every_s=0.5)
            found = await logged(broker)
    for name in devices:
        seen = numbers(found[f"ul.person.{name}"])
        # repeated ones come after the first delivery of all before them
        assert list(dict.fromkeys(seen)) == list(range(620))


# paho leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_client_certificate_over_tls(tmp_path: Path) -> None:
    """The bridge trusts the CA that is given, shows a certificate of its own, and reports why it can't connect."""
    authority = CertificateAuthority.init(tmp_path / "ca", "Test")
    files = {name: tmp_path / name for name in ("server.crt", "server.key", "bridge.crt", "bridge.key")}
    authority.issue_server(["localhost"]).write(files["server.crt"], files["server.key"])
    authority.issue_device("b" * 20).write(files["bridge.crt"], files["bridge.key"])
    ca = tmp_path / "ca" / "ca.crt"
    lines = (f"certfile {files['server.crt']}", f"keyfile {files['server.key']}", f"cafile {ca}")
    with Mosquitto(
        tmp_path, *lines, "require_certificate true", "use_identity_as_username true"
    ) as mosquitto:
        url = f"mqtts://localhost:{mosquitto.port}"
        async with open_broker(tmp_path / "core") as broker:
            certificate: dict[str, Any] = {"cert": files["bridge.crt"], "key": files["bridge.key"]}
            async with (
                bridge(broker, url, ca=ca, **certificate),
                aiomqtt.Client(
                    "localhost",
                    mosquitto.port,
                    tls_params=aiomqtt.TLSParameters(
                        str(ca), str(files["bridge.crt"]), str(files["bridge.key"])
                    ),
                ) as device,
            ):
                await device.publish("headcount/ul/person/a/fix", fix(1, time.time()), qos=1)

                async def arrived() -> bool:
                    return "ul.person.a" in await logged(broker)

                await until(arrived, "the fix", every_s=0.2)
            # the authorities of this machine don't know the server's
            async with bridge(broker, url, wait=False) as source:
                await until(lambda: "CERTIFICATE_VERIFY_FAILED" in source.problem, "the reason")


async def test_bridges_of_a_group_divide_the_messages(tmp_path: Path) -> None:
    """Two bridges with a shared subscription are both active, and store each message once."""
    with Mosquitto(tmp_path) as mosquitto:
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        async with (
            open_broker(tmp_path / "core") as broker,
            bridge(broker, url, share="group", name="one") as one,
            bridge(broker, url, share="group", name="two") as two,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as device,
        ):
            for number in range(100):
                topic = f"headcount/ul/person/d{number % 10}/fix"
                await device.publish(topic, fix(number, time.time()), qos=1)

            async def stored() -> list[int]:
                return [number for each in (await logged(broker)).values() for number in numbers(each)]

            async def complete() -> bool:
                return sorted(await stored()) == list(range(100))

            await until(complete, "all messages", every_s=0.2)
            assert not one.problem
            assert not two.problem
