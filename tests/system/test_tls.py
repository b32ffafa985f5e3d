"""`headcount up` with TLS: its output, which clients are admitted, and that everything inside still works."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from cryptography import x509

from headcount.devices.registry import Registry
from headcount.messages.topics import FIX_STREAM, INTERNAL
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.tls.certificates import display_fingerprint, fingerprint, first_certificate
from headcount.tls.contexts import client_context
from proxy_fixture import haproxy
from system.running import Up, headcount
from system.senders import fix, mosquitto_pub, spot
from waiting import LIMIT_S, wait_until

LIBRARY = "glucksman-library"


class Encrypted(Up):
    """The same over HTTPS, trusting the self-made certificate."""

    @property
    def certificate(self) -> Path:
        """The certificate that it has made."""
        return self.data / "tls" / "server.crt"

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET a path."""
        url = f"https://localhost:{self.ports['http']}{path}"
        with httpx.Client(verify=client_context(self.certificate), trust_env=False, timeout=60) as client:
            return client.get(url, params=parameters)


def recording(path: Path) -> Path:
    """One person in the library, a fix a second."""
    lat, lon = spot(LIBRARY)
    rows = [f"{1_760_000_000 + second},p1,person,{lat:.7f},{lon:.7f},6" for second in range(2)]
    path.write_text("\n".join(["t,device,kind,lat,lon,acc", *rows]) + "\n")
    return path


def test_everything_encrypted(tmp_path: Path) -> None:
    """With --tls on it prints the fingerprint of its own certificate; devices, publish and the API use it."""
    with Encrypted(tmp_path, arguments=["--tls", "on"]) as up:
        assert display_fingerprint(fingerprint(first_certificate(up.certificate))) in up.printed()
        assert f"https://127.0.0.1:{up.ports['http']}/" in up.printed()
        assert f"mqtts://127.0.0.1:{up.mqtt_port}" in up.printed()
        plain = httpx.get(
            f"http://localhost:{up.ports['http']}/v1/sites?a=b", trust_env=False, timeout=LIMIT_S
        )
        url = f"https://localhost:{up.ports['http']}/v1/sites?a=b"
        assert (plain.status_code, plain.headers["location"]) == (307, url)
        assert url in plain.text
        posted = httpx.post(f"http://localhost:{up.ports['http']}/v1/sites", trust_env=False, timeout=LIMIT_S)
        assert (posted.status_code, "This port speaks HTTPS" in posted.text) == (400, True)
        trust = ["--cafile", str(up.certificate)]
        mosquitto_pub(up.mqtt_port, "headcount/ul/person/me/fix", fix(LIBRARY), "-q", "1", *trust)
        wait_until(lambda: up.counts()[LIBRARY] == (1, 0), "the fix is counted")
        file = recording(tmp_path / "walk.csv")
        more = ["--port", str(up.mqtt_port), "--ca", str(up.certificate), "--quiet"]
        run = headcount("publish", file, *more, cwd=tmp_path)  # asks for the retained site first
        assert run.returncode == 0, run.stderr
        wait_until(lambda: up.counts()[LIBRARY] == (2, 0), "the recording is counted")


async def _register(up: Up) -> tuple[str, str]:
    """A device's id and secret."""
    client = await nats.connect(f"nats://127.0.0.1:{up.ports['nats']}", user=INTERNAL, password=up.password)
    try:
        registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), up.password)
        device, secret = await registry.add("ul", "person")
        return device.id, secret
    finally:
        await client.close()


async def _in_log(up: Up, device: str) -> int:
    """How many fixes of a device are in the log."""
    client = await nats.connect(f"nats://127.0.0.1:{up.ports['nats']}", user=INTERNAL, password=up.password)
    try:
        log = client.jetstream()
        wanted = f"fix.*.ul.person.{device}"
        found = [
            (await log.stream_info(FIX_STREAM.format(partition=p), subjects_filter=wanted)).state.subjects
            for p in range(up.partitions)
        ]
        return sum(sum((subjects or {}).values()) for subjects in found)
    finally:
        await client.close()


