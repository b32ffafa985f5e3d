"""`headcount site` at a running core: sites are added, changed, listed and removed, and recorded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headcount.cli.main import main
from headcount.messaging.connection import connected
from headcount.messaging.site_versions import deployment_sites
from nats_fixture import endpoint_of, running_broker
from small_site import feature, site_of, small_site, square

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run `headcount` on a deployment that counts the site `s`."""
    with running_broker(tmp_path / "data") as broker:

        async def seed() -> None:
            async with connected(endpoint_of(broker), "a role with a site") as connection:
                await deployment_sites(connection, small_site(), 1.0)

        asyncio.run(seed())
        secret = tmp_path / "secret"
        secret.write_text(broker.config.password)
        secret.chmod(0o600)
        core = ("--secret-file", str(secret), "--nats-port", str(broker.config.nats_port))
        yield lambda *words, answer="": CliRunner().invoke(main, [*map(str, words), *core], input=answer)


def site_file(folder: Path, id_: str, zones: int = 1) -> Path:
    """The file of a site with this id and number of zones."""
    geojson = site_of(
        *(
            feature(square(2 * n, 2, 1), role="zone", id=f"z{n}", type="area", name=f"Zone {n}")
            for n in range(1, zones + 1)
        )
    ).geojson
    geojson["features"][0]["properties"]["id"] = id_
    path = folder / f"{id_}-{zones}.geojson"
    path.write_text(json.dumps(geojson))
    return path


def test_a_second_site_is_added_changed_and_removed(run: Run, tmp_path: Path) -> None:
    """Each change states when it takes effect; the list has the current sites, the history of a removed one stays."""
    added = run("site", "add", site_file(tmp_path, "north"))
    assert added.exit_code == 0, added.output
    assert re.fullmatch(r"Site north is counted from 20\d\d-\S+ \S+ UTC\.\n", added.output)
    listed = json.loads(run("site", "list", "--json").output)
    assert [(each["site"], each["version"], each["zones"]) for each in listed] == [
        ("north", 1, 2),
        ("s", 1, 6),
    ]

    changed = run("site", "update", site_file(tmp_path, "north", zones=2))
    assert "Version 2 of north takes effect at" in changed.output
    assert len(json.loads(run("site", "show", "north").output)["features"]) == 3
    assert len(json.loads(run("site", "show", "north", "--version", "1").output)["features"]) == 2
    assert len(json.loads(run("site", "show", "s").output)["features"]) == 6

    assert run("site", "remove", "north", "--erase", answer="n\n").exit_code == 1
    removed = run("site", "remove", "north", "--yes")
    assert "Site north is counted until 20" in removed.output
    assert [each["site"] for each in json.loads(run("site", "list", "--json").output)] == ["s"]
    assert "there is no site 'north'" in run("site", "show", "north").output
    versions = json.loads(run("site", "history", "north", "--json").output)
    assert [(each["version"], each["removed"]) for each in versions] == [(1, False), (2, False), (3, True)]
    assert "version 3 removed north" in run("site", "show", "north", "--version", "3").output

    again = json.loads(run("site", "add", site_file(tmp_path, "north"), "--json").output)
    assert (again["site"], again["version"]) == ("north", 4)
    entries = [json.loads(line) for line in run("audit", "list", "--json").output.splitlines()]
    actions = [entry["action"] for entry in entries if entry["subject"] == "north"]
    assert sorted(actions) == ["site.add", "site.add", "site.remove", "site.update"]


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    """A counted site is not added again, an unknown one not changed or removed, and the last one not removed."""
    counted = run("site", "add", site_file(tmp_path, "s"))
    assert (counted.exit_code, "headcount site update FILE" in counted.output) == (2, True)
    unknown = run("site", "update", site_file(tmp_path, "north"))
    assert (unknown.exit_code, "headcount site add FILE" in unknown.output) == (2, True)
    assert "there is no site 'north'. Sites: s" in run("site", "remove", "north", "--yes").output
    last = run("site", "remove", "s", "--yes")
    assert (last.exit_code, "s is the only site" in last.output) == (2, True)


def test_one_of_several_sites_must_be_chosen(run: Run, tmp_path: Path) -> None:
    """Without an id, the only site is shown; with several, an error lists them."""
    assert json.loads(run("site", "show").output)["features"][0]["properties"]["id"] == "s"
    assert run("site", "add", site_file(tmp_path, "north")).exit_code == 0
    for words in (("show",), ("show", "--version", "1"), ("history",)):
        refused = run("site", *words)
        assert (refused.exit_code, "Choose one of: north, s" in refused.output) == (2, True)
