"""TLS on a real NATS server, HAProxy and HTTP server: who gets in, what is presented, and when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import httpx
import pytest

from api_fixture import site_with
from headcount.api import server
from headcount.api.api_settings import ApiSettings
from headcount.broker.auth_service import AuthService, AuthServiceSettings
from headcount.devices.registry import Registry
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.runtime import health
from headcount.runtime.ports import free_ports
from headcount.tls import reload
from headcount.tls.authority import CertificateAuthority
from headcount.tls.certificates import (
    IssuedCertificate,
    ensure_client_certificates,
    ensure_server_certificate,
    fingerprint,
    first_certificate,
)
from headcount.tls.contexts import client_context
from headcount.tls.tls_files import TlsFiles
from nats_fixture import PASSWORD, config_for, internal_client, open_broker
from proxy_fixture import Bench, haproxy, scaled, states, stepping_until
from waiting import BUSY_S, LIMIT_S, until

LOOPBACK = "127.0.0.1"
NAMES = ["localhost", LOOPBACK]
DEVICE = "abcdefghij234567abcd"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll files often to make the tests quick."""
    monkeypatch.setattr(reload, "POLL_INTERVAL_S", 0.05)


def made(folder: Path) -> TlsFiles:
    """A certificate and its key."""
    return TlsFiles(*ensure_server_certificate(folder, NAMES))


def renew(files: TlsFiles, folder: Path) -> str:
    """Put another certificate and key in their place, as certbot would; its fingerprint."""
    for new, old in zip(
        ensure_server_certificate(folder, NAMES), (files.certificate, files.key), strict=True
    ):
        shutil.copy(new, old)
    return digest(files)


def digest(files: TlsFiles) -> str:
    """The certificate's fingerprint."""
    return fingerprint(first_certificate(files.certificate))


