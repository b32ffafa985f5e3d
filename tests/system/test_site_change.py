"""The site of a running deployment: one for all roles, and changed for all of them together."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from system.running import UL, Up, headcount
from system.senders import fix, publish, spot
from waiting import wait_until

REFUSAL = "is not the site that this deployment runs with"
NEW = "the-new-zone"


def reload(up: Up, site: Path) -> subprocess.CompletedProcess[str]:
    """Run `headcount site reload`; it finds the port in the data folder."""
    return headcount("site", "reload", "--site", site, "--data", up.data, cwd=up.folder)


def rewrite(site: Path, **boundary: Any) -> None:
    """Add a zone around the library, and change properties of the boundary."""
    geojson = json.loads(site.read_text())
    lat, lon = spot("glucksman-library")
    ring = [[lon + x / 1000, lat + y / 1000] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    properties = {"role": "zone", "id": NEW, "name": "New", "type": "area"}
    geojson["features"].append({"type": "Feature", "properties": properties, "geometry": geometry})
    next(f["properties"] for f in geojson["features"] if f["properties"]["role"] == "site").update(boundary)
    site.with_suffix(".new").write_text(json.dumps(geojson))
    site.with_suffix(".new").rename(site)


def zones(up: Up) -> set[str]:
    """The zones of the counts."""
    return {zone["zone"] for zone in up.http("/v1/sites/ul/counts")["zones"]}


def test_a_changed_site_is_refused_until_it_is_reloaded_for_all(tmp_path: Path) -> None:
    """A restarted worker waits with a changed file, and `site reload` changes all roles; counts then have the new zone."""
    site = tmp_path / "site.geojson"
    shutil.copyfile(UL, site)
    with Up(tmp_path, site) as up:
        before = zones(up)
        original = site.read_text()
        rewrite(site)
        up.kill9("count")
        wait_until(lambda: REFUSAL in up.printed(), "the worker refuses the site")
        assert up.printed().count(REFUSAL) == 1
        assert "headcount site reload" in up.printed()
        # the former file again: it goes on
        site.write_text(original)
        wait_until(up.is_ready, "ready with the former file")
        assert zones(up) == before

        rewrite(site)
        pids = up.pids()
        run = reload(up, site)
        assert run.returncode == 0, run.stderr
        assert "start again with this site" in run.stdout
        wait_until(lambda: up.is_ready() and NEW in zones(up), "all roles have the new site")
        publish(up.mqtt_port, "headcount/ul/person/me/fix", fix("glucksman-library"))
        wait_until(lambda: up.counts()[NEW] == (1, 0), "the new zone is counted")
        assert {role for role, pid in up.pids().items() if pid != pids[role]} == {"count", "api", "adapters"}

        again = reload(up, site)
        assert "runs with this site already" in again.stdout

        site.write_text(original)
        rewrite(site, id="another")
        other = reload(up, site)
        assert other.returncode == 2
        assert "is not that of this deployment, ul" in other.stderr


def test_a_role_with_another_site_does_not_start(tmp_path: Path) -> None:
    """A second worker whose site is another one ends with an error that names the setting, and counts nothing."""
    other = tmp_path / "other.geojson"
    shutil.copyfile(UL, other)
    rewrite(other)
    with Up(tmp_path) as up:
        before = zones(up)
        nats = ("--nats-port", str(up.ports["nats"]), "--mqtt-port", str(up.mqtt_port))
        run = headcount(
            "run", "count", "--site", other, "--data", up.data, *nats, "--partitions", "4", cwd=tmp_path
        )
        assert run.returncode == 2
        assert REFUSAL in run.stderr
        assert "headcount: --site: is not that of the deployment; this role does not start" in run.stderr
        assert up.is_ready()
        assert zones(up) == before


def test_a_new_start_may_have_another_site(tmp_path: Path) -> None:
    """After a stop, `up` runs with the file as it is then."""
    site = tmp_path / "site.geojson"
    shutil.copyfile(UL, site)
    with Up(tmp_path, site) as up:
        assert NEW not in zones(up)
        up.stop()
        rewrite(site)
        up.start()
        assert NEW in zones(up)
        assert REFUSAL not in up.printed()
