"""Devices that run the library, and the counts of a real headcount."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device.machine import Machine, reports_of
from device.relay import Relay
from headcount.device import DevicePosition
from system.running import Up, headcount
from system.senders import SITE, spot
from waiting import wait_until

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
