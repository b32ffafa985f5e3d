"""`headcount site`: what is printed where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from case_files import case, case_json
from headcount.cli.main import main
from headcount.sites.files import load_site
from shared import shared

UL = Path(__file__).resolve().parents[2] / "sites" / "ul.geojson"

SMALL = """<osm version="0.6">
<node id="1" lat="50.0" lon="8.0"/><node id="2" lat="50.0" lon="8.01"/>
<node id="3" lat="50.01" lon="8.01"/><node id="4" lat="50.01" lon="8.0"/>
<node id="5" lat="50.002" lon="8.002"/><node id="6" lat="50.002" lon="8.003"/>
<node id="7" lat="50.003" lon="8.003"/>
<way id="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/>
 <tag k="amenity" v="college"/><tag k="name" v="Small [b]"/></way>
<way id="2"><nd ref="5"/><nd ref="6"/><nd ref="7"/><nd ref="5"/><tag k="building" v="yes"/></way>
<way id="3"><nd ref="5"/><nd ref="6"/><nd ref="7"/><tag k="amenity" v="parking"/></way>
<way id="4"><nd ref="5"/><nd ref="9"/><nd ref="7"/><nd ref="5"/><tag k="building" v="yes"/></way>
</osm>"""


def run(*arguments: str | Path) -> Result:
    """Run `headcount site` with arguments."""
    return CliRunner().invoke(main, ["site", *(str(argument) for argument in arguments)])


def test_check_a_good_file() -> None:
    """A valid file ends with 0 and a table of zones per type, with the defaults under it."""
    result = run("check", UL)
    assert result.exit_code == 0
    assert "is valid: University of Limerick, id ul, time zone Europe/Dublin" in result.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()]
    zones = {row[0]: row[1] for row in rows if row}
    assert zones == {"site": "1", "building": "13", "car_park": "18", "area": "10", "gate": "5"}
    assert "(hold_s): person 900 s, vehicle 300 s" in result.stdout
    assert "Offline ends a stay of (on_offline): no kind" in result.stdout
    assert result.stderr == ""


def test_check_lists_all_problems(tmp_path: Path) -> None:
    """A file that is not valid ends with 2 after all its problems, one a line, on standard error."""
    geojson = json.loads(UL.read_text(encoding="utf-8"))
    geojson["features"][1]["properties"]["type"] = "pub"
    geojson["features"][2]["properties"]["id"] = "a b"
    path = tmp_path / "ul.geojson"
    path.write_text(json.dumps(geojson))
    result = run("check", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f"{path}: zone \"main-building\": has the unknown type 'pub'")
    assert second.startswith(f"{path}: zone \"a b\": has the id 'a b'")
    assert last == f"{path} is not valid: 2 problems"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tz_bad.geojson", "has the unknown time zone 'Europe/Viena'. Do you mean \"Europe/Vienna\"?"),
        ("crs3857.geojson", "the file: is projected (EPSG:3857). Export it as EPSG:4326"),
        ("crs3857_nearzero.geojson", "the file: is projected (EPSG:3857). Export it as EPSG:4326"),
    ],
)
def test_check_refuses_what_no_role_could_use(name: str, text: str) -> None:
    """An unknown time zone and projected coordinates are one problem each, with the remedy."""
    result = run("check", case(name))
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stderr.endswith("is not valid: 1 problem\n")


@pytest.mark.parametrize("name", ["base.geojson", "tz_us.geojson", "multi_touch_edge.geojson"])
def test_check_accepts_what_every_role_can_use(name: str) -> None:
    """Older time zones and parts that touch are valid, without a warning."""
    result = run("check", case(name))
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.output


def test_check_warns(tmp_path: Path) -> None:
    """A value without effect is a warning below the table, and the exit code stays 0."""
    geojson = case_json("base.geojson")
    geojson["features"][1]["properties"]["hold_s"] = {"person": 60}
    (tmp_path / "hill.geojson").write_text(json.dumps(geojson))
    result = run("check", tmp_path / "hill.geojson")
    assert result.exit_code == 0
    assert 'Warning: zone "lib": its hold_s of 60 s for kind person has no effect.' in result.stdout


def test_import_with_an_unknown_time_zone(tmp_path: Path) -> None:
    """`--timezone` is checked like the one in a file."""
    (tmp_path / "small.osm").write_text(SMALL)
    result = run("import", tmp_path / "small.osm", "--timezone", "Europe/Viena")
    assert result.exit_code == 2
    assert "has the unknown time zone 'Europe/Viena'" in result.stderr
    assert result.stdout == ""


def test_check_a_missing_file(tmp_path: Path) -> None:
    """A missing file is an error with exit code 2 and a remedy."""
    result = run("check", tmp_path / "nope")
    assert result.exit_code == 2
    assert "nope: the file: does not exist. Use the path of a site file" in result.stderr


def test_import_to_a_file(tmp_path: Path) -> None:
    """An imported file is valid; what was imported and left out is printed."""
    (tmp_path / "small.osm").write_text(SMALL)
    out = tmp_path / "small.geojson"
    result = run("import", tmp_path / "small.osm", "-o", out, "--id", "s", "--timezone", "Europe/Berlin")
    assert result.exit_code == 0, result.output
    made = load_site(out)
    assert (made.id, made.name, made.timezone) == ("s", "Small [b]", "Europe/Berlin")
    assert [zone.id for zone in made.zones] == ["site", "building-2"]
    assert result.stderr.splitlines() == [
        'Boundary: Small [b] (way/1), id "s"',
        "Imported: buildings 1, car parks 0",
        "Left out:",
        "  way/3: it is not a closed way",
        "  way/4: parts of it are not in the file",
    ]
    assert run("check", out).exit_code == 0


def test_import_to_standard_output(tmp_path: Path) -> None:
    """Without --output, standard output is the site file and nothing else."""
    (tmp_path / "small.osm").write_text(SMALL)
    result = run("import", tmp_path / "small.osm")
    assert json.loads(result.stdout)["features"][0]["properties"]["id"] == "small-b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("remark.json", 'is not complete: the Overpass API reports "runtime error: Query timed out'),
        ("remark_empty.json", 'is not complete: the Overpass API reports "runtime error: Query timed out'),
        ("html.json", 'is an HTML page ("504 Gateway Timeout"), not OpenStreetMap data. The download failed'),
    ],
)
def test_import_of_a_failed_download(name: str, text: str, tmp_path: Path) -> None:
    """A download that failed or is not complete ends with 2, and nothing is written."""
    result = run("import", case(name), "-o", tmp_path / "out.geojson")
    assert result.exit_code == 2
    assert text in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("ways_first.osm", "buildings 1, car parks 1"),
        ("josm_negative.osm", "buildings 1, car parks 1"),
        ("josm_deleted.osm", "buildings 0, car parks 1"),
        ("names.json", "buildings 6, car parks 0"),
        ("caps.json", "buildings 0, car parks 14"),
    ],
)
def test_import_of_unusual_files(name: str, imported: str, tmp_path: Path) -> None:
    """Unusual but complete data is imported to a valid site file."""
    out = tmp_path / "out.geojson"
    result = run("import", case(name), "-o", out)
    assert result.exit_code == 0, result.output
    assert f"Imported: {imported}" in result.stderr
    assert run("check", out).exit_code == 0


def test_import_lists_what_is_left_out() -> None:
    """Capacities that are not plain stand below `Left out`."""
    _, _, left_out = run("import", case("caps.json")).stderr.partition("Left out:\n")
    assert '  way/16 "Lot 6": its capacity "yes" is not one plain number\n' in left_out


def test_import_with_several_campuses(tmp_path: Path) -> None:
    """All candidates are listed with their areas, `--campus` chooses one, and one without zones is an error."""
    result = run("import", case("two_campus_ways.json"), "-o", tmp_path / "a.geojson")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[2:] == [
        "Several areas may be the campus; choose another one with --campus:",
        '  way/1 "Hill College": 1,686,335 m², buildings and car parks inside: 1 (used)',
        '  way/5 "Hill College": 843,167 m², buildings and car parks inside: 1',
    ]
    result = run("import", case("two_campus_ways.json"), "--campus", "way/5")
    assert "Annex" in result.stdout
    result = run("import", case("bigger_neighbour.json"), "--campus", "Other University")
    assert result.exit_code == 2
    assert "no building or car park in the file lies inside it" in result.stderr


def test_import_without_boundary(tmp_path: Path) -> None:
    """A boundary that isn't there ends with 2 and names the option."""
    (tmp_path / "small.osm").write_text(SMALL)
    result = run("import", tmp_path / "small.osm", "--boundary", "x")
    assert result.exit_code == 2
    assert 'the boundary "x": no closed way' in result.stderr
    assert "--boundary NAME" in result.stderr


