"""Decoders of other packages in a running system: one from `headcount decoder new`, and faulty ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from paho.mqtt import publish
from prometheus_client.parser import text_string_to_metric_families

from decoders.faulty_plugin import install
from system.running import Up, environment, headcount
from waiting import LIMIT_S, wait_until

NAME = "acme-tracker"
UPLINK_TOPIC = "v3/campus@ttn/devices/bus-7/up"
HANG, CRASH, MEMORY = "hang", "crash", "memory"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(
    *arguments: str | Path, cwd: Path, packages: Path, content: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run Python with arguments and the installed packages."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment() | {"PYTHONPATH": str(packages)},
        input=content,
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
    )


class System:
    """A running system, with a gateway and a project of a decoder."""

    def __init__(self, up: Up, project: Path) -> None:
        """Register a gateway, and create a token."""
        self.up, self.project = up, project
        self.gateway = self.add_device("--gateway")
        created = self.command("token", "add", "test", "--role", "viewer", "--days", "1")
        (token,) = (word for word in created.decode().split() if word.startswith("hc_"))
        self._headers = {"authorization": f"Bearer {token}"}

    def command(self, *arguments: str) -> bytes:
        """Run a command of headcount on the system; return its output."""
        core = ("--data", self.up.data, "--nats-port", str(self.up.ports["nats"]))
        packages = self.project.parent / "packages"
        done = run("-m", "headcount", *arguments, *core, cwd=self.up.folder, packages=packages)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add_device(self, *options: str) -> tuple[str, str]:
        """Register a vehicle; return its id and secret."""
        device = json.loads(self.command("device", "add", "--kind", "vehicle", "--json", *options))
        return device["id"], device["secret"]

    def publish(self, topic: str, *payloads: bytes) -> None:
        """Publish as the gateway, over one connection: the broker limits their number."""
        self.publish_as(self.gateway, 1, topic, *payloads)

    def publish_as(self, login: tuple[str, str], qos: int, topic: str, *payloads: bytes) -> None:
        """Publish as a device."""
        id_, secret = login
        publish.multiple(
            [{"topic": topic, "payload": payload, "qos": qos} for payload in payloads],
            hostname="127.0.0.1",
            port=self.up.mqtt_port,
            client_id=id_,
            auth={"username": id_, "password": secret},
        )

    def get(self, path: str) -> httpx.Response:
        """The answer to a program with exact counts."""
        address = f"http://127.0.0.1:{self.up.ports['http']}{path}"
        return httpx.get(address, headers=self._headers, trust_env=False, timeout=60).raise_for_status()

    def vehicles(self) -> int:
        """Exact count of vehicles on the site."""
        zones = self.get("/v1/sites/ul/counts").json()["zones"]
        return int(next(zone for zone in zones if zone["zone"] == "site")["vehicle"]["count"])

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 if there is none with these labels."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def rejected(self, format_: str, reason: str) -> float:
        """Number of rejected messages."""
        return self.metric("headcount_adapter_rejected_messages_total", format=format_, reason=reason)

    def translated(self, format_: str) -> float:
        """Number of translated messages."""
        return self.metric("headcount_adapter_translated_messages_total", format=format_)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project of a decoder, installed into the folder `packages` beside it."""
    folder = tmp_path_factory.mktemp("decoder")
    created = headcount("decoder", "new", NAME, cwd=folder)
    assert created.returncode == 0, created.stderr
    project = folder / f"headcount-decoder-{NAME}"
    assert created.stdout.split() == [
        str(path.relative_to(folder)) for path in (project / each for each in FILES)
    ]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(folder / "packages"), str(project)], check=True
    )
    return project


FILES = (
    "pyproject.toml",
    "README.md",
    "headcount_decoder_acme_tracker.py",
    "tests/test_decoder.py",
    "tests/fixtures/uplink.json",
)


@pytest.fixture(scope="module")
def system(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """`headcount up` with the decoder, a faulty one, and one that cannot be imported."""
    packages = project.parent / "packages"
    install(packages)
    install(packages, "broken", source='TOPICS = ["broken/+"]\nimport nothing_of_this_name\n')
    folder = tmp_path_factory.mktemp("up")
    with Up(folder, open=False, variables={"PYTHONPATH": str(packages)}) as up:
        yield System(up, project)


def uplink(project: Path, device: str = "bus-7") -> bytes:
    """The fixture of the project with the time of now."""
    content = json.loads((project / "tests/fixtures/uplink.json").read_bytes())
    content["end_device_ids"]["device_id"] = device
    content["received_at"] = datetime.now(UTC).isoformat()
    return json.dumps(content).encode()


def test_the_test_of_a_new_project_passes(project: Path) -> None:
    """The project works as it is written, and its code is clean."""
    ran = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir=.",
        "tests",
        cwd=project,
        packages=project.parent / "packages",
    )
    assert ran.returncode == 0, ran.stdout
    assert b"6 passed" in ran.stdout
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--select=E,F,UP,B,PTH"]
    subprocess.run([*ruff, "--line-length=110", project], check=True)


