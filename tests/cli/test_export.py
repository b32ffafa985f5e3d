"""`headcount export` and `headcount history files` on a deployment that does not run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from exports.stored import store_fixes
from headcount.cli.main import main
from headcount.exports.export import FORMATS
from headcount.history.objects import FolderStore


def test_an_export_without_a_running_deployment(tmp_path: Path) -> None:
    """The operator of the machine gets the selected fixes, and a warning that the audit log does not have it."""
    rows = store_fixes(FolderStore(tmp_path / "history"))
    chosen = [row for row in rows if row.site == "ul" and row.kind == "vehicle" and row.t <= 1_795_528_800]
    arguments = ["--site", "ul", "--kind", "vehicle", "--to", "2026-11-24T14:00:00Z", "--data", str(tmp_path)]
    output = tmp_path / "vehicles.csv"
    run = CliRunner().invoke(main, ["export", "--reason", "a test", "-o", str(output), *arguments])
    assert run.exit_code == 0, run.output
    assert "Warning: this export is not in the audit log: data: " in run.stderr
    assert f"{len(chosen)} fixes written to {output}" in run.stderr
    with output.open() as file:
        assert [row["device"] for row in csv.DictReader(file)].count(chosen[0].device) == sum(
            row.device == chosen[0].device for row in chosen
        )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-o", "a.csv"], "Missing option '--reason'"),
        (["-o", "a.csv", "--reason", " "], "--reason: is empty"),
        (["-o", "a.xlsx", "--reason", "x"], "a.xlsx does not end with .csv, "),
        (
            ["-o", "a.csv", "--reason", "x", "--zone", "library"],
            "the zones of the deployment are not known: ",
        ),
        (
            ["-o", "a.csv", "--reason", "x", "--bbox", "1,2,3"],
            "'1,2,3' is not west,south,east,north in degrees",
        ),
        (["-o", "a.csv", "--reason", "x", "--bbox", "1,nan,3,4"], "is not west,south,east,north in degrees"),
    ],
)
def test_an_invalid_export(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with 2, names what is wrong, and writes no file."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(main, ["export", "--data", str(tmp_path), *arguments])
    assert run.exit_code == 2
    assert problem in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_a_span(tmp_path: Path) -> None:
    """The list has the segments that touch the span, with their full paths."""
    store_fixes(FolderStore(tmp_path / "history"))
    span = ["--from", "2026-11-24T14:10:00Z", "--data", str(tmp_path)]
    run = CliRunner().invoke(main, ["history", "files", *span])
    assert run.exit_code == 0, run.output
    paths = run.stdout.splitlines()
    assert [Path(path).parent.name for path in paths] == ["hour=2026-11-24T14", "hour=2026-11-24T15"]
    assert all(Path(path).is_file() for path in paths)
    assert CliRunner().invoke(main, ["history", "files", "--dataset", "counts", *span]).stdout == ""


def test_the_help_lists_each_format() -> None:
    """Each format of the package can be chosen."""
    run = CliRunner().invoke(main, ["export", "--help"])
    assert f"[{'|'.join(FORMATS)}]" in run.stdout.replace("\n", "").replace(" ", "")
