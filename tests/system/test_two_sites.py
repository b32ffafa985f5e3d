"""Two sites in one deployment: crowds, devices and their pseudonyms are of one site each."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from small_site import small_site
from system.running import UL, Up, headcount
from system.senders import fix, mosquitto_pub
from waiting import wait_until

INSIDE = (50.0025, 0.0025)  # of the building b1 of the small site


def with_second_site(up: Up, geojson: dict[str, Any]) -> None:
    """Add the site `s` to a running deployment."""
    file = up.folder / "second.geojson"
    boundary = next(each for each in geojson["features"] if each["properties"]["role"] == "site")
    boundary["properties"]["id"] = "s"
    file.write_text(json.dumps(geojson))
    added = headcount("site", "add", file, "--data", up.data, cwd=up.folder)
    assert added.returncode == 0, added.stderr
    wait_until(lambda: up.get("/v1/sites/s/counts").status_code == 200, "the second site is counted")


def people(up: Up, site: str) -> int:
    """The people on a site."""
    zones = up.http(f"/v1/sites/{site}/counts")["zones"]
    return int(next(zone["person"]["count"] for zone in zones if zone["zone"] == "site"))


def inside() -> bytes:
    """A position in the building b1."""
    lat, lon = INSIDE
    return json.dumps({"t": time.time(), "lat": lat, "lon": lon, "acc": 5}).encode()


@pytest.mark.slow
def test_each_crowd_is_on_its_own_site(tmp_path: Path) -> None:
    """Two simulations of the same devices, one for each site, are counted beside each other."""
    with Up(tmp_path) as up:
        with_second_site(up, json.loads(UL.read_text()))
        simulate = ("simulate", "--port", str(up.mqtt_port), "--people", "40", "--vehicles", "5", "--quiet")
        unclear = headcount(*simulate, cwd=tmp_path)
        assert unclear.returncode == 2
        assert "publishes the sites s, ul. Choose one with --site." in unclear.stderr
        found = {}
        for site in ("ul", "s"):
            run = headcount(*simulate, "--site", site, "--duration", "3s", cwd=tmp_path)
            assert run.returncode == 0, run.stderr
            wait_until(lambda site=site: people(up, site) > 0, f"the crowd is on {site}")  # type: ignore[misc]
            found[site] = people(up, site)
        assert people(up, "ul") == found["ul"]
        for site in ("nowhere", "s"):
            topic = f"headcount/{site}/person/me/fix"
            mosquitto_pub(up.mqtt_port, topic, fix("glucksman-library"), "-q", "1")
        wait_until(lambda: people(up, "s") == found["s"] + 1, "another device is on s")
        assert people(up, "ul") == found["ul"]


@pytest.mark.slow
def test_a_device_of_the_second_site(tmp_path: Path) -> None:
    """It is registered with --site, counted there alone, and refused when its site is removed."""
    with Up(tmp_path, open=False) as up:

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return headcount(*words, "--data", up.data, cwd=tmp_path)

        with_second_site(up, small_site().geojson)
        add = ("device", "add", "--kind", "person", "--json")
        unclear, unknown = run(*add), run(*add, "--site", "t")
        assert (unclear.returncode, unknown.returncode) == (2, 2)
        assert "a site must be chosen. Choose one of: s, ul" in unclear.stderr
        assert "there is no site 't'" in unknown.stderr
        made = json.loads(run(*add, "--site", "s").stdout)
        account = ["-u", made["id"], "-P", made["secret"], "-i", made["id"], "-q", "1"]
        topic = f"headcount/s/person/{made['id']}/fix"
        mosquitto_pub(up.mqtt_port, topic, inside(), *account)
        trace = run("device", "trace", made["id"], "--reason", "a test", "--json").stdout
        assert json.loads(trace)["zones"] == ["site", "b1"]
        listed = [json.loads(run("device", "list", "--json", "--site", site).stdout) for site in ("s", "ul")]
        assert [len(page["devices"]) for page in listed] == [1, 0]
        assert run("site", "remove", "s", "--yes").returncode == 0

        def is_refused() -> bool:
            command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(up.mqtt_port), "-t", topic, "-m", "{}"]
            return subprocess.run([*command, *account], capture_output=True, check=False).returncode != 0

        wait_until(is_refused, "the device is refused")
        assert "there is no site 's'" in run(*add, "--site", "s").stderr
        left = json.loads(run("device", "list", "--json", "--site", "s").stdout)["devices"]
        assert [each["id"] for each in left] == [made["id"]]
        assert "the site s is removed at " in up.printed()