def test_messages_of_a_new_format_are_counted(system: System) -> None:
    """Messages that a gateway publishes on the decoder's topic are counted, one vehicle for each tracker."""
    before, translated = system.vehicles(), system.translated(NAME)
    uplinks = [uplink(system.project, device) for device in ("bus-7", "bus-8", "bus-7")]
    system.publish(UPLINK_TOPIC, *uplinks, b"not an uplink")
    wait_until(lambda: system.vehicles() == before + 2, "both buses are counted")
    wait_until(lambda: system.translated(NAME) == translated + 3, "three messages are translated")
    wait_until(lambda: system.rejected(NAME, "not_an_uplink") == 1, "one is rejected")


def test_a_faulty_decoder_rejects_its_own_messages_alone(system: System) -> None:
    """A plug-in that hangs, crashes or needs too much memory loses no other message and delays no other format."""
    before, translated = system.vehicles(), system.translated("faulty")
    payloads = (HANG, "van-1", CRASH, "van-2", MEMORY, "rubbish", "exit", "van-3")
    system.publish("faulty/1/up", *(payload.encode() for payload in payloads))
    system.publish(UPLINK_TOPIC, uplink(system.project, "bus-9"))
    system.publish("car-iotp", json.dumps({"id": "car-1", "lat": 52.6743, "lon": -8.5727}).encode())
    wait_until(lambda: system.translated("faulty") == translated + 3, "the vans are translated")
    wait_until(lambda: system.vehicles() == before + 5, "all vehicles are counted")
    for reason, number in {"timeout": 1, "crash": 2, "memory": 1, "results": 1}.items():
        wait_until(lambda: system.rejected("faulty", reason) == number, reason)  # noqa: B023
    hosts = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "headcount_faulty" in (process.info["cmdline"] or ()) and process.is_running()
    ]
    assert len(hosts) == 1


def test_no_message_is_lost_when_the_adapters_are_killed(system: System) -> None:
    """Of a backlog with faulty messages in it, each other message is counted, though the role is killed meanwhile."""
    before, names = system.vehicles(), [f"bus-{number}" for number in range(100, 140)]
    payloads = (*names[:10], HANG, *names[10:20], CRASH, *names[20:])
    system.publish("faulty/1/up", *(payload.encode() for payload in payloads))
    assert system.up.kill9("adapters") is not None
    wait_until(lambda: system.vehicles() == before + len(names), "all are counted")


def test_a_decoder_that_cannot_be_imported_is_logged(system: System) -> None:
    """The log has the reason, a metric is 0, and the messages wait."""
    system.publish("broken/1", b"waits")

    def running(format_: str) -> float:
        return system.metric("headcount_adapter_decoders_running", format=format_)

    wait_until(lambda: running("faulty") == 1 and running(NAME) == 1, "the others run")
    assert running("broken") == 0
    assert 'headcount_adapter_decoders_running{format="broken"}' in system.get("/metrics").text
    assert "No module named 'nothing_of_this_name'" in system.up.printed()
    assert system.translated("broken") == 0


def test_only_a_gateway_publishes_on_the_topics(system: System) -> None:
    """A device without the right is refused, and its message is not translated."""
    login = system.add_device("--alias", f"{NAME}/campus/bus-7")
    system.publish_as(login, 0, UPLINK_TOPIC, uplink(system.project))
    wait_until(
        lambda: system.metric("headcount_refused_total", action="publish", reason="topic") >= 1,
        "it is refused",
    )


def test_decoder_commands(project: Path, tmp_path: Path) -> None:
    """`list` shows shipped and installed formats; `run` shows fixes and ends with 1 for a rejected message."""

    def decoder(*arguments: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        packages = project.parent / "packages"
        return run("-m", "headcount", "decoder", *arguments, cwd=project, packages=packages, content=content)

    listed = {each["format"]: each for each in json.loads(decoder("list", "--json").stdout)}
    assert listed[NAME] == {
        "format": NAME,
        "package": f"headcount-decoder-{NAME} 0.1.0",
        "topics": ["v3/+/devices/+/up"],
    }
    assert {"owntracks", "iotp"} < listed.keys()
    shown = decoder("run", "--format", NAME, "tests/fixtures/uplink.json")
    assert shown.returncode == 0
    assert shown.stdout.startswith(b"fix of campus/bus-7 at 2026-11-28 12:59:59 UTC: 52.674300, -8.572700")
    rejected = decoder("run", "--format", NAME, "--hex", content=b"0a 0b\n")
    assert rejected.returncode == 1
    assert rejected.stderr == b"rejected (not_an_uplink): it is not an uplink of The Things Network\n"
    again = headcount("decoder", "new", NAME, "--folder", project, cwd=tmp_path)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