def presented(port: int) -> str:
    """The fingerprint of what a port shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((LOOPBACK, port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()


def refuses_1_1(port: int) -> bool:
    """Whether a port refuses TLS 1.1, which OpenSSL really offers with these options."""
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"{LOOPBACK}:{port}",
        "-tls1_1",
        "-cipher",
        "ALL@SECLEVEL=0",
    ]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=BUSY_S)
    answered = "alert protocol version" in done.stderr or "unexpected eof" in done.stderr
    return answered and done.returncode != 0 and "Cipher is (NONE)" in done.stdout


async def becomes(port: int, wanted: str) -> None:
    """Wait until a port shows a certificate."""

    async def is_presented() -> bool:
        return await asyncio.to_thread(presented, port) == wanted

    await until(is_presented, "the new certificate")


def mqtt(port: int, context: ssl.SSLContext, **options: object) -> aiomqtt.Client:
    """A device over TLS."""
    return aiomqtt.Client(LOOPBACK, port, tls_context=context, timeout=BUSY_S, **options)  # type: ignore[arg-type]


def wss(port: int, context: ssl.SSLContext) -> aiomqtt.Client:
    """A browser over secure WebSocket."""
    return mqtt(port, context, transport="websockets", websocket_path="/mqtt")


#: A WebSocket handshake of a page of another origin.
FOREIGN_PAGE = {
    "Origin": "https://example.org",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "mqtt",
}


async def knock(port: int, context: ssl.SSLContext) -> None:
    """Connect, and wait for a first byte."""
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    try:
        await reader.readexactly(1)
    finally:
        writer.close()


# --- the NATS server -----------------------------------------------------------------------------
async def test_mqtt_and_websocket_over_tls(tmp_path: Path) -> None:
    """Devices get in over MQTT and WebSocket if they trust the certificate; plain and TLS 1.1 are refused."""
    files = made(tmp_path / "tls")
    context = client_context(files.certificate)
    async with open_broker(tmp_path / "data", tls=files) as broker:
        ports = broker.config.mqtt_port, broker.config.ws_port
        async with mqtt(ports[0], context) as device, wss(ports[1], context) as browser:
            for one in (device, browser):
                await one.publish("headcount/ul/person/d1/status", b"online", qos=1)
        for port in ports:
            assert await asyncio.to_thread(presented, port) == digest(files)
            assert await asyncio.to_thread(refuses_1_1, port)
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client(LOOPBACK, ports[0], timeout=2):
                pass
        other = client_context(made(tmp_path / "other").certificate)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("localhost", ports[0], ssl=other)


async def test_mosquitto_gets_in(tmp_path: Path) -> None:
    """Mosquitto's client, given the self-made certificate, trusts it by the machine's name."""
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto_pub isn't installed")
    files = made(tmp_path / "tls")
    async with open_broker(tmp_path / "data", tls=files) as broker:
        for host, ca, refused in (
            ("localhost", files, False),
            (LOOPBACK, files, False),
            (LOOPBACK, made(tmp_path), True),
        ):
            process = await asyncio.create_subprocess_exec(
                *("mosquitto_pub", "-h", host, "-p", str(broker.config.mqtt_port), "-q", "1"),
                *("--cafile", ca.certificate, "-t", "headcount/ul/person/d1/status", "-m", "online"),
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert bool(await process.wait()) == refused


async def test_a_new_certificate_is_served_without_disconnects(tmp_path: Path) -> None:
    """Replaced files are loaded by the NATS server: new connections see the new one, old ones stay."""
    files = made(tmp_path / "tls")
    context = client_context(files.certificate)
    async with (
        open_broker(tmp_path / "data", tls=files) as broker,
        mqtt(broker.config.mqtt_port, context) as device,
        wss(broker.config.ws_port, context) as browser,
    ):
        pid = broker.pid
        wanted = renew(files, tmp_path / "new")
        for port in (broker.config.mqtt_port, broker.config.ws_port):
            await becomes(port, wanted)
        for one in (device, browser):
            await one.publish("headcount/ul/person/d1/status", b"online", qos=1)
        async with mqtt(broker.config.mqtt_port, client_context(files.certificate)):
            pass
        assert broker.pid == pid


async def test_a_pair_that_doesn_t_fit_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A half replaced pair isn't loaded and is logged once; the complete pair is loaded."""
    files, calls = made(tmp_path / "tls"), 0
    other = made(tmp_path / "other")

    def act() -> None:
        nonlocal calls
        calls += 1

    def replace(new: Path, old: Path) -> None:
        shutil.copy(new, tmp_path / "new")
        (tmp_path / "new").replace(old)

    task = asyncio.create_task(reload.reload_on_change(files, act))
    await asyncio.sleep(0.1)
    replace(other.certificate, files.certificate)
    await until(lambda: "new certificate is not valid" in caplog.text)
    await asyncio.sleep(0.2)
    assert calls == 0
    assert caplog.text.count("new certificate is not valid") == 1
    replace(other.key, files.key)
    await until(lambda: calls == 1)
    await asyncio.sleep(0.1)
    assert calls == 1
    task.cancel()


@pytest.mark.parametrize("way", ["mqtt", "ws"])
async def test_devices_must_show_a_certificate(tmp_path: Path, way: str) -> None:
    """With a CA for devices only its certificates and our own client get in: the server asks everybody."""
    ca = CertificateAuthority.init(tmp_path / "ca", "Ours")
    strangers = CertificateAuthority.init(tmp_path / "strangers", "Theirs")
    files = ensure_client_certificates(
        TlsFiles(*ensure_server_certificate(tmp_path, NAMES), client_ca=tmp_path / "ca" / "ca.crt"),
        tmp_path,
    )
    async with open_broker(tmp_path / "data", tls=files) as broker:
        connect = mqtt if way == "mqtt" else wss
        port = broker.config.mqtt_port if way == "mqtt" else broker.config.ws_port
        for authority, admitted in ((ca, True), (strangers, False), (None, False)):
            context = client_context(files.certificate)
            if authority is not None:
                pair = tmp_path / f"{admitted}.crt", tmp_path / f"{admitted}.key"
                authority.issue_device(DEVICE).write(*pair)
                context.load_cert_chain(*pair)
            if admitted:
                async with connect(port, context):
                    pass
            else:
                # in TLS 1.3 the server refuses when the client has done all that it has to
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await knock(port, context)


