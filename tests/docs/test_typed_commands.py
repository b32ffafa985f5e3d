"""The documented commands, typed as they stand in the documents, in a folder outside the checkout."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import psutil
import pytest

from headcount.cli.main import main
from headcount.runtime.ports import free_ports
from system.running import PORTS, UL, environment
from waiting import wait_until

from .pages import DOCS, ROOT, commands, name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: Pages in the order in which a user reads them; each command runs once, on the first page that shows it.
PAGES = [
    *(DOCS / "start" / f"{page}.md" for page in ("own-campus", "first-application")),
    ROOT / "README.md",
    *sorted((DOCS / "guides").glob("*.md")),
    *sorted((DOCS / "reference").glob("*.md")),
]
#: Documented commands that the test does not run, by their start, with the reason.
LEFT_OUT = {
    "headcount demo": "test_demo",
    "headcount up --elastic": "test_elastic",
    "headcount bench": "test_bench_day",
    "headcount prove": "test_prove",
    "headcount run": "the roles of a cluster: test_cluster",
    "headcount scale": "test_scaling",
    "headcount audit verify --from-head": "needs the head that an earlier run printed",
    "headcount up --site campus.geojson --host 0.0.0.0 --tls-cert /etc/letsencrypt": "needs a public name",
    "headcount simulate --people 500 --vehicles 100 --ca server.crt": "needs the stack of containers",
    "headcount device command k3vq2hbw5yxam7p4n6ts interval": "waits for the device: test_examples",
}
#: A university with one building, as openstreetmap.org exports an area.
OSM = """<osm version="0.6" generator="test">
  <node id="1" lat="52.67" lon="-8.58"/><node id="2" lat="52.67" lon="-8.56"/>
  <node id="3" lat="52.68" lon="-8.56"/><node id="4" lat="52.68" lon="-8.58"/>
  <node id="5" lat="52.674" lon="-8.574"/><node id="6" lat="52.674" lon="-8.572"/>
  <node id="7" lat="52.675" lon="-8.572"/><node id="8" lat="52.675" lon="-8.574"/>
  <way id="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/>
    <tag k="amenity" v="university"/><tag k="name" v="University"/></way>
  <way id="2"><nd ref="5"/><nd ref="6"/><nd ref="7"/><nd ref="8"/><nd ref="5"/>
    <tag k="building" v="university"/><tag k="name" v="Library"/></way>
