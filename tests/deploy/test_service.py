"""Installation on one machine: the systemd unit, and an environment without development tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "headcount.service"


@pytest.mark.parametrize("name", ["headcount.service", "headcount-device.service"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` finds no fault, with a program that exists in the place of headcount."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / name
    text = (UNIT.parent / name).read_text()
    unit.write_text(re.sub(r"/opt/headcount/bin/\w+", sys.executable, text))
    run = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (run.returncode, [line for line in run.stderr.splitlines() if name in line]) == (0, [])


def test_the_unit_and_the_guide_agree() -> None:
    """The guide installs the unit, and the program, configuration and data of the unit are those of the guide."""
    unit, guide = UNIT.read_text(), (ROOT / "docs" / "guides" / "operate.md").read_text()
    assert "deploy/headcount.service /etc/systemd/system/headcount.service" in guide
    start = re.search(r"^ExecStart=(\S+) --config (\S+) up$", unit, re.MULTILINE)
    assert start is not None
    assert f"sudo -u headcount {start[1]} --config {start[2]}" in guide
    assert f"make install PREFIX={Path(start[1]).parents[1]}" in guide
    assert 'data = "/var/lib/headcount"' in guide
    assert "StateDirectory=headcount\n" in unit


@pytest.mark.slow
def test_install_has_what_runs_and_the_map(tmp_path: Path) -> None:
    """`make install` makes an environment with the map and without development tools, which runs anywhere."""
    prefix = tmp_path / "headcount"
    subprocess.check_call(["make", "install", f"PREFIX={prefix}", f"PYTHON={sys.executable}"], cwd=ROOT)
    run = subprocess.check_output([prefix / "bin" / "headcount", "--version"], cwd=tmp_path, text=True)
    assert run.startswith("headcount")
    (packages,) = prefix.glob("lib/python*/site-packages")
    assert (packages / "headcount" / "web" / "index.html").exists() or shutil.which("npm") is None
    assert not (packages / "pytest").exists()
    assert not (packages / "mypy").exists()
    used = sum(file.stat().st_size for file in prefix.rglob("*") if file.is_file() and not file.is_symlink())
    assert used < 600e6