async def test_a_device_signs_in_by_its_certificate(tmp_path: Path) -> None:
    """A device signs in by its id in a certificate of our CA; other CAs and unknown ids are refused.

    A renewal of the server's certificate cuts off the clients that the auth service admitted: they reconnect.
    """
    ca = CertificateAuthority.init(tmp_path / "ca", "Ours")
    files = ensure_client_certificates(
        TlsFiles(*ensure_server_certificate(tmp_path, NAMES), client_ca=tmp_path / "ca" / "ca.crt"),
        tmp_path,
    )

    def context(issued: IssuedCertificate, name: str) -> ssl.SSLContext:
        pair = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        issued.write(*pair)
        made = client_context(files.certificate)
        made.load_cert_chain(*pair)
        return made

    async with open_broker(tmp_path / "data", tls=files, anonymous=False) as broker:
        port = broker.config.mqtt_port
        core = await internal_client(broker)
        registry = Registry(KvBucket(Connection(core), DEVICE_BUCKET), PASSWORD)
        gate = AuthService(
            AuthServiceSettings("test", ((LOOPBACK, broker.config.nats_port),), PASSWORD, direct=True)
        )
        one, _ = await registry.add("ul", "person")
        other, _ = await registry.add("ul", "person")
        issued, again = ca.issue_device(one.id), ca.issue_device(one.id)
        await registry.change(one.id, certificate=fingerprint(issued.certificate))
        contexts = {
            "its own": context(issued, "mine"),
            "another of its own": context(again, "again"),
            "another's": context(ca.issue_device(other.id), "other"),
        }
        topic = f"headcount/ul/person/{one.id}/status"
        async with gate.opened(Connection(core)):
            await until(lambda: gate.problem is None)
            for name, tls in contexts.items():
                device = mqtt(port, tls, identifier=one.id, username=one.id)
                if name == "its own":
                    async with device:
                        await device.publish(topic, b"online", qos=1)
                else:
                    with pytest.raises(aiomqtt.MqttError):
                        await device.__aenter__()
            async with contextlib.AsyncExitStack() as going:
                device = mqtt(port, contexts["its own"], identifier=one.id, username=one.id)
                await going.enter_async_context(device)
                wanted = renew(files, tmp_path / "new")
                with pytest.raises(aiomqtt.MqttError):
                    await anext(device.messages)
                assert await asyncio.to_thread(presented, port) == wanted
                with contextlib.suppress(aiomqtt.MqttError):
                    await going.aclose()
            trusting = client_context(files.certificate)
            trusting.load_cert_chain(tmp_path / "mine.crt", tmp_path / "mine.key")
            async with mqtt(port, trusting, identifier=one.id, username=one.id) as back:
                await back.publish(topic, b"online", qos=1)
        await core.close()


def test_the_core_is_plain_inside(tmp_path: Path) -> None:
    """A core that takes no devices encrypts nothing, because only our own roles reach it."""
    config = config_for(tmp_path, tls=made(tmp_path / "tls"), devices=False)
    assert config.mqtt_tls is None