def test_import_to_a_place_that_is_none(tmp_path: Path) -> None:
    """If the file can't be written, the exit code is 2 and the error states the reason."""
    (tmp_path / "small.osm").write_text(SMALL)
    out = tmp_path / "no" / "out"
    result = run("import", tmp_path / "small.osm", "-o", out)
    assert result.exit_code == 2
    assert (
        f"--output: {out} cannot be written: No such file or directory; choose another path" in result.stderr
    )


def test_import_real_data(tmp_path: Path) -> None:
    """The raw data of a real campus become a site that `check` accepts."""
    out = tmp_path / "mc.geojson"
    result = run("import", shared("data", "osm", "mc_rockville.osm.gz"), "-o", out)
    assert "Imported: buildings 24, car parks 11" in result.stderr
    assert "relation/20068407: missing ways around holes: 5" in result.stderr
    assert run("check", out).exit_code == 0


@pytest.mark.parametrize("command", ["check", "import"])
def test_help_has_examples(command: str) -> None:
    """Each command's help shows how it is used."""
    assert f"  headcount site {command} " in run(command, "--help").output


def test_diff_of_two_versions(tmp_path: Path) -> None:
    """`diff` names what was added, removed, renamed, moved with its areas, and changed otherwise; as text and JSON."""
    site = json.loads(UL.read_text())
    first, second, third, *others = site["features"][1:]
    first["properties"]["name"] = "Another name"
    second["properties"]["hold_s"] = {"person": 60}
    west = third["geometry"]["coordinates"][0][0][0]
    ring = [[west + 2 * (lon - west), lat] for lon, lat in third["geometry"]["coordinates"][0]]
    third["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    removed = others.pop()["properties"]["id"]
    added = {**first, "properties": {**first["properties"], "id": "added", "name": "Added"}}
    new = tmp_path / "new.geojson"
    new.write_text(
        json.dumps({**site, "features": [site["features"][0], first, second, third, *others, added]})
    )
    ids = [feature["properties"]["id"] for feature in (first, second, third)]
    lines = run("diff", UL, new).stdout.splitlines()
    assert lines[:2] == ["added    added", f"removed  {removed}"]
    assert lines[2].startswith(f"renamed  {ids[0]}: ")
    assert lines[2].endswith(" → Another name")
    assert lines[3].startswith(f"moved    {ids[2]}: ")
    assert lines[4:] == [f"changed  {ids[1]}: hold_s"]
    found = json.loads(run("diff", UL, new, "--json").stdout)
    assert found["added"] == ["added"]
    assert found["moved"][0]["area_after_m2"] == pytest.approx(
        2 * found["moved"][0]["area_before_m2"], rel=0.01
    )
    assert run("diff", UL, UL).stdout == "no differences\n"
