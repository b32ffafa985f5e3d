"""The benchmarks of growing and shrinking, in their shortest form."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from headcount.services.measured_sizes import read_day
from proxy_fixture import haproxy
from system.running import headcount

pytestmark = pytest.mark.slow


def _bench(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    haproxy()  # skips where there is none
    answer = headcount("bench", *arguments, "--quiet", cwd=cwd, timeout_s=400)
    print(answer.stdout, answer.stderr)
    return answer


def _row(text: str, name: str) -> str:
    """The first value of a row of the figures."""
    found = re.search(rf"^{re.escape(name)} +(\S+( to \S+)?)", text, re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_a_short_day_loses_nothing_and_publishes_nothing_wrong(tmp_path: Path) -> None:
    """Brokers and workers come and go, and all that was acknowledged and published is right."""
    answer = _bench("day", "--minutes", "0.7", "--devices", "150", "--seed", "7", "--no-fixed", cwd=tmp_path)
    assert answer.returncode == 0
    out = tmp_path / "headcount-day-7"
    text = (out / "day.txt").read_text()
    assert answer.stdout.startswith(text.strip())
    assert _row(text, "  of them lost") == "0"
    assert _row(text, "  of them wrong") == "0"
    assert int(_row(text, "QoS 1 acknowledged").replace(",", "")) > 500
    least, most = map(int, _row(text, "brokers").split(" to "))
    assert (least, most) == (1, 3)
    assert read_day(out).elastic.fixes > 500
    assert (out / "day.svg").read_text().startswith("<svg")
    assert "<svg" in (out / "day.html").read_text()


def test_the_rebalancer_fills_a_new_broker(tmp_path: Path) -> None:
    """With leastconn a broker that comes later stays empty until the rebalancer has worked."""
    answer = _bench("balance", "--connections", "90", "--algorithm", "leastconn", cwd=tmp_path)
    assert answer.returncode == 0
    rows = [line.split() for line in answer.stdout.splitlines() if line.startswith("leastconn")]
    brokers = [sorted(map(int, row[-2:] if "2" in row[1] else row[-3:])) for row in rows]
    assert brokers[0] == [45, 45]
    assert brokers[1] == [0, 45, 45]
    for even in (brokers[2], brokers[4]):
        assert max(even) <= 1.2 * 30