# --- HTTP ---------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def https(folder: Path, files: TlsFiles) -> AsyncIterator[int]:
    """The API over HTTPS, with no broker behind it."""
    stop, ready = asyncio.Event(), asyncio.Event()
    (port,) = free_ports(1)
    settings = ApiSettings(
        site_with(2), Endpoint((("127.0.0.1", 1),), "", ""), folder, 2, web=folder / "web", https=True
    )
    task = asyncio.create_task(
        server.run(settings, host=LOOPBACK, port=port, stop=stop, on_ready=lambda _: ready.set(), tls=files)
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield port
    finally:
        waiting.cancel()
        stop.set()
        await task


async def test_https(tmp_path: Path) -> None:
    """The API answers over HTTPS to clients that trust it; 1.1 is refused, and plain HTTP redirected."""
    files = made(tmp_path / "tls")
    async with https(tmp_path, files) as port:
        async with httpx.AsyncClient(
            verify=client_context(files.certificate), trust_env=False, timeout=LIMIT_S
        ) as client:
            assert (await client.get(f"https://localhost:{port}/healthz")).status_code == 200
            redirect = await client.get(f"http://localhost:{port}/healthz")
            assert redirect.headers["location"] == f"https://localhost:{port}/healthz"
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get(f"https://localhost:{port}/healthz")
        assert await asyncio.to_thread(refuses_1_1, port)
        pulse = tmp_path / "pulse"
        pulse.write_text(f"https://{LOOPBACK}:{port}/healthz")
        assert await asyncio.to_thread(health.problem, pulse, pulse.stat().st_mtime) == ""


async def test_https_shows_a_new_certificate(tmp_path: Path) -> None:
    """Replaced files are loaded by the API too, and a connection that is there goes on."""
    files = made(tmp_path / "tls")
    async with https(tmp_path, files) as port:
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=client_context(files.certificate)
        )
        wanted = renew(files, tmp_path / "new")
        await becomes(port, wanted)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


# --- the balancer --------------------------------------------------------------------------------------
async def test_through_the_balancer(tmp_path: Path) -> None:
    """MQTT over TLS reaches two brokers untouched; WebSocket and HTTPS end at the balancer, with its rules."""
    haproxy()
    files = made(tmp_path / "tls")
    context = client_context(files.certificate)
    async with (
        open_broker(tmp_path / "a", tls=files, ws_tls=False) as first,
        open_broker(tmp_path / "b", tls=files, ws_tls=False) as second,
        Bench(tmp_path, limits=scaled()) as bench,
    ):
        for name, broker in (("b1", first), ("b2", second)):
            await bench.unit(name, broker.config.mqtt_port, broker.config.ws_port)
        api = await bench.agent()
        bench.apis = (f"{LOOPBACK}:{api.port}",)
        bench.with_tls(files)
        config = bench.config
        assert config.ws_port is not None
        assert config.http_port is not None
        async with bench.balancer() as role, contextlib.AsyncExitStack() as devices:
            for backend in ("mqtt", "ws", "api"):
                await stepping_until(role, lambda up: set(up.values()) >= {"UP"}, backend)
            await stepping_until(role, lambda up: up.get("b1") == up.get("b2") == "UP")
            for _ in range(4):
                device = await devices.enter_async_context(mqtt(config.mqtt_port, context))
                await device.publish("headcount/ul/person/d1/status", b"online", qos=1)
            standing = (await role.haproxy.runtime.statuses())["mqtt"]
            assert [one.sessions for name, one in standing.items() if name[0] == "b"] == [2, 2]
            browser = await devices.enter_async_context(wss(config.ws_port, context))
            await browser.publish("headcount/ul/person/d2/status", b"online", qos=1)
            async with httpx.AsyncClient(verify=context, trust_env=False, timeout=LIMIT_S) as client:
                answer = await client.get(f"https://localhost:{config.http_port}/readyz")
                elsewhere = await client.get(f"https://localhost:{config.ws_port}/")
                foreign = await client.get(f"https://localhost:{config.ws_port}/mqtt", headers=FOREIGN_PAGE)
            assert (answer.status_code, elsewhere.status_code, foreign.status_code) == (200, 404, 403)
            requests = [request.lower() for request in api.requests if b"/readyz" in request]
            assert any(b"x-forwarded-proto: https" in request for request in requests)
            for port in (config.mqtt_port, config.ws_port, config.http_port):
                assert await asyncio.to_thread(presented, port) == digest(files)
                assert await asyncio.to_thread(refuses_1_1, port)
            wanted = renew(files, tmp_path / "new")
            role.reload_soon()
            await role.step()
            await becomes(config.http_port, wanted)
            await device.publish("headcount/ul/person/d1/status", b"online", qos=1)
            assert set((await states(role)).values()) >= {"UP"}
