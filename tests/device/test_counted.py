"""Devices that run the library, and the counts of a real headcount."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device.machine import Machine, reports_of
from device.receiver import Receiver, gpsd, needs_gpsd
from device.relay import Relay
from headcount.device import DevicePosition, read_credentials, redeem
from headcount.runtime.ports import free_port
from system.running import Up, environment, headcount
from system.senders import SITE, spot
from waiting import LIMIT_S, wait_until

LIBRARY, SCHUMAN = "glucksman-library", "schuman-building"


class Campus:
    """A running headcount with accounts."""

    def __init__(self, up: Up) -> None:
        self.up = up
        token = self._run("token", "add", "test", "--role", "operator").split()[-1]
        up._http.headers["authorization"] = f"Bearer {token}"

    def device(self, *arguments: str) -> str:
        """The output of a command of `headcount device`."""
        return self._run("device", *arguments)

    def _run(self, *arguments: str) -> str:
        where = ["--data", str(self.up.data), "--nats-port", str(self.up.ports["nats"])]
        done = headcount(*arguments, *where, cwd=self.up.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def credentials(self, kind: str, port: int) -> dict[str, Any]:
        """Those of a new device."""
        added: dict[str, Any] = json.loads(self.device("add", "--kind", kind, "--json"))
        return {**added, "port": port}

    def claim_code(self) -> str:
        """A code that registers a person's device."""
        options = ("--kind", "person", "--count", "1", "--public-url", self.url)
        return self.device("claim", *options).splitlines()[1].partition(",")[0]

    @property
    def url(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self.up.ports['http']}"

    def verdicts(self, *names: str) -> float:
        """The number of fixes with these verdicts."""
        return sum(self.up.metric("headcount_fixes_total", verdict=name) for name in names)


@pytest.fixture(scope="module")
def campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campus]:
    """A campus whose counts are exact."""
    with Up(tmp_path_factory.mktemp("up"), open=False, arguments=["--suppress-below", "1"]) as up:
        wait_until(up.is_ready, "the counts are live")
        yield Campus(up)


def walk(seconds: int, end_s: float) -> list[DevicePosition]:
    """A walk to and fro between two buildings, a position each second, the last one at `end_s` in the library."""
    (lat1, lon1), (lat2, lon2) = spot(LIBRARY), spot(SCHUMAN)
    track = []
    for second in range(seconds):
        share = abs((seconds - 1 - second) % 240 - 120) / 120  # 1 = in the library
        lat, lon = lat2 + share * (lat1 - lat2), lon2 + share * (lon1 - lon2)
        track.append(DevicePosition(round(end_s - seconds + 1 + second, 3), lat, lon, acc=4, vel=5, cog=90))
    return track


def test_no_fix_is_lost_in_ten_minutes_without_network(campus: Campus, tmp_path: Path) -> None:
    """Through a cut of ten minutes, a kill of the device and one of the broker, each report is counted exactly once."""
    track = walk(660, time.time())
    expected = reports_of(track, SITE, "person")
    before = campus.verdicts("accepted")
    with Relay(campus.up.mqtt_port) as relay:
        credentials, buffer = campus.credentials("person", relay.port), tmp_path / "fixes.db"
        with Machine(credentials, buffer) as machine:
            machine.report(track[:30])
            wait_until(lambda: campus.verdicts("accepted") > before, "the first fix is counted")
            relay.cut()
            machine.report(track[30:400])
            machine.kill9()
        with Machine(credentials, buffer) as machine:
            machine.report(track[400:])
            assert campus.verdicts("accepted") - before < len(expected) / 4
            relay.restore()
            wait_until(lambda: campus.verdicts("accepted") > before + 5, "fixes arrive again")
            campus.up.kill9("broker")
            wait_until(lambda: campus.verdicts("accepted") == before + len(expected), "all are counted")
            machine.end()
    assert campus.verdicts("accepted", "outside") == before + len(expected)
    assert campus.verdicts("late", "implausible", "malformed", "invalid") == 0
    wait_until(lambda: campus.up.counts()[LIBRARY][0] == 1, "the device is in the library")
    with Machine(credentials, buffer) as machine:  # nothing is left in the file
        machine.report([replace(track[-1], t=track[-1].t + 1)])
        machine.end()
    assert campus.verdicts("accepted") == before + len(expected)


def test_no_fix_is_lost_over_http(campus: Campus, tmp_path: Path) -> None:
    """Over HTTP, too: through a cut and a kill of the device, each report is counted exactly once."""
    track = walk(120, time.time())
    expected = reports_of(track, SITE, "person")
    before = campus.verdicts("accepted")
    with Relay(campus.up.ports["http"]) as relay:
        credentials = campus.credentials("person", 1) | {"url": f"http://127.0.0.1:{relay.port}"}
        buffer = tmp_path / "fixes.db"
        with Machine(credentials, buffer, transport="http") as machine:
            machine.report(track[:10])
            wait_until(lambda: campus.verdicts("accepted") > before, "the first fix is counted")
            relay.cut()
            machine.report(track[10:80])
        with Machine(credentials, buffer, transport="http") as machine:
            machine.report(track[80:])
            relay.restore()
            wait_until(lambda: campus.verdicts("accepted") == before + len(expected), "all are counted")
            machine.end()
    assert campus.verdicts("accepted") == before + len(expected)
    assert campus.verdicts("late", "implausible", "malformed", "invalid") == 0


