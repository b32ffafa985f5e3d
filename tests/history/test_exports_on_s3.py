"""A history on S3: its files in Polars, an import and an export."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from exports.stored import store_fixes
from headcount.cli.main import main
from headcount.simulate.traces import read_trace
from headcount.sites.files import bundled_site
from s3_fixture import BUCKET, S3Server


def run(*arguments: str) -> str:
    """The standard output of a command that succeeds."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_files_of_a_bucket(s3: S3Server) -> None:
    """`headcount history files` prints addresses that Polars reads with the same credentials."""
    rows = store_fixes(s3.store("files"))
    files = run("history", "files", "--history", f"s3://{BUCKET}/files").splitlines()
    assert len(files) == 3
    assert files[0].startswith(f"s3://{BUCKET}/files/fixes/hour=2026-11-24T13/")
    options = {name.lower(): value for name, value in s3.environment.items()} | {"aws_allow_http": "true"}
    frame = pl.read_parquet(files, storage_options=options)
    assert sorted(frame["device"]) == sorted(row.device for row in rows)


@pytest.mark.usefixtures("s3")
def test_an_import_into_a_bucket(tmp_path: Path) -> None:
    """A recording that is imported into a bucket is exported again."""
    walk = tmp_path / "walk.csv"
    start_s = round(time.time()) - 7200
    lines = [f"{start_s + 30 * i},walker,person,52.6738,{-8.5730 + i * 1e-5:.7f},5" for i in range(10)]
    walk.write_text("\n".join(["t,device,kind,lat,lon,acc", *lines]) + "\n")
    place = ["--history", f"s3://{BUCKET}/import", "--data", str(tmp_path / "data")]
    run("import", str(walk), "--site-file", str(bundled_site("ul")), *place)
    output = tmp_path / "again.csv"
    run("export", "--reason", "a test", "-o", str(output), *place)
    with output.open() as file:
        assert len(list(csv.DictReader(file))) == 10
    assert sorted(read_trace(output).t_s.tolist()) == sorted(read_trace(walk).t_s.tolist())