@pytest.mark.slow
def test_devices_with_certificates(tmp_path: Path) -> None:
    """With --client-ca the server and our own roles agree, and a device needs a certificate of the CA."""
    data = tmp_path / "data"
    for command in (["ca", "init"], ["ca", "server", "localhost", "127.0.0.1", "--into", str(tmp_path)]):
        made = headcount(*command, "--data", data, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
    ca = data / "ca" / "ca.crt"
    options = ["--tls", "on", "--client-ca", str(ca)]
    options += ["--tls-cert", str(tmp_path / "server.crt"), "--tls-key", str(tmp_path / "server.key")]
    with Up(tmp_path, open=False, arguments=options) as up:
        device, secret = asyncio.run(_register(up))
        core: list[str | Path] = ["--data", data, "--nats-port", str(up.ports["nats"]), "--into", tmp_path]
        made = headcount("ca", "issue", device, "--register", *core, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        pair = ["--cert", str(tmp_path / f"{device}.crt"), "--key", str(tmp_path / f"{device}.key")]
        who = ["-q", "1", "-i", device, "-u", device]
        topic = f"headcount/ul/person/{device}/fix"
        trust = ["--cafile", str(ca)]
        with pytest.raises(Exception, match="non-zero exit status"):
            mosquitto_pub(up.mqtt_port, topic, fix(LIBRARY), *trust, *who, "-P", secret)
        mosquitto_pub(up.mqtt_port, topic, fix(LIBRARY), *trust, *who, *pair)
        with httpx.Client(verify=client_context(ca), trust_env=False, timeout=LIMIT_S) as client:
            url = f"https://localhost:{up.ports['http']}"
            wait_until(lambda: client.get(f"{url}/readyz").status_code == 200, "ready over HTTPS")
        wait_until(lambda: asyncio.run(_in_log(up, device)) == 1, "the fix is in the log")


@pytest.mark.slow
def test_a_recording_of_a_registered_device(tmp_path: Path) -> None:
    """Where devices need accounts `publish` sends as one, with its secret from a file; two devices are refused."""
    with Encrypted(tmp_path, open=False, arguments=["--tls", "on"]) as up:
        device, secret = asyncio.run(_register(up))
        (tmp_path / "secret.txt").write_text(secret)
        file = recording(tmp_path / "walk.csv")
        options = ["--port", str(up.mqtt_port), "--ca", str(up.certificate), "--quiet", "--site", "ul"]
        who = ["--user", device, "--password-file", str(tmp_path / "secret.txt")]
        run = headcount("publish", file, *options, *who, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        wait_until(lambda: asyncio.run(_in_log(up, device)) == 2, "the recording is in the log")
        assert secret not in up.printed()
        with file.open("a") as more:
            more.write("1760000002,p2,person,52.67,-8.57,6\n")
        run = headcount("publish", file, *options, *who, cwd=tmp_path)
        assert run.returncode == 2
        assert "has 2 devices" in run.stderr


@pytest.mark.slow
def test_elastic_and_everywhere(tmp_path: Path) -> None:
    """`up --elastic --host 0.0.0.0` is encrypted without being asked, through the balancer, both ways."""
    haproxy()  # skips where there is none
    with Encrypted(tmp_path, arguments=["--elastic", "--host", "0.0.0.0"]) as up:
        trust = ["--cafile", str(up.certificate)]
        mosquitto_pub(up.mqtt_port, "headcount/ul/person/me/fix", fix(LIBRARY), "-q", "1", *trust)
        wait_until(lambda: up.counts()[LIBRARY] == (1, 0), "the fix is counted")
        wanted = first_certificate(up.certificate)
        for name in ("http", "ws", "mqtt"):
            shown = ssl.get_server_certificate(("127.0.0.1", up.ports[name]))
            assert x509.load_pem_x509_certificate(shown.encode()) == wanted
