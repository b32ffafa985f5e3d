"""The demonstration as a newcomer starts it, and how near the counts come to the simulated truth."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from system.running import ROOT, Up, environment
from waiting import BUSY_S, wait_until

WEB = ROOT / "web"
Zones = dict[str, tuple[int, int]]
#: After this time every device has reported at least once: indoors that takes up to 300 simulated seconds.
SETTLED_S = 12.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`headcount demo` with a small crowd."""
    crowd = ["--no-browser", "--people", "120", "--vehicles", "40"]
    with Up(tmp_path_factory.mktemp("demo"), command="demo", arguments=crowd) as up:
        yield up


@pytest.mark.slow
def test_the_campus_lives(demo: Up) -> None:
    """People and cars are counted within seconds, numbers change, and honest fixes aren't doubted."""
    wait_until(lambda: min(demo.counts()["site"]) > 0, "people and cars")
    before = demo.counts()
    wait_until(lambda: demo.counts() != before, "numbers change")
    assert "simulate" in demo.roles()
    wait_until(lambda: demo.metric("headcount_fixes_total") > 400, "fixes", every_s=0.5)
    fixes = demo.metric("headcount_fixes_total")
    for verdict in ("implausible", "late", "malformed", "future"):
        doubted = demo.metric("headcount_fixes_total", verdict=verdict)
        print(f"{verdict}: {doubted:.0f} of {fixes:.0f}")
        assert doubted <= 0.01 * fixes


@pytest.mark.slow
def test_a_day_of_history_is_behind_it(demo: Up) -> None:
    """Soon after the start, the history has counts of each of the past 24 hours, and the counts of any moment of them."""

    def hours() -> int:
        to_s = time.time()
        span = {"from": to_s - 24 * 3600, "to": to_s, "step": 3600}
        return len(demo.http("/v1/sites/ul/zones/site/history", **span)["rows"])

    wait_until(lambda: hours() >= 24, "a day of counts", every_s=0.5)
    past = demo.http("/v1/sites/ul/counts", at=time.time() - 12 * 3600)
    assert any(zone["person"]["count"] for zone in past["zones"])


@pytest.mark.slow
def test_the_page_in_a_browser(demo: Up) -> None:
    """The page's own checks hold in a real browser against the demonstration."""
    node, browser = shutil.which("node"), os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for needed, there in {
        "node": node,
        f"the browser {browser}": Path(browser).exists(),
        "the built page": (ROOT / "src" / "headcount" / "web" / "index.html").exists(),
        "the page's tools (npm ci in web/)": (WEB / "node_modules" / "playwright-core").exists(),
    }.items():
        if not there:
            pytest.skip(f"{needed} is missing")
    address = {"HEADCOUNT_URL": f"http://127.0.0.1:{demo.ports['http']}/"}
    run = subprocess.run(
        [str(node), "e2e/run.mjs"],
        cwd=WEB,
        env=environment() | address,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    if run.returncode == 77:
        pytest.skip(run.stdout + run.stderr)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_it_stops_cleanly(demo: Up) -> None:
    """Ctrl-C ends the demonstration and its crowd; no process is left."""
    took_s = demo.stop()
    print(f"Ctrl-C took {took_s:.2f} s")
    assert took_s < BUSY_S
    assert not demo.left()


@pytest.mark.slow
def test_counts_are_near_the_truth(tmp_path: Path) -> None:
    """A crowd's counts are those of the truth, up to what noise and infrequent reports explain.

    On site: devices that have come or gone and haven't reported it yet, some a second at this speed; 2 % and 5
    allow for it. In a zone of 20 or more: besides, GPS errors indoors have a deviation of up to 26 m,
    the leaving margin is 15 m, and a person indoors may report only every 10 s; 20 % and 4 allow for it.
    """
    truth = tmp_path / "truth.csv"
    with Up(tmp_path, arguments=["--speed", "30"]) as up:
        command = [sys.executable, "-m", "headcount", "simulate", "--port", str(up.mqtt_port), "--quiet"]
        command += ["--people", "500", "--vehicles", "150", "--duration", "28", "--truth", str(truth)]
        looks: dict[float, Zones] = {}
        with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as simulate:
            began_s = time.time()
            while simulate.poll() is None:
                answer = up.http("/v1/sites/ul/counts")
                at = datetime.fromisoformat(answer["at"]).timestamp()
                if began_s + SETTLED_S < at and answer["age_s"] < 1:
                    looks[at] = {
                        z["zone"]: (z["person"]["count"], z["vehicle"]["count"]) for z in answer["zones"]
                    }
                time.sleep(0.5)  # the interval of the samples
    assert simulate.returncode == 0
    with truth.open() as file:
        rows = [(float(row["t"]), row["device"], row["kind"], row["zones"]) for row in csv.DictReader(file)]
    looks = {at: counts for at, counts in looks.items() if at < rows[-1][0]}
    assert len(looks) > 5
    for at, counts in looks.items():
        for (zone, kind), really in truly(rows, at).items():
            counted = counts[zone][kind == "vehicle"]
            allowed = 0.02 * really + 5 if zone == "site" else 0.2 * really + 4
            if zone == "site" or really >= 20:
                assert abs(counted - really) <= allowed, f"{zone} {kind} at {at}: {counted}, truly {really}"


def truly(rows: list[tuple[float, str, str, str]], at: float) -> Counter[tuple[str, str]]:
    """How many of each kind really were in each zone."""
    where = {(device, kind): zones for t, device, kind, zones in rows if t <= at}
    return Counter((zone, kind) for (_, kind), zones in where.items() for zone in zones.split(";") if zone)
