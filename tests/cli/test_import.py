"""`headcount import` on a deployment that does not run."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headcount.cli.main import main
from headcount.messages.times import iso
from headcount.sites.files import bundled_site

SITE = bundled_site("ul")


def imported(file: Path, tmp_path: Path, *arguments: str) -> Result:
    """An import with the bundled site."""
    command = ["import", str(file), "--site-file", str(SITE), "--data", str(tmp_path / "data"), *arguments]
    return CliRunner().invoke(main, command)


def recording(path: Path) -> Path:
    """A walk two hours ago, with a row off site, one of now, and two that are not valid."""
    start_s = time.time() - 7200
    rows = [f"{iso(start_s + 30 * i)},walker,person,52.6738,{-8.5730 + i * 1e-5:.7f},5" for i in range(20)]
    rows += [f"{iso(start_s)},far,person,52.0,-8.0,5", f"{iso(time.time())},new,person,52.6738,-8.573,5"]
    rows += ["noon,walker,person,52.6738,-8.573,5", f"{iso(start_s)},a b,person,52.6738,-8.573,5"]
    path.write_text("\n".join(["t,device,kind,lat,lon,acc", *rows]) + "\n")
    return path


def test_an_import_reports_each_row_and_is_repeated_without_effect(tmp_path: Path) -> None:
    """The command reports what became of the rows; again, also from another format, it changes nothing."""
    run = imported(recording(tmp_path / "walk.csv"), tmp_path)
    assert run.exit_code == 0, run.output
    found = dict(re.findall(r"^(\D+?) +(\d+)$", run.stdout, re.MULTILINE))
    assert found.pop("hours with counts") in {"1", "2"}
    assert found == {"fixes stored": "20", "of this hour": "1", "outside": "1", "malformed": "2"}
    assert "malformed: " in run.stderr
    assert "row 23: t is 'noon', not a time" in run.stderr
    output = tmp_path / "again.geojson"
    export = ["export", "--reason", "a test", "-o", str(output), "--data", str(tmp_path / "data")]
    assert CliRunner().invoke(main, export).exit_code == 0
    assert output.read_text().count('"Feature"') == 20
    run = imported(tmp_path / "walk.csv", tmp_path)
    assert run.exit_code == 0
    assert "walk.csv: the same fixes were imported on " in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", "", "a.txt: name: the ending is none of .csv"),
        ("a.csv", "t,lat,lon\n", "column device: is missing"),
        ("a.gpx", "no xml", "a.gpx: file: is not valid XML"),
    ],
)
def test_a_file_of_another_form(name: str, content: str, problem: str, tmp_path: Path) -> None:
    """The command ends with 2, names the problem, and stores nothing."""
    (tmp_path / name).write_text(content)
    run = imported(tmp_path / name, tmp_path)
    assert run.exit_code == 2
    assert problem in run.stderr
    assert not (tmp_path / "data").exists()


def test_an_import_needs_a_site(tmp_path: Path) -> None:
    """Without a running deployment and without a site file, the error names both remedies."""
    run = CliRunner().invoke(main, ["import", str(recording(tmp_path / "walk.csv")), "--data", str(tmp_path)])
    assert run.exit_code == 2
    assert "Start the deployment, or name the site's file with --site-file" in run.stderr
