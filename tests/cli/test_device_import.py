"""`headcount device import`: tables that are refused before anything is registered."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from case_files import case
from headcount.cli.main import main


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            case("devices_aliasbad.csv").read_bytes(),
            "line 2: aliases: 'jane/phone' matches no message. Use owntracks/USER/DEVICE or iotp/ID",
        ),
        ("kind,label\nperson,Zoë\n".encode("cp1252"), "is not UTF-8: line 2 is 'person,Zoë' in Windows-1252"),
        ("kind;label\ndog;a\n".encode("utf-16"), "line 2: kind: is 'dog'"),
        (b"", "there is no column `kind`; the header is empty"),
    ],
    ids=range(4),
)
def test_a_table_that_is_not_valid(content: bytes, problem: str, tmp_path: Path) -> None:
    """The command ends with 2 and names what it found, without a traceback."""
    path = tmp_path / "devices.csv"
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["device", "import", str(path), "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stdout == ""
