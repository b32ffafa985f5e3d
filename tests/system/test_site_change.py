"""Change the site of a running deployment: counts, events, the map and the history follow without a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from system.running import ROOT, UL, Up, environment, headcount
from system.senders import fix, publish, spot
from waiting import wait_until

NEW = "the-new-zone"
WEB = ROOT / "web"


def command(up: Up, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of `headcount site` on the running system; it finds the port in the data folder."""
    return headcount("site", *words, "--data", up.data, cwd=up.folder)


def changed(geojson: dict[str, Any], without: str = "", **boundary: Any) -> dict[str, Any]:
    """Another version: with a zone around the library, without another zone, with other properties of the boundary."""
    features = [f for f in geojson["features"] if f["properties"]["id"] != without]
    lat, lon = spot("glucksman-library")
    ring = [[lon + x / 1000, lat + y / 1000] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    properties = {"role": "zone", "id": NEW, "name": "New", "type": "area"}
    features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    features = [
        {**f, "properties": {**f["properties"], **(boundary if f["properties"]["role"] == "site" else {})}}
        for f in features
    ]
    return {**geojson, "features": features}


def zones(up: Up) -> set[str]:
    """The zones of the counts."""
    return {zone["zone"] for zone in up.http("/v1/sites/ul/counts")["zones"]}


def test_a_zone_is_added_and_removed_while_the_system_runs(tmp_path: Path) -> None:
    """`site update` adds and removes zones: present devices are counted there immediately, and no role restarts."""
    original = json.loads(UL.read_text())
    site = tmp_path / "new.geojson"
    with Up(tmp_path) as up:
        before, pids = zones(up), up.pids()
        publish(up.mqtt_port, "headcount/ul/person/me/fix", fix("glucksman-library"))
        wait_until(lambda: up.counts()["glucksman-library"] == (1, 0), "the library is counted")
        site.write_text(json.dumps(changed(original, without="glucksman-library")))
        run = command(up, "update", site)
        assert run.returncode == 0, run.stderr
        assert f"added    {NEW}\nremoved  glucksman-library\nVersion 2 of ul takes effect at" in run.stdout
        # nothing was sent since: the last position is placed again
        wait_until(lambda: NEW in zones(up) and up.counts()[NEW] == (1, 0), "the new zone is counted")
        assert zones(up) == before - {"glucksman-library"} | {NEW}
        assert up.counts()["site"] == (1, 0)
        served = up.http("/v1/sites/ul")
        assert NEW in {feature["properties"]["id"] for feature in served["features"]}
        # the history of a removed zone can still be read
        assert up.http("/v1/sites/ul/zones/glucksman-library/history")["zone"] == "glucksman-library"

        assert "is version 2 of ul already" in command(up, "update", site).stdout
        stale = command(up, "update", UL, "--if-version", "1")
        assert stale.returncode == 2
        assert "version 2 was accepted since version 1" in stale.stderr
        site.write_text(json.dumps(changed(original, id="another")))
        other = command(up, "update", site)
        assert other.returncode == 2
        assert "there is no site 'another'. Sites: ul" in other.stderr

        assert command(up, "update", UL).returncode == 0
        wait_until(lambda: zones(up) == before, "the zone is removed")
        assert up.counts()["glucksman-library"] == (1, 0)
        versions = json.loads(command(up, "history", "--json").stdout)
        assert [version["version"] for version in versions] == [1, 2, 3]
        shown = json.loads(command(up, "show", "--version", "2").stdout)
        assert NEW in {feature["properties"]["id"] for feature in shown["features"]}
        assert up.pids() == pids


def test_a_site_is_changed_over_http(tmp_path: Path) -> None:
    """An admin's PUT adds a zone; a file with problems, an old ETag and a token without the scope are refused."""
    original = json.loads(UL.read_text())
    with Up(tmp_path) as up:
        made = headcount("token", "add", "editor", "--role", "admin", "--data", up.data, cwd=up.folder)
        secret = made.stdout.strip()
        url = f"http://127.0.0.1:{up.ports['http']}/v1/sites/ul"

        def put(geojson: Any, **headers: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {secret}", **headers}
            return httpx.put(url, content=json.dumps(geojson), headers=headers, timeout=30)

        etag = httpx.get(url).headers["etag"]
        answer = put(changed(original), **{"If-Match": etag})
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 2
        assert answer.json()["changes"]["added"] == [NEW]
        wait_until(lambda: NEW in zones(up), "the new zone")
        stale = put(original, **{"If-Match": etag})
        assert (stale.status_code, stale.json()["type"]) == (412, "/problems/site-changed")
        broken = changed(original)
        broken["features"][-1]["properties"]["type"] = "castle"
        broken["features"][1]["properties"]["id"] = broken["features"][2]["properties"]["id"]
        refused = put(broken)
        assert refused.status_code == 422
        assert len(refused.json()["errors"]) == 2
        assert httpx.put(url, content="{}", headers={"Authorization": "Bearer hc_x"}).status_code == 401
        assert [entry["action"] for entry in _audit(up)].count("site.update") == 1


def _audit(up: Up) -> list[dict[str, Any]]:
    printed = headcount("audit", "list", "--json", "--data", up.data, cwd=up.folder).stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_the_site_outlives_restarts(tmp_path: Path) -> None:
    """The data folder keeps the newest version; a changed site file is used only when it is submitted."""
    site = tmp_path / "site.geojson"
    shutil.copyfile(UL, site)
    with Up(tmp_path, site) as up:
        new = tmp_path / "new.geojson"
        new.write_text(json.dumps(changed(json.loads(UL.read_text()))))
        assert command(up, "update", new).returncode == 0
        wait_until(lambda: NEW in zones(up), "the new zone")
        publish(up.mqtt_port, "headcount/ul/person/me/fix", fix("glucksman-library"))
        wait_until(lambda: up.counts()[NEW] == (1, 0), "the new zone is counted")
        up.stop()
        up.start()
        wait_until(lambda: up.counts().get(NEW) == (1, 0), "the new zone is counted after a restart")
        assert "the site file differs from version 2 of the site, which is counted" in up.printed()


def test_a_second_site_is_counted_beside_the_first(tmp_path: Path) -> None:
    """`site add` has fixes of another site counted without a restart, apart from the first; `remove` ends it."""
    second = tmp_path / "second.geojson"
    second.write_text(json.dumps(changed(json.loads(UL.read_text()), id="second", name="Second campus")))
    with Up(tmp_path) as up:
        pids = up.pids()
        publish(up.mqtt_port, "headcount/ul/person/me/fix", fix("glucksman-library"))
        wait_until(lambda: up.counts()["site"] == (1, 0), "the first site is counted")
        run = command(up, "add", second)
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("Site second is counted from ")

        def counts_of_second() -> tuple[int, int] | None:
            publish(up.mqtt_port, "headcount/second/person/me/fix", fix("glucksman-library"))
            publish(up.mqtt_port, "headcount/second/vehicle/van/fix", fix("glucksman-library"))
            answer = up.get("/v1/sites/second/counts")
            if answer.status_code != 200:
                return None
            found = {zone["zone"]: zone for zone in answer.json()["zones"]}
            return found[NEW]["person"]["count"], found[NEW]["vehicle"]["count"]

        wait_until(lambda: counts_of_second() == (1, 1), "the second site is counted")
        assert up.counts()["site"] == (1, 0)
        assert up.is_ready()
        assert up.metric("headcount_devices_present", site="second", kind="vehicle") == 1
        assert up.metric("headcount_devices_present", site="ul", kind="vehicle") == 0
        assert command(up, "remove", "second", "--yes").returncode == 0
        wait_until(lambda: up.get("/v1/sites/second/counts").status_code == 404, "the second site is removed")
        assert up.counts()["site"] == (1, 0)
        assert up.is_ready()
        assert up.pids() == pids


@pytest.mark.slow
def test_the_map_has_a_menu_of_the_sites(tmp_path: Path) -> None:
    """In a real browser, the menu opens another site, and the page shows when that one is removed."""
    browser = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for needed in (
        browser,
        WEB / "node_modules" / "playwright-core",
        ROOT / "src" / "headcount" / "web" / "index.html",
    ):
        if not Path(needed).exists():
            pytest.skip(f"{needed} is missing")
    second = tmp_path / "second.geojson"
    second.write_text(json.dumps(changed(json.loads(UL.read_text()), id="west", name="West campus")))
    with Up(tmp_path) as up:
        made = headcount("token", "add", "editor", "--role", "admin", "--data", up.data, cwd=up.folder)
        assert command(up, "add", second).returncode == 0
        wait_until(lambda: up.get("/v1/sites/west/counts").status_code == 200, "it is counted")
        run = subprocess.run(
            ["node", "e2e/sites.mjs"],
            cwd=WEB,
            env={
                **environment(),
                "HEADCOUNT_URL": f"http://127.0.0.1:{up.ports['http']}/",
                "HEADCOUNT_TOKEN": made.stdout.strip(),
                "HEADCOUNT_SITE": "west",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_file_of_an_unknown_site_does_not_start(tmp_path: Path) -> None:
    """A role with the file of a site that the data folder does not have ends: sites are added with `site add`."""
    site = tmp_path / "site.geojson"
    shutil.copyfile(UL, site)
    with Up(tmp_path, site) as up:
        other = tmp_path / "other.geojson"
        other.write_text(json.dumps(changed(json.loads(UL.read_text()), id="another")))
        nats = ("--nats-port", str(up.ports["nats"]), "--mqtt-port", str(up.mqtt_port))
        run = headcount(
            "run", "count", "--site", other, "--data", up.data, *nats, "--partitions", "4", cwd=tmp_path
        )
        assert run.returncode == 2
        assert "is the site 'another', and this deployment counts ul;" in run.stderr
        assert up.is_ready()