</osm>
"""
#: Commands that run until Ctrl-C.
ENDLESS = ("headcount simulate",)
#: Commands that don't read the port from the environment.
MQTT_CLIENTS = ("headcount simulate", "headcount publish")
#: Commands that need no running system.
OFFLINE = (
    "headcount site",
    "headcount replay",
    "headcount ca init",
    "headcount ca server",
    "headcount ca issue",
)


def typed(page: Path) -> list[str]:
    """The commands of a page, without names of commands in prose and without what is left out."""
    calls = []
    for call in commands(page, "headcount"):
        words = shlex.split(call)[1:]
        command: click.Command | None = main
        while words and isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words[0])
            words = words[1:]
        if command is None or isinstance(command, click.Group) or call.startswith(tuple(LEFT_OUT)):
            continue
        arguments = [each for each in command.params if isinstance(each, click.Argument) and each.required]
        if len([word for word in words if not word.startswith("-")]) >= len(arguments):
            calls.append(call)
    return list(dict.fromkeys(calls))


class Terminal:
    """A user's two terminals in one folder: `headcount up` in the first, other commands in the second."""

    def __init__(self, folder: Path) -> None:
        """The ports are free ones, by environment variables; all else is as a user has it."""
        self.folder = folder
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._environment = environment() | {
            f"HEADCOUNT_{name.upper()}_PORT": str(port) for name, port in self._ports.items()
        }
        self._up: subprocess.Popen[str] | None = None
        self._devices: list[tuple[str, str]] = []

    def run(self, call: str) -> str:
        """Type a command; what it prints."""
        if call.startswith("headcount up"):
            return self.up(call)
        if self._up is None and not call.startswith(OFFLINE):
            self.up("headcount up")
        call = self.with_ids(call)
        process = self.start(call)
        try:
            if call.startswith(ENDLESS):
                wait_until(lambda: connected(process.pid), "a connection")
                process.send_signal(signal.SIGINT)
            reason_asked = "device trace" in call and "--reason" not in call
            out, _ = process.communicate("a first test\n" if reason_asked else "y\n", timeout=300)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, f"{call}: exit code {process.returncode}: {out}"
        return out

    def start(self, call: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", *shlex.split(call)],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def with_ids(self, call: str) -> str:
        """The command with a registered device, an issued token and files that exist."""
        call = re.sub(r"\bID\b|\b[a-z2-7]{20}\b", lambda _: self.device(), call)
        call = call.replace("revoke k3vq2hbw5yxa", f"revoke {self.token()}") if "revoke" in call else call
        if call.startswith(MQTT_CLIENTS):
            call += f" --port {self._ports['mqtt']}"
        return call.replace("/etc/headcount", "certificates").replace("FILE", "site.geojson")

    def device(self) -> str:
        """The id of a new device; its secret is in the file `secret`."""
        if not self._devices:
            (self.folder / "new.csv").write_text("kind\n" + "person\n" * 30)
            table = self.run("headcount device import new.csv")
            self._devices = re.findall(r"^([a-z2-7]{20}),([a-z2-7]+),", table, re.MULTILINE)
        id_, secret = self._devices.pop()
        (self.folder / "secret").write_text(secret)
        return id_

    def token(self) -> str:
        """The id of a new token."""
        found = re.search(r"\bhc_([a-z2-7]{12})_", self.run("headcount token add passing --role viewer"))
        assert found is not None
        return found[1]

    def up(self, call: str) -> str:
        """Start the system in the place of the one that runs."""
        self.close()
        self._up = self.start(self.with_ids(call))
        said: list[str] = []
        assert self._up.stdout is not None
        for line in self._up.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                return "".join(said)
        pytest.fail(f"{call} ended: {''.join(said)}")

    def close(self) -> None:
        """Ctrl-C in the first terminal."""
        if self._up is None:
            return
        self._up.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._up.communicate(timeout=60)
        code, self._up = self._up.poll(), None
        assert code == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a user: site files, recordings, a map extract."""
    folder = tmp_path / "campus"
    folder.mkdir()
    (folder / "sites").mkdir()
    (folder / "certificates").mkdir()
    for site in ("site.geojson", "campus.geojson", "sites/ul.geojson"):
        shutil.copy(UL, folder / site)
    rows = "t,device,kind,lat,lon,acc\n1760000000,p1,person,52.67345,-8.57312,6\n"
    (folder / "campus.osm").write_text(OSM)
    for recording in ("walk.csv", "day.csv"):
        (folder / recording).write_text(rows)
    (folder / "buses.csv.gz").write_bytes(gzip.compress(rows.encode()))
    return folder


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    """Both terminals; nothing runs in them afterwards."""
    terminal = Terminal(folder)
    try:
        yield terminal
    finally:
        terminal.close()


def connected(pid: int) -> bool:
    """Whether a process has a TCP connection."""
    return any(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(pid).net_connections())


def new_on_each_page() -> dict[str, list[str]]:
    """The commands that each page is the first to show."""
    seen: set[str] = set()
    found = {}
    for page in PAGES:
        calls = [call for call in typed(page) if call not in seen]
        seen.update(calls)
        if calls:
            found[name(page)] = calls
    return found


@pytest.mark.parametrize(
    "calls", [pytest.param(calls, id=page) for page, calls in new_on_each_page().items()]
)
def test_what_a_page_shows_works(calls: list[str], terminal: Terminal) -> None:
    """The commands of a page succeed in the order in which it shows them."""
    for call in calls:
        print(f"$ {call}\n{terminal.run(call)}", flush=True)
