"""Commands on a running deployment: they find it by its data folder, by variables and by `headcount.toml`."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.runtime.ports import free_ports
from system.running import Up, environment, headcount
from waiting import wait_until

#: Commands that need the core; DEVICE stands for a registered device.
COMMANDS = {
    "device list": ["device", "list"],
    "device show": ["device", "show", "DEVICE"],
    "device command": ["device", "command", "DEVICE", "list"],
    "device command message": ["device", "command", "DEVICE", "message", "hello"],
    "device trace": ["device", "trace", "DEVICE", "--reason", "a test"],
    "ca issue": ["ca", "issue", "DEVICE", "--register"],
    "token list": ["token", "list"],
    "ban list": ["ban", "list"],
    "audit list": ["audit", "list"],
    "audit verify": ["audit", "verify"],
    "site list": ["site", "list"],
    "site show": ["site", "show"],
    "site history": ["site", "history"],
    "site update": ["site", "update", "site.geojson"],
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A deployment on unusual ports, with a CA, and a `headcount.toml` beside its data folder."""
    with Up(tmp_path_factory.mktemp("commands")) as up:
        site = up.folder / "site.geojson"
        site.write_bytes((Path(__file__).resolve().parents[2] / "sites" / "ul.geojson").read_bytes())
        toml = 'site = "site.geojson"\ndata = "data"\npublic_url = "https://counts.example:8443"\n'
        (up.folder / "headcount.toml").write_text(toml)
        assert headcount("ca", "init", cwd=up.folder).returncode == 0
        yield up


@pytest.fixture(scope="module")
def device(up: Up) -> str:
    """A registered device."""
    run = headcount("device", "add", "--kind", "person", cwd=up.folder)
    assert run.returncode == 0, run.stderr
    found = re.search(r"\b[a-z2-7]{20}\b", run.stdout)
    assert found is not None, run.stdout
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_finds_the_deployment_by_its_data_folder(name: str, up: Up, device: str) -> None:
    """Without any port, a command uses that of the core that runs in the data folder."""
    run = headcount(*(word.replace("DEVICE", device) for word in COMMANDS[name]), cwd=up.folder)
    assert run.returncode == 0, run.stderr


def test_an_export_is_in_the_audit_log(up: Up) -> None:
    """An export has the fixes of seconds ago, and is recorded with its reason and its selection."""
    devices = ["--people", "20", "--vehicles", "0", "--start", "11:00", "--duration", "4s", "--quiet"]
    sent = headcount("simulate", "--port", str(up.mqtt_port), "--speed", "1", *devices, cwd=up.folder)
    assert sent.returncode == 0, sent.stderr
    selection = ["--zone", "site", "--kind", "person", "--from", "2026-11-24T13:00Z"]
    numbers = itertools.count()

    def rows() -> list[str]:
        file = f"fixes{next(numbers)}.csv"
        run = headcount("export", "--reason", "bus study", *selection, "-o", file, cwd=up.folder)
        assert run.returncode == 0, run.stderr
        assert "Warning" not in run.stderr
        return (up.folder / file).read_text().splitlines()

    wait_until(lambda: len(rows()) > 1, "fixes of seconds ago", every_s=1.0)
    listed = headcount("audit", "list", "--action", "history.export", "--json", cwd=up.folder)
    for expected in ('"bus study"', '"ul"', '"csv"', '"person"', '"2026-11-24T13:00:00.000Z"'):
        assert expected in listed.stdout, listed.stdout + listed.stderr


def test_an_import_shows_in_the_history(up: Up) -> None:
    """A recording of two hours ago has counts over HTTP, no effect on live ones, and an audit entry."""
    start_s = time.time() // 3600 * 3600 - 5400
    rows = [f"{start_s + 30 * i},walker,person,52.6738,{-8.5730 + i * 1e-5:.7f},5" for i in range(20)]
    (up.folder / "walk.csv").write_text("\n".join(["t,device,kind,lat,lon,acc", *rows]) + "\n")
    run = headcount("import", "walk.csv", cwd=up.folder)
    assert run.returncode == 0, run.stderr
    assert re.search(r"^fixes stored +20$", run.stdout, re.MULTILINE)
    span = {"from": start_s, "to": start_s + 600, "step": 60}
    found = up.http("/v1/sites/ul/zones/site/history", **span)["rows"]
    assert [row["person"]["max"] for row in found[1:]] == [1] * (len(found) - 1)
    assert len(found) >= 10, run.stdout
    listed = headcount("audit", "list", "--action", "history.import", "--json", cwd=up.folder)
    assert '"rows":20' in listed.stdout.replace(" ", "")


def test_a_link_uses_the_configured_address(up: Up, device: str) -> None:
    """`device link` takes `public_url` from the configuration file or the variable."""
    run = headcount("device", "link", device, cwd=up.folder)
    assert run.returncode == 0, run.stderr
    assert "https://counts.example:8443/" in run.stdout
    variables = environment() | {"HEADCOUNT_PUBLIC_URL": "https://other.example"}
    command = [sys.executable, "-m", "headcount", "device", "link", device]
    other = subprocess.run(command, cwd=up.folder, env=variables, capture_output=True, text=True, check=True)
    assert "https://other.example/" in other.stdout


@pytest.mark.parametrize("source", ["variable", "file"])
def test_simulated_devices_use_the_configured_port(source: str, up: Up, tmp_path: Path) -> None:
    """Without --port, `simulate` connects to the MQTT port of the variable or the configuration file."""
    (tmp_path / "headcount.toml").write_text(f"mqtt_port = {up.mqtt_port}\n" if source == "file" else "")
    variables = environment() | ({"HEADCOUNT_MQTT_PORT": str(up.mqtt_port)} if source == "variable" else {})
    command = [sys.executable, "-m", "headcount", "simulate", "--people", "5", "--vehicles", "0", "--quiet"]
    command += ["--start", "10:00", "--duration", "2s"]
    run = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "fixes sent" in run.stderr


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
def test_an_unreachable_core_is_an_error_that_names_the_setting(source: str, up: Up, tmp_path: Path) -> None:
    """The error names the flag, the variable or the line of the file that led to a port without a core."""
    port = str(free_ports(1)[0])
    (tmp_path / "headcount.toml").write_text(f"nats_port = {port}\n" if source == "file" else "")
    variables = environment() | ({"HEADCOUNT_NATS_PORT": port} if source == "variable" else {})
    command = [sys.executable, "-m", "headcount", "device", "list", "--data", os.fspath(up.data)]
    command += ["--nats-port", port] if source == "flag" else []
    run = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    names = {"flag": "--nats-port", "variable": "HEADCOUNT_NATS_PORT", "file": "headcount.toml: nats_port"}
    assert run.stderr.startswith(f"headcount: {names[source]}: no core answers at 127.0.0.1:{port}: ")
    assert "NoServersError" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_the_secret_of_another_deployment_is_named(up: Up, tmp_path: Path) -> None:
    """A core that does not accept the secret of the data folder is not called unreachable."""
    (tmp_path / "secret").write_text("the secret of another deployment")
    port = str(up.ports["nats"])
    run = headcount("device", "list", "--data", tmp_path, "--nats-port", port, cwd=tmp_path)
    assert run.returncode == 2
    assert "does not accept its secret" in run.stderr
    assert run.stderr.startswith("headcount: --data: ")