def test_a_device_that_leaves_is_not_counted(campus: Campus, tmp_path: Path) -> None:
    """A car is counted on site, one fix takes it out of the counts, and nothing is sent from elsewhere."""
    now, (lat, lon) = time.time(), spot("car-park-milford")
    credentials = campus.credentials("vehicle", campus.up.mqtt_port)
    with Machine(credentials, tmp_path / "fixes.db") as machine:
        (reason,) = machine.report([DevicePosition(now - 200, lat, lon, 5)])
        assert reason in ("first", "zones")  # before or after the site arrives
        wait_until(lambda: campus.up.counts()["site"][1] == 1, "the car is counted")
        away = [DevicePosition(now - 100 + i, lat + 0.03, lon, 5) for i in range(3)]
        assert machine.report(away) == ["left", None, None]
        wait_until(lambda: campus.up.counts()["site"][1] == 0, "the car has left")
        refused = campus.device("command", credentials["id"], "report")
        assert "queued" in refused or "sent" in refused
        wait_until(
            lambda: "refused: off site" in campus.device("command", credentials["id"], "list"), "the answer"
        )
        machine.end()


@contextmanager
def running(*arguments: str | Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`headcount device run` as a process, killed at the end."""
    command = [sys.executable, "-m", "headcount", "device", "run", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@needs_gpsd
def test_a_receiver_is_counted_from_a_claim_code(campus: Campus, tmp_path: Path) -> None:
    """A machine with a receiver at gpsd redeems a claim code, is counted, obeys, and ends cleanly at SIGTERM."""
    code, file, port = campus.claim_code(), tmp_path / "device.json", free_port(0)
    receiver, before = Receiver(), campus.up.counts()[LIBRARY][0]
    options: list[str | Path] = [
        "--link",
        f"{campus.url}/me#join={code}",
        "--credentials",
        file,
        "--buffer",
        tmp_path / "fixes.db",
    ]
    with (
        gpsd(receiver, port),
        running(*options, "--from", f"gpsd:127.0.0.1:{port}", folder=tmp_path) as process,
    ):
        wait_until(lambda: campus.up.counts()[LIBRARY][0] == before + 1, "it is counted")
        id_ = read_credentials(file).device
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "acknowledged" in campus.device("command", id_, "message", "please charge me", "--wait")
        process.terminate()
        output, errors = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, output) == (0, "message please charge me\n")
        assert "delivered, 0 waiting" in errors
        assert read_credentials(file).secret not in errors
    receiver.close()
    wait_until(lambda: ", connected" not in campus.device("show", id_), "it is offline")


def test_a_track_is_counted(campus: Campus, tmp_path: Path) -> None:
    """The end of a GPX track at full pace is where its device is counted; a link works once."""
    credentials = tmp_path / "device.json"
    credentials.write_text(json.dumps(campus.credentials("vehicle", campus.up.mqtt_port)))
    points = [spot(LIBRARY), spot("car-park-milford")]
    (tmp_path / "drive.gpx").write_text(
        "<gpx><trk><trkseg>"
        + "".join(
            f'<trkpt lat="{lat}" lon="{lon}"><time>2026-01-01T10:0{minute}:00Z</time></trkpt>'
            for minute, (lat, lon) in enumerate(points)
        )
        + "</trkseg></trk></gpx>"
    )
    before = campus.up.counts()["car-park-milford"][1]
    done = headcount(
        "device",
        "run",
        "--credentials",
        credentials,
        "--from",
        "gpx:drive.gpx",
        "--pace",
        "fast",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "2 positions, on site, 2 reported, 2 delivered, 0 waiting" in done.stderr
    wait_until(lambda: campus.up.counts()["car-park-milford"][1] == before + 1, "the car is in the car park")
    code = campus.claim_code()
    assert redeem(code, campus.url).site == "ul"
    done = headcount(
        "device",
        "run",
        "--link",
        f"{campus.url}/me#join={code}",
        "--credentials",
        "new.json",
        "--from",
        "-",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "unknown, used or expired" in done.stderr
    assert not (tmp_path / "new.json").exists()


def test_a_device_over_websocket(campus: Campus, tmp_path: Path) -> None:
    """Over WebSocket a device is counted, too."""
    credentials = campus.credentials("person", 1) | {
        "websocket": f"ws://127.0.0.1:{campus.up.ports['ws']}/mqtt"
    }
    before, (lat, lon) = campus.up.counts()[SCHUMAN][0], spot(SCHUMAN)
    with Machine(credentials, tmp_path / "fixes.db", transport="websocket") as machine:
        machine.report([DevicePosition(time.time(), lat, lon, 5)])
        wait_until(lambda: campus.up.counts()[SCHUMAN][0] == before + 1, "it is counted")
        machine.end()
